"""What the node does by itself: ends what is over, brings back what was lost, leaves out what was taken out by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.nodes.node.build import dead, digest_of, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(8)]
FIRST = [peer["public_key"] for peer in PEERS]


def tick(machine: Machine) -> None:
    assert json.loads(machine.run("muster-node", "tick", "wg0")) == {"ok": True}


def journal(session: Session, after: int = 0) -> list[tuple[str, str | None]]:
    entries = session.ask("journal", after=after)["entries"]
    return [(entry["what"], entry["public_key"]) for entry in entries]


def code(reply: dict[str, Any]) -> str:
    return str(reply["error"]["code"])


def test_a_tick_changes_nothing_where_all_is_right(machine: Machine, session: Session) -> None:
    before = sorted(machine.run("wg", "show", "wg0", "dump").splitlines())
    tick(machine)
    assert sorted(machine.run("wg", "show", "wg0", "dump").splitlines()) == before
    assert journal(session) == []


def test_a_peer_that_expires_goes_with_the_next_tick(machine: Machine, session: Session) -> None:
    """D10: by the node alone; restarting it revives nobody, and a renewal brings the peer back."""
    soon = int(time.time()) + 2
    ending = [PEERS[0] | {"expires_at": soon}, *PEERS[1:]]
    session.ask("apply", **make_whole(2, ending))
    tick(machine)
    assert make_key(0) in machine.peers()
    machine.sh(f"while [ $(date +%s) -le {soon} ]; do sleep 0.1; done")
    tick(machine)
    tick(machine)
    assert set(machine.peers()) == set(FIRST[1:])
    assert journal(session) == [("expired", make_key(0))]
    session.ask("apply", **make_whole(3, PEERS, journal_seen=1))
    tick(machine)
    assert set(machine.peers()) == set(FIRST)


def test_what_was_put_in_by_hand_goes_and_a_tombstoned_key_most_of_all(machine: Machine, session: Session) -> None:
    """D11, F16."""
    session.ask("revoke", keys=[dead(1)])
    machine.run("wg", "set", "wg0", "peer", make_key(1), "peer", make_key(90))
    tick(machine)
    assert set(machine.peers()) == set(FIRST) - {make_key(1)}
    assert journal(session) == [("tombstoned", make_key(1)), ("unknown", make_key(90))]


def test_a_peer_taken_out_by_hand_stays_out_until_the_console_has_read_of_it(
    machine: Machine, session: Session
) -> None:
    """E10: with no Console for as long as it takes, and over a push that knows nothing of it."""
    tick(machine)
    machine.run("wg", "set", "wg0", "peer", make_key(3), "remove")
    tick(machine)
    tick(machine)
    assert journal(session) == [("suspended", make_key(3))]
    assert make_key(3) not in machine.peers()
    more = [*PEERS, make_peer(8)]
    reply = session.ask("apply", **make_delta(2, PEERS, more))
    assert (code(reply), reply["error"]["keys"], reply["error"]["state"]["journal"]) == ("conflict", [make_key(3)], 1)
    without = [peer for peer in more if peer["public_key"] != make_key(3)]
    assert session.ask("apply", **make_whole(2, without))["result"] == "applied"
    assert session.ask("apply", **make_whole(3, more, journal_seen=1))["result"] == "applied"
    assert make_key(3) in machine.peers()
    tick(machine)
    assert make_key(3) in machine.peers()


def test_a_push_that_comes_before_the_tick_notices_it_too(machine: Machine, session: Session) -> None:
    """E10."""
    machine.run("wg", "set", "wg0", "peer", make_key(3), "remove")
    assert code(session.ask("apply", **make_whole(1, PEERS))) == "conflict"
    assert set(machine.peers()) == set(FIRST) - {make_key(3)}


@pytest.mark.parametrize("wiped", ["all", "most"])
def test_what_no_person_takes_out_one_by_one_comes_back(machine: Machine, session: Session, wiped: str) -> None:
    """E10: all peers gone, or more at once than a push may take."""
    tick(machine)
    for key in FIRST if wiped == "all" else FIRST[:6]:
        machine.run("wg", "set", "wg0", "peer", key, "remove")
    tick(machine)
    assert set(machine.peers()) == set(FIRST)
    assert journal(session) == [("restored", None)]


def test_a_new_interface_gets_its_peers(machine: Machine, session: Session) -> None:
    """F15."""
    session.ask("revoke", keys=[dead(1)])
    tick(machine)
    machine.sh("ip link del wg0; wg-quick up wg0")
    machine.run("wg", "set", "wg0", "peer", make_key(1))
    tick(machine)
    assert set(machine.peers()) == set(FIRST) - {make_key(1)}
    assert journal(session) == [("restored", None)]


def test_a_missing_interface_is_told(machine: Machine, session: Session) -> None:
    """F15: never "OK" where nothing is."""
    machine.sh("ip link del wg0")
    reply = json.loads(machine.run("muster-node", "tick", "wg0", code=1))
    assert "the interface is down" in reply["error"]["message"]


def test_before_the_first_push_only_tombstones_are_enforced(machine: Machine) -> None:
    """Such a server may be one that the Console only looks at."""
    machine.make_interface()
    session = machine.session("wg0")
    machine.run("wg", "set", "wg0", "peer", make_key(1), "peer", make_key(2))
    session.ask("revoke", keys=[dead(9)])
    machine.sh("mkdir -p /var/lib/muster/wg0")
    machine.run("wg", "set", "wg0", "peer", make_key(9))
    tick(machine)
    assert set(machine.peers()) == {make_key(1), make_key(2)}


def test_a_guard_that_a_boot_left_is_opened_by_the_tick(machine: Machine, session: Session) -> None:
    """As where nft failed once, or a revoke came in between: nobody else would open it."""
    tick(machine)
    machine.run("muster-node", "close", "wg0")
    assert "closed" in str(session.ask("observe", full=True)["drift"])
    tick(machine)
    assert session.ask("observe", full=True)["drift"] == []


def test_pushes_to_an_interface_that_went_down_and_away_suspend_nobody(machine: Machine, session: Session) -> None:
    """E10: nobody took its peers out by hand."""
    machine.sh("ip link set wg0 down")
    few = PEERS[:4]
    session.ask("apply", **make_delta(2, PEERS, few))
    machine.sh("ip link del wg0")
    for generation in (3, 4):
        session.ask("apply", **make_whole(generation, [*few, make_peer(9)]))
    assert journal(session) == []
    machine.run("wg-quick", "up", "wg0")
    machine.run("muster-node", "load", "wg0")
    assert len(machine.peers()) == 5


def test_a_slip_of_the_finger_at_the_machine_is_refused_and_does_nothing(machine: Machine, session: Session) -> None:
    """Else somebody would think that a peer is shut out."""
    for words in (
        ["suspend", "wg9", make_key(1), "--reason", "lost"],
        ["revoke", "wg9", make_key(1), "--reason", "lost"],
        ["observe", "wg9"],
        ["suspend", "wg0", make_key(90), "--reason", "lost"],
        ["suspend", "wg0", make_key(1), "--reason", " "],
        ["revoke", "wg0", make_key(1), "--reason", ""],
    ):
        reply = json.loads(machine.run("muster-node", *words, code=1))
        assert reply["error"]["code"] == "bad_request"
    assert (journal(session), session.ask("hello")["state"]["tombstones"]) == ([], 0)
    machine.sh("test ! -e /var/lib/muster/wg9")
    machine.run("muster-node", "suspend", "wg0", make_key(1), "--reason", "lost")
    assert make_key(1) not in machine.peers()


def test_a_tick_waits_for_no_apply(machine: Machine, session: Session) -> None:
    holder = machine.popen("flock", "/run/muster/wg0.lock", "sh", "-c", "echo held; cat")
    assert holder.stdout and holder.stdin and holder.stdout.readline() == b"held\n"
    machine.run("wg", "set", "wg0", "peer", make_key(90))
    tick(machine)
    assert make_key(90) in machine.peers()
    holder.stdin.close()
    holder.wait(5)
    holder.stdout.close()
    tick(machine)
    assert make_key(90) not in machine.peers()


def test_the_daemon_ticks_until_it_is_ended(machine: Machine, session: Session) -> None:
    daemon = machine.popen("muster-node", "daemon")
    try:
        machine.run("wg", "set", "wg0", "peer", make_key(90))
        machine.sh(f"timeout 30 sh -c 'while wg show wg0 peers | grep -q {make_key(90)}; do sleep 0.1; done'")
        assert daemon.poll() is None
    finally:
        machine.sh("pkill -f '[ ]daemon$'")
        daemon.communicate()
    assert digest_of(PEERS) == session.ask("hello")["state"]["digest"]
