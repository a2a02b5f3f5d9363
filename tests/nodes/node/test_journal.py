"""Break-glass by command line, and the journal that tells the Console of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.nodes.node.build import make_key, make_peer, make_whole, text_of
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(6)]


def entries(session: Session, after: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.ask("journal", after=after)["entries"]
    return found


def chain_holds(rows: list[dict[str, Any]]) -> bool:
    previous = "0" * 64
    for number, row in enumerate(rows, 1):
        if (row["seq"], row["previous"]) != (number, previous):
            return False
        previous = hashlib.sha256(text_of(row).encode()).hexdigest()
    return True


def test_a_local_revoke_is_a_revoke_and_is_written_down(machine: Machine, session: Session) -> None:
    """D14: the push that still holds the peer is told first, and it stays shut whatever comes."""
    reply = json.loads(machine.run("muster-node", "revoke", "wg0", make_key(1), "--reason", "laptop stolen"))
    assert [row["kernel"] and row["disk"] and row["durable"] for row in reply["receipts"]] == [True]
    assert make_key(1) not in machine.peers()
    [entry] = entries(session)
    assert (entry["what"], entry["public_key"], entry["detail"]) == ("revoked", make_key(1), "laptop stolen")
    assert entry["by"]
    refused = session.ask("apply", **make_whole(2, PEERS))["error"]
    assert (refused["code"], refused["keys"]) == ("conflict", [make_key(1)])
    taken = session.ask("apply", **make_whole(2, PEERS, journal_seen=1))
    assert (taken["result"], taken["withheld"]) == ("applied", [make_key(1)])
    assert make_key(1) not in machine.peers()


def test_a_local_suspend_stands_until_it_is_seen(machine: Machine, session: Session) -> None:
    reply = json.loads(machine.run("muster-node", "suspend", "wg0", make_key(2), "--reason", "odd traffic"))
    assert (reply["suspended"], reply["left"]) == ([make_key(2)], [])
    assert make_key(2) not in machine.peers()
    assert make_key(2) not in machine.sh("cat /var/lib/muster/tombstones 2>/dev/null || true")
    assert session.ask("apply", **make_whole(2, PEERS))["error"]["code"] == "conflict"
    machine.sh("ip link del wg0; rm -rf /run/muster; wg-quick up wg0")
    machine.run("muster-node", "load", "wg0")
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS} - {make_key(2)}
    assert session.ask("apply", **make_whole(2, PEERS, journal_seen=1))["result"] == "applied"
    assert make_key(2) in machine.peers()


def test_entries_are_a_chain_that_begins_where_it_is_asked(machine: Machine, session: Session) -> None:
    for number in range(4):
        machine.run("muster-node", "suspend", "wg0", make_key(number), "--reason", f"number {number}")
    rows = entries(session)
    assert chain_holds(rows)
    assert not chain_holds([*rows[:2], rows[3]])
    assert not chain_holds([rows[0] | {"detail": "another"}, *rows[1:]])
    assert entries(session, after=2) == rows[2:]
    assert session.ask("hello")["state"]["journal"] == 4


def test_a_full_disk_loses_no_entry(machine: Machine, session: Session) -> None:
    """D21, F3."""
    machine.run("muster-node", "suspend", "wg0", make_key(0), "--reason", "before")
    machine.sh(
        "cp -a /var/lib/muster /tmp/kept; mount -t tmpfs -o size=64k tmpfs /var/lib/muster;"
        "cp -a /tmp/kept/. /var/lib/muster; rm -r /tmp/kept;"
        "dd if=/dev/zero of=/var/lib/muster/fill 2>/dev/null || true"
    )
    machine.run("muster-node", "suspend", "wg0", make_key(1), "--reason", "during")
    assert make_key(1) not in machine.peers()
    assert [row["detail"] for row in entries(session)] == ["before", "during"]
    machine.sh("rm /var/lib/muster/fill")
    machine.run("muster-node", "tick", "wg0")
    machine.run("muster-node", "suspend", "wg0", make_key(2), "--reason", "after")
    assert chain_holds(entries(session))
    assert "during" in machine.sh("cat /var/lib/muster/wg0/journal; [ ! -e /run/muster/wg0.journal ]")
    machine.sh("umount /var/lib/muster")


def test_a_torn_line_is_none_and_the_next_entry_stands_by_itself(machine: Machine, session: Session) -> None:
    machine.run("muster-node", "suspend", "wg0", make_key(0), "--reason", "whole")
    machine.sh('printf \'{"seq":2,"at":1\' >> /var/lib/muster/wg0/journal')
    machine.run("muster-node", "suspend", "wg0", make_key(1), "--reason", "next")
    assert chain_holds(entries(session))
    assert machine.sh("stat -c '%a %U' /var/lib/muster/wg0/journal") == "600 root\n"


def test_a_bad_key_is_refused_and_nothing_is_written(machine: Machine, session: Session) -> None:
    for command in ("revoke", "suspend"):
        reply = json.loads(machine.run("muster-node", command, "wg0", "x", "--reason", "odd", code=1))
        assert reply["error"]["code"] == "bad_request"
    assert entries(session) == []


def test_a_session_that_may_only_look_reads_it_and_sets_no_time(machine: Machine, session: Session) -> None:
    machine.run("muster-node", "suspend", "wg0", make_key(0), "--reason", "seen")
    looking = machine.session("--observe", "wg0")
    assert [row["detail"] for row in looking.ask("journal", after=0)["entries"]] == ["seen"]
    assert looking.ask("time", now=1)["error"]["code"] == "observe_only"
