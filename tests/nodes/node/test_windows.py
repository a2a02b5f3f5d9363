"""Access by the clock: a peer runs inside its windows alone, and none of that is anybody's act."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.waiting import wait_for
from tests.nodes.node.build import Json, dead, digest_of, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.clocks import Clocks
from tests.nodes.node.machine import Machine, Session

NOW, YEAR = int(time.time()), 365 * 86400
FIRST, SECOND = (NOW + 1000, NOW + 2000), (NOW + 3000, NOW + 4000)
CAROL = make_peer(0, windows=[list(FIRST), list(SECOND)])
PEERS = [CAROL, *(make_peer(n) for n in range(1, 4))]
REST = {peer["public_key"] for peer in PEERS[1:]}
ALL = REST | {CAROL["public_key"]}
BEFORE, INSIDE, BETWEEN, AGAIN, OVER = (NOW + 500 + 1000 * n for n in range(5))


def tick(machine: Machine) -> None:
    assert json.loads(machine.run("muster-node", "tick", "wg0")) == {"ok": True}


def at(machine: Machine, session: Session, moment: int) -> set[str]:
    """The keys that run a tick after it is this late, by the Console's word."""
    assert session.ask("time", now=moment)["ok"]
    tick(machine)
    return set(machine.peers())


def journal(session: Session) -> list[tuple[str, str | None]]:
    return [(row["what"], row["public_key"]) for row in session.ask("journal", after=0)["entries"]]


def drift(session: Session) -> Any:
    return session.ask("observe", full=True)["drift"]


def test_a_peer_runs_inside_its_windows_alone_and_the_journal_says_nothing_of_it(
    machine: Machine, session: Session
) -> None:
    """With no Console: the last window over it stays shut; state and digest hold it all along."""
    expected = [(BEFORE, REST), (INSIDE, ALL), (BETWEEN, REST), (AGAIN, ALL), (OVER, REST), (OVER + YEAR, REST)]
    for moment, keys in expected:
        assert at(machine, session, moment) == keys
        assert (drift(session), journal(session)) == ([], [])
    assert session.ask("hello")["state"]["digest"] == digest_of(PEERS)


def test_a_boot_lets_in_who_is_inside_a_window_and_nobody_else(machine: Machine, session: Session) -> None:
    for moment, keys in [(INSIDE, ALL), (BETWEEN, REST), (OVER, REST)]:
        session.ask("time", now=moment)
        machine.sh("ip link del wg0; rm -rf /run/muster; wg-quick up wg0")
        machine.run("muster-node", "load", "wg0")
        assert set(machine.peers()) == keys
        tick(machine)
        assert (set(machine.peers()), journal(session)) == (keys, [])


def test_a_boundary_is_no_drift_before_the_tick_that_it_waits_for(machine: Machine, session: Session) -> None:
    """Else every look within these 5 s would tell of a server that is not as it should be."""
    assert at(machine, session, INSIDE) == ALL
    session.ask("time", now=FIRST[1] + 2)
    assert (set(machine.peers()), drift(session)) == (ALL, [])
    session.ask("time", now=FIRST[1] + 60)
    assert [(row["what"], row["public_key"]) for row in drift(session)] == [("unknown", make_key(0))]
    assert at(machine, session, BETWEEN) == REST
    session.ask("time", now=SECOND[0] + 2)
    assert (set(machine.peers()), drift(session)) == (REST, [])
    session.ask("time", now=SECOND[0] + 60)
    assert [(row["what"], row["public_key"]) for row in drift(session)] == [("missing", make_key(0))]


def test_who_is_taken_out_by_hand_inside_a_window_stays_out_in_the_next(machine: Machine, session: Session) -> None:
    """E10."""
    assert at(machine, session, INSIDE) == ALL
    machine.run("wg", "set", "wg0", "peer", make_key(0), "remove")
    assert at(machine, session, INSIDE + 5) == REST
    assert journal(session) == [("suspended", make_key(0))]
    assert at(machine, session, BETWEEN) == at(machine, session, AGAIN) == REST
    assert journal(session) == [("suspended", make_key(0))]


def test_nor_does_the_end_of_the_window_hide_that_somebody_took_it_out(machine: Machine, session: Session) -> None:
    """E10: in the last seconds before it, with no tick in between."""
    assert at(machine, session, INSIDE) == ALL
    machine.run("wg", "set", "wg0", "peer", make_key(0), "remove")
    assert at(machine, session, BETWEEN) == REST
    assert journal(session) == [("suspended", make_key(0))]
    assert at(machine, session, AGAIN) == REST


def test_who_is_put_in_by_hand_outside_its_windows_goes_and_is_written_down(machine: Machine, session: Session) -> None:
    """D11."""
    assert at(machine, session, BETWEEN) == REST
    machine.run("wg", "set", "wg0", "peer", make_key(0))
    assert at(machine, session, BETWEEN + 5) == REST
    assert journal(session) == [("unknown", make_key(0))]
    assert at(machine, session, AGAIN) == ALL


def test_an_end_inside_a_window_is_an_end(machine: Machine, session: Session) -> None:
    """D10: "expired" is said of that alone."""
    ending = CAROL | {"expires_at": INSIDE + 100}
    session.ask("apply", **make_delta(2, PEERS, [ending, *PEERS[1:]]))
    assert at(machine, session, INSIDE) == ALL
    assert at(machine, session, INSIDE + 200) == REST
    assert journal(session) == [("expired", make_key(0))]
    assert at(machine, session, AGAIN) == REST


def test_forty_that_come_and_go_together_are_nobodys_act(machine: Machine, session: Session) -> None:
    """More than a push may take without approval; and all of the server's peers."""
    many = [make_peer(n, windows=CAROL["windows"]) for n in range(40)]
    session.ask("apply", **make_whole(2, many, decided=sorted(REST)))
    keys = {peer["public_key"] for peer in many}
    for moment, running in [(BEFORE, set()), (INSIDE, keys), (BETWEEN, set()), (AGAIN, keys)]:
        assert at(machine, session, moment) == running
        assert journal(session) == []
    for key in keys:
        machine.run("wg", "set", "wg0", "peer", key, "remove")
    tick(machine)
    assert (set(machine.peers()), journal(session)) == (keys, [("restored", None)])


def test_the_brake_counts_those_whom_a_push_shuts_by_windows(machine: Machine, session: Session) -> None:
    """As those whose end it sets in the past; not those who were shut before, and not an opening."""
    fifty = [make_peer(n) for n in range(50)]
    assert session.ask("apply", **make_whole(2, fifty))["ok"]
    shut = [peer | {"windows": [[1, 2]]} for peer in fifty[:12]]
    error = session.ask("apply", **make_whole(3, [*shut, *fifty[12:]]))["error"]
    assert (error["code"], error["removals"], len(machine.peers())) == ("brake", 12, 50)
    assert session.ask("apply", **make_whole(3, [*shut, *fifty[12:]], approved=True))["changed"]["removed"] == 12
    never = [peer | {"windows": []} for peer in shut]
    assert session.ask("apply", **make_whole(4, [*never, *fifty[12:]]))["ok"]
    reply = session.ask("apply", **make_whole(5, fifty))
    assert (reply["changed"]["added"], reply["drift"], journal(session)) == (12, [], [])


@pytest.mark.parametrize("act", ["suspend", "revoke"])
def test_no_window_opens_for_a_suspended_or_revoked_peer(machine: Machine, session: Session, act: str) -> None:
    """D1, D14."""
    assert at(machine, session, BEFORE) == REST
    if act == "suspend":
        machine.run("muster-node", "suspend", "wg0", make_key(0), "--reason", "lost")
    else:
        assert session.ask("revoke", keys=[dead(0)])["receipts"][0]["kernel"]
    kept = journal(session)
    for moment in (INSIDE, BETWEEN, AGAIN):
        assert at(machine, session, moment) == REST
    assert journal(session) == kept


def test_a_new_key_with_windows_comes_without_addresses_while_the_old_one_is_there(
    machine: Machine, session: Session
) -> None:
    new = make_peer(9, allowed_ips=CAROL["allowed_ips"], windows=CAROL["windows"], replaces=make_key(0))
    session.ask("apply", **make_delta(2, PEERS, [*PEERS, new]))
    assert at(machine, session, BEFORE) == REST
    assert at(machine, session, INSIDE) == ALL | {make_key(9)}
    assert (machine.peers()[make_key(0)], machine.peers()[make_key(9)]) == (set(CAROL["allowed_ips"]), set())
    assert at(machine, session, BETWEEN) == REST
    session.ask("revoke", keys=[dead(0)])
    assert at(machine, session, BETWEEN + 5) == REST
    assert at(machine, session, AGAIN) == REST | {make_key(9)}
    assert machine.peers()[make_key(9)] == set(CAROL["allowed_ips"])


BAD: list[object] = [
    None,
    {},
    "always",
    [1, 2],
    [[1]],
    [[1, 2, 3]],
    [[2, 1]],
    [[1, 1]],
    [[3, 4], [1, 2]],
    [[1, 3], [2, 4]],
    [[1, 2], [2, 3]],
    [[-1, 2]],
    [[1, 2**53 + 1]],
    [[1, None]],
    [[True, 2]],
    [["1", 2]],
    [[2 * n, 2 * n + 1] for n in range(65)],
]


def test_bad_windows_are_refused_by_name_and_the_neighbour_is_served(machine: Machine, session: Session) -> None:
    """A12."""
    before = session.ask("hello")["state"]
    for windows in BAD:
        bad = [CAROL | {"windows": windows}, *PEERS[1:]]
        error = session.ask("apply", **make_whole(2, bad))["error"]
        assert (error["code"], error["message"].split(":")[0]) == ("bad_request", "windows"), windows
    assert session.ask("hello")["state"] | {"now": 0} == before | {"now": 0}
    good = [CAROL | {"windows": [[2 * n, 2 * n + 1] for n in range(64)]}, *PEERS[1:]]
    assert session.ask("apply", **make_delta(2, PEERS, good))["result"] == "applied"
    assert set(machine.peers()) == REST


def test_the_daemon_wakes_for_each_boundary(machine: Machine, session: Session) -> None:
    """Also when it has nothing else to do: within a tick of it."""
    start = int(time.time())
    opens, shuts = start + 6, start + 11
    session.ask("apply", **make_delta(2, PEERS, [CAROL | {"windows": [[opens, shuts]]}, *PEERS[1:]]))
    daemon = machine.popen("muster-node", "daemon")
    try:
        came = moment_of(lambda: make_key(0) in machine.peers())
        went = moment_of(lambda: make_key(0) not in machine.peers())
    finally:
        machine.sh("pkill -f '[ ]daemon$'")
        daemon.communicate()
    assert 0 <= came - opens < 7
    assert 0 <= went - shuts < 7
    assert (set(machine.peers()), journal(session)) == (REST, [])


def moment_of(condition: Callable[[], bool]) -> float:
    wait_for(condition, 30, "the boundary of a window")
    return time.time()


@pytest.fixture
def clocks(machine: Machine) -> Iterator[Clocks]:
    machine.make_interface()
    found = Clocks(machine)
    try:
        yield found
    finally:
        found.close()


def test_no_step_back_opens_a_window_again(clocks: Clocks) -> None:
    """F12: by a year, and over a boot with the clock at 1970; time goes on to the next window all the same."""
    now = clocks.now()
    carol: Json = CAROL | {"windows": [[now - 10, now + 100], [now + 2000, now + 3000]]}
    assert clocks.machine.session("wg0").ask("apply", **make_whole(1, [carol, *PEERS[1:]]))["ok"]
    assert clocks.turn() == ALL
    clocks.go_by(110)
    assert clocks.turn() == REST
    clocks.step(-YEAR)
    assert clocks.turn() == REST
    clocks.reboot(step=-clocks.now())
    assert clocks.turn() == REST
    clocks.go_by(2000)
    assert clocks.turn() == ALL
