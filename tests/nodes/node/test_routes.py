"""Networks behind a peer are routed into the interface; what the machine reaches by a way of its own stays so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.nodes.node.build import make_key, make_peer, make_whole
from tests.nodes.node.machine import PYTHON, SCRIPT, Machine

SITE, BESIDE = "10.50.0.0/16", ["172.20.0.0/16", "fd50::/48"]
PEERS = [make_peer(0), make_peer(1, allowed_ips=[SITE, *BESIDE])]
OURS = "for v in 4 6; do ip -$v route show dev wg0 proto 117; done"


def tick(machine: Machine) -> None:
    assert json.loads(machine.run("muster-node", "tick", "wg0")) == {"ok": True}


def ours(machine: Machine) -> list[str]:
    return [row.split()[0] for row in machine.sh(OURS).splitlines()]


def left_out(reply: Any) -> list[str]:
    """The networks of which the drift tells, which tells of nothing else."""
    assert {row["what"] for row in reply["drift"]} <= {"route"}, reply
    return [row["detail"].split(": ")[0] for row in reply["drift"]]


@pytest.fixture
def underlay(machine: Machine) -> Machine:
    """A machine at 192.0.2.7/24 whose default gateway is 192.0.2.1."""
    machine.make_interface()
    machine.sh("ip tuntap add mode tap eth0; ip link set eth0 up; ip addr add 192.0.2.7/24 dev eth0")
    machine.sh("ip route add default via 192.0.2.1 dev eth0")
    return machine


@pytest.fixture(autouse=True)
def gone(machine: Machine) -> Any:
    yield
    machine.sh(
        "for name in eth0 eth1; do ip link del $name 2>/dev/null || true; done; ip route flush table 777 || true"
    )
    machine.sh("ip route flush proto 99; ip -6 route flush proto 99")


FOREIGN = [
    f"{SITE} dev eth0",
    f"{SITE} via 192.0.2.9 dev eth0",
    f"{SITE} via 192.0.2.9 dev eth0 metric 500",
    f"blackhole {SITE}",
    f"{SITE} dev wg0",
]


@pytest.mark.parametrize("route", FOREIGN)
def test_a_route_that_is_not_ours_stays_and_all_others_are_set(underlay: Machine, route: str) -> None:
    """And ours comes in by itself once it is gone: by a tick."""
    underlay.sh(f"ip route add {route} proto 99")
    before = underlay.sh("ip route show proto 99")
    session = underlay.session("wg0")
    reply = session.ask("apply", **make_whole(1, PEERS))
    assert (reply["result"], left_out(reply)) == ("applied", [SITE])
    assert ours(underlay) == BESIDE
    for _ in range(2):
        tick(underlay)
        assert (underlay.sh("ip route show proto 99"), ours(underlay)) == (before, BESIDE)
    assert left_out(session.ask("observe", full=True)) == [SITE]
    underlay.sh("ip route flush proto 99")
    tick(underlay)
    assert (ours(underlay), session.ask("observe", full=True)["drift"]) == ([SITE, *BESIDE], [])
    assert session.ask("journal", after=0)["entries"] == []


def test_the_next_push_brings_it_too_and_ours_stay_where_one_comes_beside_another(underlay: Machine) -> None:
    underlay.sh(f"ip route add blackhole {SITE} proto 99")
    session = underlay.session("wg0")
    assert left_out(session.ask("apply", **make_whole(1, PEERS))) == [SITE]
    underlay.sh("ip route flush proto 99")
    assert session.ask("apply", **make_whole(1, PEERS))["drift"] == []
    assert ours(underlay) == [SITE, *BESIDE]
    session.ask("apply", **make_whole(2, PEERS[:1]))
    assert ours(underlay) == []


def test_a_route_of_ipv6_that_is_not_ours_stays(underlay: Machine) -> None:
    underlay.sh(f"ip -6 route add blackhole {BESIDE[1]} proto 99")
    session = underlay.session("wg0")
    reply = session.ask("apply", **make_whole(1, PEERS))
    assert [row["detail"].split(": ")[0] for row in reply["drift"]] == [BESIDE[1]]
    assert ours(underlay) == [SITE, BESIDE[0]]
    underlay.sh("ip -6 route flush proto 99")
    tick(underlay)
    assert ours(underlay) == [SITE, *BESIDE]


NEAR = {
    "the network that the machine is in": ("192.0.2.0/24", "true"),
    "a part of it, with the gateway in it": ("192.0.2.0/25", "true"),
    "a part of it, without the gateway": ("192.0.2.128/25", "true"),
    "one neighbour": ("192.0.2.9/32", "true"),
    "the gateway alone": ("192.0.2.1/32", "true"),
    "a gateway that is in no network of the machine": (
        "203.0.113.0/24",
        "ip route replace default via 203.0.113.1 dev eth0 onlink",
    ),
    "a part of another interface's network": (
        "10.60.1.0/24",
        "ip tuntap add mode tap eth1; ip addr add 10.60.0.1/16 dev eth1; ip link set eth1 up",
    ),
}


@pytest.mark.parametrize(("network", "first"), NEAR.values(), ids=NEAR)
def test_no_network_takes_from_the_machine_what_it_is_in_or_its_gateway(
    underlay: Machine, network: str, first: str
) -> None:
    """Else the server would be cut off from the Console, and from all its clients."""
    underlay.sh(first)
    before = underlay.sh("ip route show | grep -v wg0")
    session = underlay.session("wg0")
    peers = [PEERS[0], make_peer(1, allowed_ips=sorted([network, BESIDE[0]]))]
    reply = session.ask("apply", **make_whole(1, peers))
    assert (reply["result"], left_out(reply), ours(underlay)) == ("applied", [network], [BESIDE[0]])
    tick(underlay)
    underlay.run("muster-node", "load", "wg0")
    assert (underlay.sh("ip route show | grep -v wg0"), ours(underlay)) == (before, [BESIDE[0]])
    assert set(underlay.peers()) == {make_key(0), make_key(1)}


def test_a_wider_network_than_the_machines_own_is_routed_for_that_one_goes_first(underlay: Machine) -> None:
    session = underlay.session("wg0")
    reply = session.ask("apply", **make_whole(1, [make_peer(1, allowed_ips=["192.0.0.0/16"])]))
    assert (reply["drift"], ours(underlay)) == ([], ["192.0.0.0/16"])
    assert " dev eth0 " in underlay.run("ip", "route", "get", "192.0.2.1")
    assert " dev wg0 " in underlay.run("ip", "route", "get", "192.0.77.1")


def test_a_network_that_the_machine_gets_into_later_is_given_up(underlay: Machine) -> None:
    """As where the interface is open before the machine has its address; and it comes back with the tick after."""
    session = underlay.session("wg0")
    assert session.ask("apply", **make_whole(1, PEERS))["drift"] == []
    tick(underlay)
    underlay.sh("ip addr add 10.50.3.7/16 dev eth0")
    tick(underlay)
    assert (ours(underlay), left_out(session.ask("observe", full=True))) == (BESIDE, [SITE])
    assert " dev eth0 " in underlay.run("ip", "route", "get", "10.50.0.1")
    underlay.sh("ip addr del 10.50.3.7/16 dev eth0")
    tick(underlay)
    assert (ours(underlay), session.ask("observe", full=True)["drift"]) == ([SITE, *BESIDE], [])


def test_a_daemon_with_nothing_else_to_do_sees_that_it_is_gone(underlay: Machine) -> None:
    underlay.sh(f"ip route add blackhole {SITE} proto 99")
    session = underlay.session("wg0")
    session.ask("apply", **make_whole(1, PEERS))
    kept = KeptNode(underlay)
    try:
        for _ in range(3):
            kept.tick()
        underlay.sh("ip route flush proto 99")
        kept.tick()
    finally:
        kept.close()
    assert ours(underlay) == [SITE, *BESIDE]


class KeptNode:
    """One object of the script that lives on from tick to tick, as in the daemon."""

    def __init__(self, machine: Machine) -> None:
        code = "import sys; from nodes.script import muster_node as m; n = m.Node('wg0', m.Paths())\n"
        code += "for _ in sys.stdin: print(n.tick(), flush=True)"
        self.process = machine.popen("env", f"PYTHONPATH={SCRIPT.parents[2]}", PYTHON, "-c", code)

    def tick(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"{}\n"

    def close(self) -> None:
        self.process.communicate(timeout=10)


def test_in_a_table_of_its_own_it_is_the_same(underlay: Machine) -> None:
    session = underlay.session("wg0")
    underlay.sh("sed -i '1a Table = 777' /etc/wireguard/wg0.conf")
    underlay.sh(f"ip route add blackhole {SITE} proto 99 table 777")
    reply = session.ask("apply", **make_whole(2, PEERS))
    assert left_out(reply) == [SITE]
    table = "ip route show table 777 proto 117"
    assert [row.split()[0] for row in underlay.sh(table).splitlines()] == BESIDE[:1]
    underlay.sh("ip route flush table 777 proto 99")
    tick(underlay)
    assert [row.split()[0] for row in underlay.sh(table).splitlines()] == [SITE, BESIDE[0]]
