"""Files that are damaged, gone or cannot be read: the last good copy holds, minus the dead, and it is said."""

from __future__ import annotations

import time

import pytest

from tests.nodes.node.build import dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(8)]
LIB = "/var/lib/muster"
MAIN, COPY, STATE, LAST = f"{LIB}/tombstones", f"{LIB}/tombstones.copy", f"{LIB}/wg0/state", f"{LIB}/wg0/state.last"
HARMS = {
    "gone": "rm {0}",
    "empty": ": > {0}",
    "one byte": "printf x | dd of={0} bs=1 seek=50 conv=notrunc 2>/dev/null",
    "cut off": "truncate -s -40 {0}",
    "noise": "head -c 5000 /dev/urandom > {0}",
    "a folder": "rm {0}; mkdir {0}",
}


def keys(*numbers: int) -> set[str]:
    return {make_key(number) for number in numbers}


def boot(machine: Machine) -> str:
    """What `load` says when only the disk is left; it always ends well."""
    machine.sh("ip link del wg0; rm -rf /run/muster; while [ -e /run/wireguard/wg0.sock ]; do sleep 0.01; done")
    machine.sh("wg-quick up wg0")
    node = " ".join(machine.words("muster-node", "load", "wg0")[len(machine.enter) :])
    return machine.sh(f"{node} 2>&1")


def drift(session: Session) -> set[str]:
    return {row["what"] for row in session.ask("observe", full=True)["drift"]}


@pytest.fixture
def used(machine: Machine, session: Session) -> Session:
    """state.last still has peers 0 to 7: 1 and 2 are dead, 3 is over."""
    soon = int(time.time()) + 1000
    ending = [*PEERS[:3], PEERS[3] | {"expires_at": soon}, *PEERS[4:]]
    assert session.ask("apply", **make_whole(2, ending))["ok"]
    assert session.ask("revoke", keys=[dead(1), dead(2)])["ok"]
    assert session.ask("time", now=soon + 1)["ok"]
    machine.sh(f"grep -q {make_key(1)} {LAST}")
    return session


@pytest.mark.parametrize("harm", HARMS)
def test_without_a_good_state_the_one_before_holds_minus_the_dead_and_the_expired(
    machine: Machine, used: Session, harm: str
) -> None:
    """D19: with an alarm, until the next push."""
    machine.sh(HARMS[harm].format(STATE))
    assert "wg0: the state is damaged; loading 8 peers" in boot(machine)
    assert set(machine.peers()) == keys(0, 4, 5, 6, 7)
    assert drift(used) == {"state"}
    machine.sh(f"rmdir {STATE} 2>/dev/null || true")
    assert used.ask("apply", **make_whole(3, PEERS[4:]))["drift"] == []
    assert boot(machine) == ""
    assert set(machine.peers()) == keys(4, 5, 6, 7)


@pytest.mark.parametrize("harm", sorted(HARMS.keys() - {"gone"}))
def test_with_no_good_copy_of_the_state_nobody_gets_in_and_it_is_said(
    machine: Machine, used: Session, harm: str
) -> None:
    """D19: until a valid push."""
    machine.sh("; ".join(HARMS[harm].format(path) for path in (STATE, LAST)))
    assert "wg0: the state is damaged; loading 0 peers" in boot(machine)
    assert machine.peers() == {}
    assert drift(used) == {"state"}
    machine.sh(f"rmdir {STATE} {LAST} 2>/dev/null || true")
    assert used.ask("apply", **make_whole(3, PEERS))["withheld"] == sorted(keys(1, 2))
    assert set(machine.peers()) == keys(0, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(("path", "harm"), [*((MAIN, harm) for harm in HARMS), (COPY, "gone"), (COPY, "noise")])
def test_one_file_of_tombstones_is_enough_for_all_of_them(
    machine: Machine, used: Session, path: str, harm: str
) -> None:
    """D19: at a boot, over a state that would bring the dead back; a tick writes the file anew."""
    machine.sh(HARMS[harm].format(path))
    machine.sh(HARMS["noise"].format(STATE))
    assert "is damaged or lacks tombstones" in boot(machine)
    assert set(machine.peers()) == keys(0, 4, 5, 6, 7)
    machine.sh(f"rmdir {path} 2>/dev/null || true")
    machine.run("muster-node", "tick", "wg0")
    machine.sh(f"grep -q {make_key(1)} {path}; grep -q {make_key(2)} {path}")
    assert set(machine.peers()) == keys(0, 4, 5, 6, 7)


def test_of_two_damaged_files_of_tombstones_the_union_holds(machine: Machine, used: Session) -> None:
    """D19: each lost another key, and of a third both kept but the name."""
    assert used.ask("revoke", keys=[dead(6)])["ok"]
    machine.sh(f"sed -i '1d; 3s/at/xx/' {MAIN}; sed -i '2d; 3s/reason/nosaer/' {COPY}")
    machine.sh(HARMS["empty"].format(STATE))
    assert "is damaged or lacks tombstones" in boot(machine)
    assert set(machine.peers()) == keys(0, 4, 5, 7) - {make_key(3)}
    machine.run("muster-node", "tick", "wg0")
    for number in (1, 2, 6):
        machine.sh(f"grep -q {make_key(number)} {MAIN}; grep -q {make_key(number)} {COPY}")


def test_a_session_that_knew_the_tombstones_writes_them_again_when_both_files_are_gone(
    machine: Machine, used: Session
) -> None:
    """D19: never an empty set while anybody remembers; control: the peers that live stay."""
    machine.sh(f"rm {MAIN} {COPY}")
    assert used.ask("observe", full=False)["state"]["tombstones"] == 2
    machine.sh(f"grep -q {make_key(1)} {MAIN}; grep -q {make_key(2)} {COPY}; rm {STATE}")
    boot(machine)
    assert set(machine.peers()) == keys(0, 4, 5, 6, 7)


@pytest.mark.parametrize("harm", ["2s/public_key/x/", "2s/.*/\\x00\\xff{/", "2d", "$s/$/torn/"])
def test_a_damaged_journal_keeps_its_other_entries_in_force(machine: Machine, used: Session, harm: str) -> None:
    """D19: who was shut at the machine stays shut, and what follows is numbered on."""
    for number in (4, 5, 6):
        machine.run("muster-node", "suspend", "wg0", make_key(number), "--reason", f"number {number}")
    before = used.ask("journal", after=0)["entries"]
    assert [row["public_key"] for row in before][-3:] == [make_key(4), make_key(5), make_key(6)]
    machine.sh(f"sed -i '{harm}' {LIB}/wg0/journal")
    boot(machine)
    left = used.ask("journal", after=0)["entries"]
    assert left == [row for row in before if row in left]
    assert len(left) == len(before) - 1
    assert not {row["public_key"] for row in left} & set(machine.peers())
    assert {make_key(0), make_key(7)} <= set(machine.peers())
    machine.run("muster-node", "suspend", "wg0", make_key(7), "--reason", "after")
    last = machine.session("wg0").ask("journal", after=0)["entries"][-1]
    assert (last["public_key"], last["seq"]) == (make_key(7), left[-1]["seq"] + 1)


@pytest.mark.parametrize("harm", ["gone", "noise"])
def test_what_is_shut_after_the_journal_was_lost_stays_shut_and_is_read(
    machine: Machine, used: Session, harm: str
) -> None:
    """D19, E10: its number is one that the Console has not read yet, so it neither falls back nor is passed over."""
    for number in (4, 5):
        machine.run("muster-node", "suspend", "wg0", make_key(number), "--reason", "odd traffic")
    seen = used.ask("hello")["state"]["journal"]
    assert used.ask("apply", **make_whole(3, PEERS[4:], journal_seen=seen, approved=True))["ok"]
    assert set(machine.peers()) == keys(4, 5, 6, 7)
    machine.sh(HARMS[harm].format(f"{LIB}/wg0/journal"))
    machine.run("muster-node", "suspend", "wg0", make_key(6), "--reason", "after")
    machine.run("muster-node", "tick", "wg0")
    boot(machine)
    assert set(machine.peers()) == keys(4, 5, 7)
    assert [row["public_key"] for row in used.ask("journal", after=seen)["entries"]] == [make_key(6)]
    again = used.ask("apply", **make_whole(4, PEERS[4:], journal_seen=seen))
    assert (again["error"]["code"], again["error"]["keys"]) == ("conflict", [make_key(6)])


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        ([f"{LIB}/clock", "/run/muster/clock"], keys(0, 3, 4, 5, 6, 7)),
        ([f"{LIB}/clock"], keys(0, 4, 5, 6, 7)),
        (["/run/muster/wg0.seen"], keys(0, 4, 5, 6, 7)),
    ],
)
@pytest.mark.parametrize("harm", ["gone", "noise", "a folder"])
def test_what_is_only_remembered_may_be_lost(
    machine: Machine, used: Session, paths: list[str], left: set[str], harm: str
) -> None:
    """D19: who ran at the last look, and the time that the Console confirmed: then the machine's own clock holds."""
    machine.run("muster-node", "tick", "wg0")
    for path in paths:
        machine.sh(HARMS[harm].format(path))
    machine.run("wg", "set", "wg0", "peer", make_key(1), "peer", make_key(90))
    machine.run("muster-node", "tick", "wg0")
    assert set(machine.peers()) == left
    machine.sh(f"rmdir {' '.join(paths)} 2>/dev/null || true")
