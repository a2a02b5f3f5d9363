"""A wider network for a running interface: while packets pass, into kernel, masquerade and conf, over any kill."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.nodes.node.build import INTERFACE, Json, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(4)]
WIDE = INTERFACE | {"addresses": ["10.1.0.1/23", "fd00:1::1/56"]}
NEW = [*PEERS, make_peer(9, allowed_ips=["10.1.1.9/32", "fd00:1:0:7::9/128"])]
CONF, TABLES = "/etc/wireguard/wg0.conf", "nft list table inet muster_wg0"


def push(session: Session, interface: Json = WIDE, generation: int = 2, peers: list[Json] = NEW) -> Json:
    return session.ask("apply", **make_whole(generation, peers, interface=interface, journal_seen=99))


def tick(machine: Machine) -> None:
    assert json.loads(machine.run("muster-node", "tick", "wg0")) == {"ok": True}


def addresses(machine: Machine) -> list[str]:
    rows = json.loads(machine.run("ip", "-j", "addr", "show", "dev", "wg0"))[0]["addr_info"]
    return [f"{row['local']}/{row['prefixlen']}" for row in rows if row["scope"] != "link"]


def routes(machine: Machine) -> list[str]:
    """By the interface, in all tables, but for those to everybody."""
    text = machine.sh("for v in 4 6; do ip -$v route show table all dev wg0; done; ip -6 route show table local dev lo")
    others = "multicast|broadcast|anycast|(local )?fe80|local ::1 "
    rows = [row.split() for row in text.splitlines() if not re.match(others, row)]
    return sorted(row[1] if row[0] == "local" else row[0] for row in rows)


def is_wide(machine: Machine, session: Session) -> None:
    """And nothing is left over of how it came to be."""
    assert addresses(machine) == WIDE["addresses"]
    assert routes(machine) == sorted(["10.1.0.0/23", "10.1.0.1", "fd00:1::/56", "fd00:1::1"])
    assert re.findall(r"saddr (\S+)", machine.sh(TABLES)) == ["10.1.0.0/23", "fd00:1::/56"]
    assert session.ask("observe", full=True)["drift"] == []


@pytest.fixture
def loaded(machine: Machine, session: Session) -> Session:
    """With its masquerade, as a boot leaves it."""
    machine.run("muster-node", "load", "wg0")
    assert re.findall(r"saddr (\S+)", machine.sh(TABLES)) == ["10.1.0.0/24", "fd00:1::/64"]
    return session


def test_a_push_widens_both_families_in_kernel_masquerade_and_conf(machine: Machine, loaded: Session) -> None:
    before, link = machine.sh(f"cat {CONF}"), machine.sh("cat /sys/class/net/wg0/ifindex")
    reply = push(loaded)
    assert (reply["result"], reply["drift"]) == ("applied", [])
    is_wide(machine, loaded)
    after = before.replace("10.1.0.1/24", "10.1.0.1/23").replace("fd00:1::1/64", "fd00:1::1/56")
    assert machine.sh(f"cat {CONF}; stat -c %a {CONF}") == after + "600\n"
    assert machine.sh("cat /sys/class/net/wg0/ifindex") == link
    for _ in range(2):
        assert push(loaded)["result"] == "already"
        tick(machine)
    is_wide(machine, loaded)
    assert loaded.ask("journal", after=0)["entries"] == []


def test_a_boot_has_it_too_and_makes_up_for_a_conf_that_was_left_behind(machine: Machine, loaded: Session) -> None:
    """As after a power cut, or where the conf could not be written."""
    old = machine.sh(f"cat {CONF}")
    push(loaded)
    machine.sh("ip link del wg0; nft flush ruleset; wg-quick up wg0")
    assert addresses(machine) == WIDE["addresses"]
    machine.run("muster-node", "load", "wg0")
    is_wide(machine, loaded)
    new = machine.sh(f"cat {CONF}")
    machine.run("sh", "-c", f"cat > {CONF}", stdin=old)
    machine.sh("ip link del wg0; nft flush ruleset; wg-quick up wg0")
    assert addresses(machine) == INTERFACE["addresses"]
    machine.run("muster-node", "load", "wg0")
    is_wide(machine, loaded)
    assert machine.sh(f"cat {CONF}") == new


def test_in_the_conf_nothing_else_is_touched(machine: Machine, loaded: Session) -> None:
    text = machine.sh(f"cat {CONF}")
    odd = "# 10.1.0.1/24 was ours\n" + text.replace("Address = 10.1.0.1/24, fd", " address=10.1.0.1/24\nADDRESS =  fd")
    odd += "PostUp = echo 10.1.0.1/24 # Address = 10.1.0.1/24\n#Address = 10.1.0.1/24"
    machine.run("sh", "-c", f"cat > {CONF}", stdin=odd)
    push(loaded)
    wide = odd.replace(" address=10.1.0.1/24", " address=10.1.0.1/23").replace("fd00:1::1/64", "fd00:1::1/56")
    assert machine.sh(f"cat {CONF}") == wide


OTHERS = [
    {"addresses": ["10.1.0.1/25", "fd00:1::1/64"]},
    {"addresses": ["10.1.0.1/24", "fd00:1::1/65"]},
    {"addresses": ["10.1.0.2/23", "fd00:1::1/64"]},
    {"addresses": ["10.1.0.1/23"]},
    {"addresses": ["10.1.0.1/23", "fd00:1::1/64", "10.9.0.1/24"]},
    {"addresses": ["10.1.0.1/23", "fd00:1::1/64"], "mtu": 1400},
    {"addresses": ["10.1.0.1/23", "fd00:1::1/64"], "listen_port": 51999},
]


@pytest.mark.parametrize("change", OTHERS, ids=range(len(OTHERS)))
def test_any_other_change_of_the_interface_stays_drift(machine: Machine, loaded: Session, change: Json) -> None:
    """Until it is widening alone: then it is done, with no new push of it."""
    was = machine.sh(f"cat {CONF}; {TABLES}"), addresses(machine)
    reply = push(loaded, INTERFACE | change, peers=PEERS)
    assert (reply["result"], {row["what"] for row in reply["drift"]}) == ("applied", {"interface"})
    tick(machine)
    assert (machine.sh(f"cat {CONF}; {TABLES}"), addresses(machine)) == was
    assert push(loaded, generation=3)["drift"] == []
    is_wide(machine, loaded)


# A program that is put before the real one, and kills whoever calls it: before or after its work.
KILLER = """#!/bin/sh
case "$*" in "{words}") [ -e /run/kill ] && rm /run/kill && {{ {before} kill -9 $PPID; exit 1; }};; esac
exec {program} "$@"
"""


def killing(program: str, words: str, *, is_after: bool) -> Callable[[Machine], None]:
    def put(machine: Machine) -> None:
        path = machine.sh(f"command -v {program}").strip()
        text = KILLER.format(program=path, words=words, before=f'{path} "$@";' if is_after else "")
        machine.run("sh", "-c", f"cat > /usr/local/sbin/{program}; chmod 755 /usr/local/sbin/{program}", stdin=text)

    return put


def conf_is_kept(machine: Machine) -> None:
    renames = "rename,renameat,renameat2"
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={renames}", "-P", CONF + ".new"]
    machine.around = [*words, "-e", f"inject={renames}:signal=KILL"]


KILLS = {
    "before the masquerade": killing("nft", "-f -", is_after=False),
    "after the masquerade": killing("nft", "-f -", is_after=True),
    "before the addresses": killing("ip", "-force -batch -", is_after=False),
    "after the addresses": killing("ip", "-force -batch -", is_after=True),
    "before the conf": conf_is_kept,
}


@pytest.mark.parametrize("then", ["push", "tick", "boot"])
@pytest.mark.parametrize("harm", KILLS.values(), ids=KILLS)
def test_a_kill_at_any_step_is_brought_to_its_end(
    machine: Machine, loaded: Session, harm: Callable[[Machine], None], then: str
) -> None:
    """E1: by the next push, by the next tick, or by a boot."""
    try:
        harm(machine)
        machine.sh("touch /run/kill")
        line = json.dumps({"v": 1, "id": 1, "op": "apply", **make_whole(2, NEW, interface=WIDE)})
        killed = machine.popen("muster-node", "session", "wg0")
        assert killed.communicate(line.encode() + b"\n", 30)[0] == b""
        assert killed.returncode != 0
    finally:
        machine.around = []
        machine.sh("rm -f /run/kill /usr/local/sbin/ip /usr/local/sbin/nft")
    if then == "push":
        assert push(loaded)["result"] == "already"
    elif then == "boot":
        machine.sh("ip link del wg0; rm -rf /run/muster; nft flush ruleset; wg-quick up wg0")
        machine.run("muster-node", "load", "wg0")
    tick(machine)
    is_wide(machine, loaded)
    assert "Address = 10.1.0.1/23, fd00:1::1/56\n" in machine.sh(f"cat {CONF}")
    assert set(machine.peers()) == {peer["public_key"] for peer in NEW}
    assert machine.peers()[make_key(9)] == set(NEW[-1]["allowed_ips"])


def test_a_conf_that_cannot_be_written_holds_nothing_up(machine: Machine, loaded: Session) -> None:
    """As from the daemon's sandbox, in which it is read-only."""
    machine.sh(f"mount --bind {CONF} {CONF}; mount -o remount,ro,bind {CONF}")
    try:
        assert push(loaded)["drift"] == []
        is_wide(machine, loaded)
    finally:
        machine.sh(f"umount {CONF}")
    assert "10.1.0.1/24" in machine.sh(f"cat {CONF}")
    assert push(loaded)["drift"] == []
    assert "10.1.0.1/23" in machine.sh(f"cat {CONF}")
