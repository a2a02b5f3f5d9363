"""A revoke that meets a push or a boot half-way: the key is never in the kernel once the receipt was given."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.nodes.node.build import Json, dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine

PEERS = [make_peer(n) for n in range(10)]
CLEAN = {"public_key": make_key(5), "durable": True, "kernel": True, "disk": True, "found": []}
BUSY = CLEAN | {"kernel": False, "disk": False, "found": ["kernel:busy", "/var/lib/muster/wg0/state"]}
WRAPPER = """#!/bin/sh
# Stops where it is told to, and notes the peers that the kernel has after each change.
if [ "$1" = "$(cat /run/stop-at 2>/dev/null)" ]; then
    rm /run/stop-at
    echo $PPID > /run/stopped
    until [ -e /run/go ]; do sleep 0.01; done
fi
/usr/bin/wg "$@"
code=$?
case "$1" in set | addconf) /usr/bin/wg show wg0 peers >> /run/seen ;; esac
exit $code
"""


@pytest.fixture
def slow(machine: Machine) -> Iterator[Machine]:
    """A machine that holds four peers, and whose `wg` can be stopped before it does what it was asked for."""
    machine.make_interface()
    machine.session("wg0").ask("apply", **make_whole(1, PEERS[:4]))
    machine.run("sh", "-c", "cat > /usr/local/sbin/wg; chmod 755 /usr/local/sbin/wg", stdin=WRAPPER)
    machine.sh("rm -f /run/stopped /run/go /run/stop-at; mkfifo /run/stopped; : > /run/seen")
    yield machine
    machine.sh("rm /usr/local/sbin/wg")


@contextmanager
def stopped(machine: Machine, place: str, way: str, push: Json) -> Iterator[str]:
    """Takes the push, by a session or by a boot, and stops it before `wg PLACE`; within: its process id."""
    if way == "load":
        machine.session("wg0").ask("apply", **push)
        machine.sh("/usr/bin/wg set wg0 peer " + " remove peer ".join(map(make_key, range(4, 10))) + " remove")
    machine.run("wg", "set", "wg0", "peer", make_key(9999))
    machine.sh(f"echo {place} > /run/stop-at; : > /run/seen")
    process = machine.popen("muster-node", way, "wg0")
    assert process.stdin
    process.stdin.write(json.dumps({"v": 1, "id": 1, "op": "apply", **push}).encode() + b"\n")
    process.stdin.flush()
    try:
        yield machine.run("timeout", "20", "cat", "/run/stopped").strip()
    finally:
        machine.sh("touch /run/go")
        process.communicate(timeout=20)


@contextmanager
def watched(machine: Machine, key: str) -> Iterator[list[str]]:
    """Reads the kernel's peers as fast as it can within; afterwards the sightings of the key are in the list."""
    loop = 'echo on; until [ -e /run/enough ]; do /usr/bin/wg show wg0 peers | grep -F "$0"; done; rm /run/enough'
    watcher = subprocess.Popen(machine.words("sh", "-c", loop, key), stdout=subprocess.PIPE, text=True)
    assert watcher.stdout and watcher.stdout.readline() == "on\n"
    sightings: list[str] = []
    try:
        yield sightings
    finally:
        machine.sh("touch /run/enough")
        sightings.extend(watcher.communicate(timeout=10)[0].splitlines())


def seen(machine: Machine) -> set[str]:
    """Every key that the kernel had after some change since this was asked last."""
    return set(machine.sh("cat /run/seen; : > /run/seen").split())


@pytest.mark.parametrize("way", ["session", "load"])
def test_what_was_overtaken_by_a_revoke_does_not_bring_the_key_back(slow: Machine, way: str) -> None:
    """D1, D18: stopped after it judged and before it adds; the revoke waits for nothing."""
    lane = slow.session("wg0")
    with ExitStack() as rest, stopped(slow, "set", way, make_whole(2, PEERS)):
        assert lane.ask("revoke", keys=[dead(5)])["receipts"] == [CLEAN]
        seen(slow)
        sightings = rest.enter_context(watched(slow, make_key(5)))
    assert (sightings, make_key(5) in seen(slow)) == ([], False)
    assert set(slow.peers()) == {make_key(n) for n in (0, 1, 2, 3, 4, 6, 7, 8, 9)}


@pytest.mark.parametrize("way", ["session", "load"])
def test_no_receipt_is_given_while_peers_go_into_the_kernel(slow: Machine, way: str) -> None:
    """D1: stopped between its look at the tombstones and its adding; the key is out again when it ends."""
    lane = slow.session("wg0")
    with stopped(slow, "addconf", way, make_whole(2, PEERS)):
        assert lane.ask("revoke", keys=[dead(5)])["receipts"] == [BUSY]
    assert set(slow.peers()) == {make_key(n) for n in (0, 1, 2, 3, 4, 6, 7, 8, 9)}
    with watched(slow, make_key(5)) as sightings:
        assert lane.ask("revoke", keys=[dead(5)])["receipts"] == [CLEAN]
    assert sightings == []


def test_a_push_that_was_killed_holds_receipts_back_until_its_last_program_ended(slow: Machine) -> None:
    """E1: the program goes on without us, and what it adds comes after the kill."""
    lane = slow.session("wg0")
    with stopped(slow, "addconf", "session", make_whole(2, PEERS)) as process:
        slow.run("kill", "-9", process)
        assert lane.ask("revoke", keys=[dead(5)])["receipts"] == [BUSY]
    slow.run("flock", "-w", "10", "/run/muster/tombstones.lock", "true")
    assert lane.ask("revoke", keys=[dead(5)])["receipts"] == [CLEAN]
    seen(slow)
    assert lane.ask("revoke", keys=[dead(6)])["ok"] is True
    assert make_key(5) not in seen(slow)


def test_revokes_get_through_between_the_batches_of_a_big_push(slow: Machine) -> None:
    lane = slow.session("wg0")
    with stopped(slow, "set", "session", make_whole(2, [make_peer(n) for n in range(2000)])):
        slow.sh("touch /run/go")
        replies = [lane.ask("revoke", keys=[dead(n)]) for n in range(1000, 1010)]
    assert [reply["receipts"][0] for reply in replies] == [
        CLEAN | {"public_key": make_key(n)} for n in range(1000, 1010)
    ]
    assert set(slow.peers()) == {make_key(n) for n in range(2000) if n not in range(1000, 1010)}
