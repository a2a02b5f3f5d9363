"""A site behind a peer, and an address of its own, on real servers and by packets."""

import time

import pytest

from audit.services import SYSTEM
from fleet.models import Environment, ServerStatus
from fleet.pools import PoolExhausted
from fleet.services import change_server
from peers.granting import end_grants
from peers.models import Grant, Peer, RoutedNetwork
from peers.routing import end_route, route_network
from peers.static import assign_address
from tests.build import make_grant, make_person
from tests.fleet_in_lab import console, register, tunnel_file
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled, joined
from tests.nodes.lab.scene import Scene, Seat, contractor, scene, wait_until_sent

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_a_host_in_a_branch_is_reached_as_long_as_its_network_is_routed(lab: Lab, staging: Environment) -> None:
    with scene(lab, [staging]) as fleet:
        ben, carol = (fleet.join(contractor(staging, name=name), lab.add_clients(1)[0]) for name in ("Ben", "Carol"))
        branch = fleet.join(contractor(staging, name="Branch"), lab.add_clients(1)[0])
        host = lab.add_host_behind(branch.client, return_route=True)
        branch.client.shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        networks = [f"{host.address}/32", f"{host.address6}/128"]
        began = time.monotonic()
        assert [carol.client.ping(address).received for address in (host.address, host.address6)] == [0, 0]
        routes = [_route(fleet, branch, network) for network in networks]
        fleet.console.push()
        assert [carol.client.ping(address).lost for address in (host.address, host.address6)] == [0, 0]
        assert set(networks) < set(fleet.dump(0, branch.pair.public_key)[1].split(","))
        stream = carol.client.stream(host.address)
        stream.wait_for_reply(10)
        end_route(actor=SYSTEM, route=routes[0], reason="branch closed")
        fleet.console.push()
        ended = time.monotonic()
        assert carol.client.ping(host.address6).lost == 0
        assert carol.client.ping(host.address).received == 0
        assert (stream.last_answered_at() or 0) < ended
        assert [seat.lost(began, time.monotonic()) for seat in (ben, branch)] == [[0], [0]]


def _route(fleet: Scene, branch: Seat, network: str) -> RoutedNetwork:
    row = fleet.rows[0]
    return route_network(actor=SYSTEM, device=branch.device, server=row, network=network, reason="the branch")


def test_a_static_address_survives_withdrawal_and_a_new_grant(lab: Lab, staging: Environment) -> None:
    with scene(lab, [staging]) as fleet:
        ben, carol = (fleet.join(contractor(staging, name=name), lab.add_clients(1)[0]) for name in ("Ben", "Carol"))
        began = time.monotonic()
        row = assign_address(
            actor=SYSTEM, device=carol.device, server=fleet.rows[0], ipv4="10.1.9.9", reason="a firewall knows it"
        )
        fleet.console.push()
        assert carol.is_shut_out(time.monotonic()) == [True]  # its file says another address, and another key
        fleet.disconnect(carol)
        fleet.connect(carol)
        assert "Address = 10.1.9.9/32" in carol.files[0]
        end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(person=carol.person)), reason="pause")
        fleet.console.push()
        assert carol.is_shut_out(time.monotonic()) == [True]
        make_grant(carol.person, staging)
        fleet.console.push()
        fleet.disconnect(carol)
        fleet.connect(carol)
        assert Peer.objects.get(device=carol.device, ended_at=None).ipv4 == row.ipv4
        assert fleet.dump(0, carol.pair.public_key)[1].split(",")[0] == "10.1.9.9/32"
        assert ben.lost(began, time.monotonic()) == [0]


def test_a_full_pool_is_widened_under_live_tunnels(lab: Lab, staging: Environment) -> None:
    """Nobody moves, loses a packet or needs another tunnel file; who comes gets what is new."""
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging, ipv4_pool="10.1.4.0/30", ipv6_pool="fd00:1::8/126")
        ben, device, pair = joined(muster, lab, row, "Ben")
        file = tunnel_file(device, row, pair)
        streams = [ben.stream(address, rate=100) for address in ("10.1.4.1", "fd00:1::9")]
        for stream in streams:
            stream.wait_for_reply(10)
        began = time.monotonic()
        dora = make_person("Dora")
        make_grant(dora, staging)
        with pytest.raises(PoolExhausted):
            register(dora)
        row = change_server(
            actor=SYSTEM, server=row, ipv4_pool="10.1.0.0/21", ipv6_pool="fd00:1::/112", reason="it is full"
        )
        muster.push()
        second, _, _ = joined(muster, lab, row, "Dora")
        for address in ("10.1.4.1", "fd00:1::9", "10.1.4.2"):
            second.stream(address).wait_for_reply(10)
        assert {str(peer.ipv4) for peer in Peer.objects.all()} == {"10.1.4.2/32", "10.1.0.1/32"}
        assert "10.1.4.1/21" in machine.shell("ip -o address show dev wg0")
        muster.poll()
        assert ServerStatus.objects.get().drift == []
        wait_until_sent(streams, time.monotonic())
        assert [stream.lost(since=began) for stream in streams] == [0, 0]
        assert tunnel_file(device, row, pair) == file
