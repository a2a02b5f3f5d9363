"""A dry run judges a push as an apply does, says what would change, and changes nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.nodes.node.build import Json, dead, digest_of, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(20)]
FILES = "cd /; find var/lib/muster run/muster -type f | sort | xargs sha256sum; wg show wg0 dump | sort"


@pytest.fixture
def session(machine: Machine) -> Session:
    machine.make_interface()
    session = machine.session("wg0")
    session.ask("apply", **make_whole(3, PEERS))
    return session


def keys(*numbers: int) -> list[str]:
    return sorted(map(make_key, numbers))


def rehearsed(machine: Machine, session: Session, push: Json) -> Json:
    """The answer to the push as a dry run; no file and no peer is other than before."""
    before = machine.sh(FILES)
    reply = session.ask("apply", **push, dry_run=True)
    assert machine.sh(FILES) == before
    return reply


@pytest.mark.parametrize("size", ["whole", "delta"])
def test_it_says_what_would_be_added_removed_and_updated(machine: Machine, session: Session, size: str) -> None:
    after = [PEERS[0] | {"allowed_ips": ["10.1.0.99/32"]}, *PEERS[2:], make_peer(30)]
    push = make_whole(4, after) if size == "whole" else make_delta(4, PEERS, after)
    reply = rehearsed(machine, session, push)
    assert reply["would"] == {"add": keys(30), "remove": keys(1), "update": keys(0)}
    assert (reply["result"], reply["removals"]) == ("planned", 1)
    assert (reply["state"]["generation"], reply["state"]["digest"]) == (3, digest_of(PEERS))
    changed = session.ask("apply", **push)["changed"]
    assert changed == {"added": 1, "removed": 1, "updated": 1}


def test_it_counts_what_the_brake_would_count_and_never_brakes(machine: Machine, session: Session) -> None:
    """2.9: decided peers are not counted; a peer made to expire is."""
    ended = PEERS[12] | {"expires_at": int(time.time()) - 10}
    reply = rehearsed(machine, session, make_whole(4, [ended, *PEERS[13:]], decided=keys(0)))
    assert (reply["would"]["remove"], reply["removals"]) == (keys(*range(13)), 12)


def test_it_plans_against_the_kernel_as_it_is(machine: Machine, session: Session) -> None:
    machine.run("wg", "set", "wg0", "peer", make_key(0), "remove", "peer", make_key(70))
    machine.run("wg", "set", "wg0", "peer", make_key(1), "preshared-key", "/dev/null")
    reply = rehearsed(machine, session, make_whole(3, PEERS))
    assert reply["would"] == {"add": keys(0), "remove": keys(70), "update": keys(1)}
    assert reply["removals"] == 0


def test_a_tombstoned_key_would_not_be_added(machine: Machine, session: Session) -> None:
    session.ask("revoke", keys=[dead(1)])
    assert rehearsed(machine, session, make_whole(4, PEERS))["would"] == {"add": [], "remove": [], "update": []}


def test_without_an_interface_all_would_be_added(machine: Machine, session: Session) -> None:
    machine.sh("ip link del wg0")
    reply = session.ask("apply", **make_whole(4, PEERS), dry_run=True)
    assert reply["would"] == {"add": keys(*range(20)), "remove": [], "update": []}


def test_it_may_come_with_the_pair_that_is_held_but_with_no_lower(machine: Machine, session: Session) -> None:
    assert rehearsed(machine, session, make_whole(3, PEERS[:-1]))["would"]["remove"] == keys(19)
    reply = rehearsed(machine, session, make_whole(2, PEERS))
    assert (reply["error"]["code"], reply["error"]["state"]["generation"]) == ("stale", 3)


@pytest.mark.parametrize(
    ("code", "push"),
    [
        ("digest", make_whole(4, PEERS, digest="0" * 64)),
        ("base", make_delta(4, PEERS[:3], PEERS)),
        ("bad_request", make_whole(4, PEERS, tombstones=[dead(1)])),
        ("bad_request", make_whole(4, PEERS, surprise=1)),
    ],
)
def test_what_an_apply_would_refuse_it_refuses(machine: Machine, session: Session, code: str, push: Any) -> None:
    assert rehearsed(machine, session, push)["error"]["code"] == code


def test_dry_run_is_true_or_false(session: Session) -> None:
    assert session.ask("apply", **make_whole(4, PEERS), dry_run=1)["error"]["code"] == "bad_request"
    assert session.ask("apply", **make_whole(4, PEERS), dry_run=False)["result"] == "applied"
