"""A disk that fails or is full: packets stop all the same, and nothing is called durable that is not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import Json, dead, digest_of, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(6)]
LIB = "/var/lib/muster"
TOMBSTONES = [f"{LIB}/tombstones", f"{LIB}/tombstones.copy"]
STATE = [f"{LIB}/wg0/state", f"{LIB}/wg0/state.new", f"{LIB}/wg0/state.last"]
# A file system in a file of which only the blocks in use have memory behind them: no other can be written.
THIN = """
mkdir -p /run/thin /var/lib/muster; mount -t tmpfs -o size=12m tmpfs /run/thin
truncate -s 11M /run/thin/disk; mkfs.ext4 -q -b 4096 -m 0 /run/thin/disk; fallocate -l 11M /run/thin/disk
mount -o loop /run/thin/disk /var/lib/muster; rmdir /var/lib/muster/lost+found; chmod 700 /var/lib/muster
"""
BREAK = """
sync; dumpe2fs /run/thin/disk 2>/dev/null | sed -n 's/^ *Free blocks: //p' | tr -d ' ' | tr , '\\n' |
while IFS=- read first last; do
    test -z "$first" || fallocate -p -o $((first * 4096)) -l $(((${last:-$first} - first + 1) * 4096)) /run/thin/disk
done
dd if=/dev/zero of=/run/thin/fill bs=4k 2>/dev/null || true
"""
# What is on the disk itself is what the next boot finds.
CUT = "cp /run/thin/disk /run/image; umount -l /var/lib/muster; mount -o loop /run/image /var/lib/muster"


def proof(reply: Json) -> tuple[bool, bool, bool]:
    [row] = reply["receipts"]
    return row["durable"], row["kernel"], row["disk"]


def result(reply: Json) -> str:
    return str(reply["result"] if reply["ok"] else reply["error"]["code"])


def held(session: Session) -> tuple[int, str]:
    state = session.ask("hello")["state"]
    return state["generation"], state["digest"]


def local_revoke(machine: Machine, number: int, code: int = 1) -> Json:
    reply: Json = json.loads(machine.run("muster-node", "revoke", "wg0", make_key(number), "--reason", "x", code=code))
    return reply


@pytest.fixture
def thin(machine: Machine) -> Iterator[Session]:
    """A session at an interface whose files are on a disk that can break."""
    machine.sh(THIN)
    machine.make_interface()
    session = machine.session("wg0")
    assert session.ask("apply", **make_whole(1, PEERS))["ok"]
    yield session
    machine.sh("umount -l /var/lib/muster; umount -l /run/thin; rm -rf /run/thin /run/image")


def reboot(machine: Machine) -> None:
    machine.sh("ip link del wg0; rm -rf /run/muster; while [ -e /run/wireguard/wg0.sock ]; do sleep 0.01; done")
    machine.run("wg-quick", "up", "wg0")
    machine.run("muster-node", "load", "wg0")


def test_what_a_failed_write_lost_is_durable_only_once_it_is_on_the_disk(machine: Machine, thin: Session) -> None:
    """D21, F3: real errors of a device; the kernel shows the lost bytes to all who read, and says of the next fsync
    that all is well."""
    machine.sh(BREAK)
    assert proof(thin.ask("revoke", keys=[dead(1)])) == (False, True, False)
    # The same session, another, and a person: none of them may take what can be read for what is there.
    assert proof(thin.ask("revoke", keys=[dead(1)])) == (False, True, False)
    assert proof(machine.session("wg0").ask("revoke", keys=[dead(1)])) == (False, True, False)
    assert proof(local_revoke(machine, 1)) == (False, True, False)
    assert result(thin.ask("apply", **make_whole(2, PEERS[2:], journal_seen=1))) == "disk"
    assert held(thin) == (1, digest_of(PEERS))
    machine.sh("rm /run/thin/fill")
    machine.run("muster-node", "tick", "wg0")
    assert proof(thin.ask("revoke", keys=[dead(1)])) == (True, True, True)
    assert result(thin.ask("apply", **make_whole(2, PEERS[2:], journal_seen=1))) == "applied"
    machine.sh(CUT)
    reboot(machine)
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS[2:]}
    for path in TOMBSTONES:
        assert make_key(1) in machine.sh(f"cat {path}")
    assert make_key(1) in machine.sh(f"cat {LIB}/wg0/journal")


def test_a_power_cut_before_the_disk_answers_loses_what_was_said_not_to_be_durable(
    machine: Machine, thin: Session
) -> None:
    """D21, F3: no proof was given, so the Console asks again; after the boot the same request shuts the peer out."""
    machine.sh(BREAK)
    assert proof(thin.ask("revoke", keys=[dead(1)])) == (False, True, False)
    thin.close()
    machine.sessions.remove(thin)
    machine.sh(CUT)
    reboot(machine)
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS}
    assert proof(machine.session("wg0").ask("revoke", keys=[dead(1)])) == (True, True, True)
    reboot(machine)
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS} - {make_key(1)}


def failing(machine: Machine, paths: list[str], call: str, requests: list[Json]) -> list[Json]:
    """The answers of the real program while each such system call on these files fails with EIO."""
    lines = "".join(json.dumps({"v": 1, "id": number, **body}) + "\n" for number, body in enumerate(requests))
    node = machine.words("muster-node", "session", "wg0")[len(machine.enter) :]
    where = [word for path in paths for word in ("-P", path)]
    inject = ["-e", f"trace={call}", *where, "-e", f"inject={call}:error=EIO"]
    told = machine.run("strace", "-qq", "-o", "/dev/null", *inject, *node, stdin=lines)
    return [json.loads(line) for line in told.splitlines()]


@pytest.mark.parametrize(
    ("paths", "call", "proven", "pushed"),
    [
        *(
            (TOMBSTONES, call, (False, True, True), "disk")
            for call in ("write", "fsync", "openat", "read", "newfstatat")
        ),
        *((TOMBSTONES[1:], call, (True, True, True), "applied") for call in ("write", "openat", "read")),
        *((STATE, call, (True, True, False), "disk") for call in ("write", "fsync", "rename", "openat", "link")),
        ([f"{LIB}/wg0"], "fsync", (True, True, False), "disk"),
        ([f"{LIB}/wg0"], "openat", (True, True, False), "disk"),
        ([f"{LIB}/clock", f"{LIB}/clock.new"], "openat,write,fsync,rename,read", (True, True, True), "applied"),
        (["/run/muster/wg0.seen", "/run/muster/wg0.seen.new"], "openat,write,fsync", (True, True, True), "applied"),
        ([f"{LIB}/wg0/journal"], "openat,read,write,fsync", (True, True, True), "applied"),
    ],
)
def test_an_error_of_the_disk_stops_no_revoke_and_heals_by_itself(
    machine: Machine, session: Session, paths: list[str], call: str, proven: tuple[bool, bool, bool], pushed: str
) -> None:
    """D21, F3: packets stop, the answer says what is not on the disk, a push that cannot be kept is refused."""
    session.ask("revoke", keys=[dead(5)])
    before = held(session)
    revoke: Json = {"op": "revoke", "keys": [dead(1)]}
    push: Json = {"op": "apply", **make_whole(2, [*PEERS[2:5], make_peer(7)], tombstones=[dead(0)])}
    first, again, applied = failing(machine, paths, call, [revoke, revoke, push])
    assert proof(first) == proven
    assert proof(again)[1:] == proven[1:]
    assert result(applied) == pushed
    now = [*PEERS[2:5], make_peer(7)] if pushed == "applied" else PEERS[2:5]
    assert set(machine.peers()) == {peer["public_key"] for peer in now}
    assert held(session)[0] == (2 if pushed == "applied" else before[0])
    machine.run("muster-node", "tick", "wg0")
    for path in TOMBSTONES:
        assert all(make_key(number) in machine.sh(f"cat {path}") for number in (0, 1, 5)), path
    assert proof(session.ask(**revoke)) == (True, True, True)
    assert session.ask(**push)["drift"] == []
    assert set(machine.peers()) == {make_key(number) for number in (2, 3, 4, 7)}


def test_a_disk_that_may_not_be_written_is_told_and_all_is_kept_once_it_may(machine: Machine, session: Session) -> None:
    """D21, F3: remounted read-only, as a failing disk is by its file system."""
    machine.sh(f"cp -a {LIB} /run/kept; mount -t tmpfs tmpfs {LIB}; cp -a /run/kept/. {LIB}; rm -r /run/kept")
    machine.sh(f"mount -o remount,ro {LIB}")
    assert proof(session.ask("revoke", keys=[dead(1)])) == (False, True, False)
    assert result(session.ask("apply", **make_whole(2, PEERS[2:]))) == "disk"
    machine.run("muster-node", "suspend", "wg0", make_key(2), "--reason", "odd traffic")
    assert set(machine.peers()) == {peer["public_key"] for peer in (PEERS[0], *PEERS[3:])}
    assert held(session) == (1, digest_of(PEERS))
    machine.sh(f"mount -o remount,rw {LIB}")
    machine.run("muster-node", "tick", "wg0")
    machine.sh(f"grep -q {make_key(1)} {' '.join(TOMBSTONES)}; grep -q {make_key(2)} {LIB}/wg0/journal")
    assert proof(session.ask("revoke", keys=[dead(1)])) == (True, True, True)
    machine.sh(f"umount {LIB}")


def test_a_full_run_takes_no_unfinished_push_for_a_peer_that_somebody_took_out(
    machine: Machine, session: Session
) -> None:
    """F3: what ran at the last look could not be written down; control: what is taken out by hand later stays out."""
    machine.sh("mount -t tmpfs -o size=8k tmpfs /run/muster")
    session.ask("observe", full=False)
    assert session.ask("apply", **make_whole(2, PEERS, approved=True))["ok"]
    machine.sh("dd if=/dev/zero of=/run/muster/fill 2>/dev/null || true")
    assert session.ask("apply", **make_whole(3, PEERS[1:]))["ok"]
    machine.sh('printf \'#!/bin/sh\\n[ "$1" != addconf ] || exit 1\\nexec /usr/bin/wg "$@"\\n\' > /usr/local/sbin/wg')
    machine.sh("chmod 755 /usr/local/sbin/wg")
    assert result(session.ask("apply", **make_whole(4, PEERS))) == "kernel"
    machine.sh("rm /usr/local/sbin/wg")
    machine.run("muster-node", "tick", "wg0")
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS}
    machine.sh("rm /run/muster/fill")
    machine.run("muster-node", "tick", "wg0")
    machine.run("wg", "set", "wg0", "peer", make_key(3), "remove")
    machine.run("muster-node", "tick", "wg0")
    assert make_key(3) not in machine.peers()
    machine.sh("umount /run/muster")
