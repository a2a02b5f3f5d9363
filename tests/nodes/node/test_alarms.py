"""What a boot cannot make right it says, and goes on: a hook that fails would take the interface away."""

from __future__ import annotations

from tests.nodes.node.build import dead, make_key, make_peer
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(6)]


def load(machine: Machine) -> list[str]:
    """What a boot's load says; it ends well, whatever it says."""
    node = " ".join(machine.words("muster-node", "load", "wg0")[len(machine.enter) :])
    return machine.sh(f"{node} 2>&1").splitlines()


def test_a_load_without_trouble_says_nothing(machine: Machine, session: Session) -> None:
    session.ask("revoke", keys=[dead(1)])
    assert load(machine) == []


def test_a_damaged_file_of_tombstones_is_told_at_boot_and_its_keys_hold(machine: Machine, session: Session) -> None:
    """D19."""
    session.ask("revoke", keys=[dead(1), dead(2)])
    machine.sh("sed -i '1s/reason/r/' /var/lib/muster/tombstones; wg set wg0 peer " + make_key(1))
    assert load(machine) == ["muster-node: /var/lib/muster/tombstones is damaged or lacks tombstones"]
    assert set(machine.peers()) == {make_key(n) for n in (0, 3, 4, 5)}


def test_a_setting_of_the_machine_that_cannot_be_set_is_told(machine: Machine, session: Session) -> None:
    """As in a container with a read-only /proc/sys: the peers are loaded all the same."""
    setting = "/proc/sys/net/ipv4/ip_forward"
    machine.sh(f"echo 0 > {setting}; mount --bind {setting} {setting}; mount -o remount,bind,ro {setting}")
    try:
        machine.sh(f"wg set wg0 peer {make_key(1)} remove")
        assert load(machine) == [f"muster-node: {setting} could not be set to 1"]
    finally:
        machine.sh(f"umount {setting}")
    assert set(machine.peers()) == {make_key(n) for n in range(6)}
    assert (load(machine), machine.sh(f"cat {setting}")) == ([], "1\n")
