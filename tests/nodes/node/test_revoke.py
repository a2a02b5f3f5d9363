"""A revoke gets through, whatever else is wrong, and its receipt is what was read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.nodes.node.build import dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(10)]
CLEAN = {"durable": True, "kernel": True, "disk": True, "found": []}
HELD_UP = {
    "durable": True,
    "kernel": False,
    "disk": False,
    "found": ["kernel:busy", "/var/lib/muster/wg0/state"],
}


def test_exactly_the_revoked_peer_is_gone(machine: Machine, session: Session) -> None:
    """D16: one peer removed, all else as it was."""
    before = machine.run("wg", "show", "wg0", "dump").splitlines()
    reply = session.ask("revoke", keys=[dead(4)])
    assert reply["receipts"] == [{"public_key": make_key(4), **CLEAN}]
    assert (reply["state"]["peers"], reply["state"]["tombstones"]) == (9, 1)
    after = machine.run("wg", "show", "wg0", "dump").splitlines()
    assert sorted(after) == sorted(row for row in before if make_key(4) not in row)


def test_many_keys_go_in_one_call_known_or_not(machine: Machine, session: Session) -> None:
    reply = session.ask("revoke", keys=[dead(n) for n in range(5, 1500)])
    assert {row["public_key"] for row in reply["receipts"]} == {make_key(n) for n in range(5, 1500)}
    assert [row for row in reply["receipts"] if {**row, **CLEAN} != row] == []
    assert set(machine.peers()) == {make_key(n) for n in range(5)}


def test_without_interface_and_state_it_is_durable_all_the_same(machine: Machine) -> None:
    assert machine.session("wg0").ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN}]
    assert make_key(1) in machine.sh("cat /var/lib/muster/tombstones")
    assert machine.sh("stat -c '%a %U' /var/lib/muster/tombstones /var/lib/muster") == "600 root\n700 root\n"


def test_on_a_full_disk_packets_stop_and_the_receipt_says_so(machine: Machine, session: Session) -> None:
    """D21: durable by itself once there is space."""
    machine.sh("mount -t tmpfs -o size=8k tmpfs /var/lib/muster; dd if=/dev/zero of=/var/lib/muster/fill || true")
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN, "durable": False}]
    assert make_key(1) not in machine.peers()
    other = machine.session("wg0")
    assert other.ask("hello")["state"]["tombstones"] == 1
    machine.sh("rm /var/lib/muster/fill")
    other.ask("observe", full=False)
    assert make_key(1) in machine.sh("cat /var/lib/muster/tombstones")
    machine.sh("umount /var/lib/muster")


def test_it_does_not_wait_for_an_apply(machine: Machine, session: Session) -> None:
    """2.1: the lock of apply is held by somebody else for good."""
    holder = machine.popen("flock", "/run/muster/wg0.lock", "sh", "-c", "echo held; cat")
    assert holder.stdout and holder.stdin and holder.stdout.readline() == b"held\n"
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN}]
    holder.stdin.close()
    holder.wait(5)
    holder.stdout.close()


def test_when_the_gate_is_held_packets_stop_and_no_receipt_is_given(machine: Machine, session: Session) -> None:
    holder = machine.popen("flock", "/run/muster/tombstones.lock", "sh", "-c", "echo held; cat")
    assert holder.stdout and holder.stdin and holder.stdout.readline() == b"held\n"
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **HELD_UP}]
    assert make_key(1) not in machine.peers()
    holder.stdin.close()
    holder.wait(5)
    holder.stdout.close()


@pytest.mark.parametrize(
    ("place", "script"),
    [
        ("/etc/wireguard/wg0.conf", "printf '[Peer]\\nPublicKey = KEY\\n' >> /etc/wireguard/wg0.conf"),
        ("/etc/wireguard/old.conf", "printf '[Peer]\\nPublicKey=KEY\\n' > /etc/wireguard/old.conf"),
        (
            "/usr/local/bin/muster-hook",
            "echo 'wg set wg0 peer KEY' > /usr/local/bin/muster-hook;"
            "sed -i '1a PostUp = sh /usr/local/bin/muster-hook %i' /etc/wireguard/wg0.conf",
        ),
        (
            "/etc/systemd/system/second-muster.service",
            "echo 'ExecStart=wg set wg0 peer KEY' > /etc/systemd/system/second-muster.service",
        ),
        (
            "/usr/local/bin/muster-unit",
            "echo 'wg set wg0 peer KEY' > /usr/local/bin/muster-unit;"
            "echo 'ExecStart=/usr/local/bin/muster-unit' > /etc/systemd/system/third-muster.service",
        ),
    ],
)
def test_no_receipt_while_the_boot_path_holds_the_key(
    machine: Machine, session: Session, place: str, script: str
) -> None:
    """2.5: put back into wg0.conf, another conf, a hook, a second unit; control: a clean neighbour."""
    machine.sh(script.replace("KEY", make_key(1)))
    reply = session.ask("revoke", keys=[dead(1), dead(2)])
    assert reply["receipts"] == [
        {"public_key": make_key(1), **CLEAN, "disk": False, "found": [place]},
        {"public_key": make_key(2), **CLEAN},
    ]
    machine.sh(f"rm -f {place} /etc/systemd/system/*muster*")
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN}]


def test_no_receipt_while_a_file_of_the_boot_path_cannot_be_read(machine: Machine, session: Session) -> None:
    """2.5: a file too long to be searched may hold the key; control: one just short enough is searched."""
    place = "/etc/wireguard/long.conf"
    machine.sh(f"truncate -s 16M {place}")
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN}]
    machine.sh(f"echo PublicKey = {make_key(1)} >> {place}")
    held = {"public_key": make_key(1), **CLEAN, "disk": False, "found": ["unread:" + place]}
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [held]
    machine.sh(f"rm {place}")
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN}]


def test_a_key_on_another_interface_of_the_machine_goes_there_too(machine: Machine, session: Session) -> None:
    machine.sh("ip link add wg9 type wireguard 2>/dev/null || wireguard-go wg9 2>/dev/null")
    machine.run("wg", "set", "wg9", "peer", make_key(1), "peer", make_key(2))
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [{"public_key": make_key(1), **CLEAN}]
    assert set(machine.peers("wg9")) == {make_key(2)}


@pytest.fixture
def wrapped(machine: Machine, session: Session) -> Iterator[Callable[[str], None]]:
    """Puts a `wg` before the real one that begins with the given lines."""

    def wrap(lines: str) -> None:
        text = f'#!/bin/sh\n{lines}\nexec /usr/bin/wg "$@"\n'
        machine.run("sh", "-c", "cat > /usr/local/sbin/wg; chmod 755 /usr/local/sbin/wg", stdin=text)

    yield wrap
    machine.sh("rm /usr/local/sbin/wg")


def test_a_peer_that_the_kernel_keeps_gets_no_receipt(session: Session, wrapped: Callable[[str], None]) -> None:
    """2.1: read back, not believed; control: a key that the kernel never had."""
    wrapped('[ "$1" != set ] || exit 0')
    assert session.ask("revoke", keys=[dead(1), dead(80)])["receipts"] == [
        {"public_key": make_key(1), **CLEAN, "kernel": False, "found": ["kernel:wg0"]},
        {"public_key": make_key(80), **CLEAN},
    ]


def test_a_kernel_that_cannot_be_read_gives_no_receipt(session: Session, wrapped: Callable[[str], None]) -> None:
    wrapped('[ "$1 $2" != "show all" ] || exit 1')
    assert session.ask("revoke", keys=[dead(1)])["receipts"] == [
        {"public_key": make_key(1), **CLEAN, "kernel": False, "found": ["kernel:unknown"]}
    ]


def test_two_sessions_see_each_others_work(machine: Machine, session: Session) -> None:
    lane = machine.session("wg0")
    lane.ask("revoke", keys=[dead(1)])
    reply = session.ask("apply", **make_whole(2, PEERS))
    assert (reply["withheld"], reply["state"]["peers"]) == ([make_key(1)], 9)
    lane.ask("revoke", keys=[dead(2)])
    assert session.ask("hello")["state"]["peers"] == 8
    assert set(machine.peers()) == {make_key(n) for n in (0, *range(3, 10))}


@pytest.mark.parametrize("harm", ["rm {0}", "printf x | dd of={0} bs=1 seek=9 conv=notrunc 2>/dev/null", ": > {0}"])
def test_tombstones_outlive_the_loss_of_their_file(machine: Machine, session: Session, harm: str) -> None:
    """D19: never an empty set."""
    session.ask("revoke", keys=[dead(1)])
    machine.sh(harm.format("/var/lib/muster/tombstones"))
    reply = machine.session("wg0").ask("apply", **make_whole(2, PEERS))
    assert reply["withheld"] == [make_key(1)]
    assert make_key(1) in machine.sh("cat /var/lib/muster/tombstones")


def test_the_command_line_revokes_and_says_by_its_exit_how_it_went(machine: Machine, session: Session) -> None:
    words = ["muster-node", "revoke", "wg0", make_key(1), make_key(2), "--reason", "laptop lost"]
    assert '"disk":true' in machine.run(*words)
    assert session.ask("hello")["state"]["tombstones"] == 2
    machine.sh(f"echo {make_key(1)} > /etc/wireguard/other.conf")
    assert '"disk":false' in machine.run(*words, code=1)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"public_key": make_key(1)}],
        [{"public_key": make_key(1) + " ", "reason": "x"}],
        [{"public_key": make_key(1), "reason": "x" * 1001}],
        [dead(1) | {"x": 1}],
        "all",
    ],
)
def test_a_revoke_that_names_no_key_touches_nothing(machine: Machine, session: Session, keys: object) -> None:
    """A4: an empty selector."""
    assert session.ask("revoke", keys=keys)["error"]["code"] == "bad_request"
    assert set(machine.peers()) == {make_key(n) for n in range(10)}
