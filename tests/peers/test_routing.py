"""Networks behind a peer: which the server sends there, and how long."""

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction

from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Server
from nodes.desired import desired_state
from nodes.render import peer_lines
from nodes.script import muster_node
from peers.granting import end_grants, grant_access
from peers.models import Device, Grant, PeerStatus, RoutedNetwork
from peers.revocation import revoke_devices
from peers.routing import end_route, route_network
from peers.selectors import config_of
from peers.services import register_device
from peers.suspending import suspend
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.peers.addresses import confirm_all, let_rest_pass, live, pushed, said

pytestmark = pytest.mark.django_db
SITE = "192.168.7.0/24"


@pytest.fixture
def server(staging: Environment) -> Server:
    server = make_server(staging, "vpn-fra", ipv4_pool="10.9.0.0/24", ipv6_pool="fd00:9::/64")
    Server.objects.update(public_key=new_public_key())
    server.refresh_from_db()
    return server


@pytest.fixture
def router(server: Server) -> Device:
    """The branch's, let in."""
    person = make_person("Branch")
    make_grant(person, server.environment)
    return make_device(person, "router")


def route(device: Device, server: Server, network: str = SITE) -> RoutedNetwork:
    return route_network(actor=SYSTEM, device=device, server=server, network=network, reason="the branch")


def end(row: RoutedNetwork) -> None:
    end_route(actor=SYSTEM, route=row, reason="branch closed")


def test_the_server_is_told_what_lies_behind_a_peer_in_the_node_s_order(server: Server, router: Device) -> None:
    generation = server.generation
    for network in (SITE, "10.200.0.0/16", "fd77::/48", "198.18.0.0/15"):
        route(router, server, network)
    own4, own6 = (str(row) for row in (live(router, server).ipv4, live(router, server).ipv6))
    assert pushed(router, server) == (
        *sorted([own4, "10.200.0.0/16", SITE, "198.18.0.0/15"]),
        *sorted([own6, "fd77::/48"]),
    )
    assert muster_node.peer_of(peer_lines(desired_state(server.pk).content)[router.public_key])
    server.refresh_from_db()
    assert server.generation >= generation + 4
    assert said(server)["192.168.7.0 to 192.168.7.255"] == "routed to Branch's router"


def test_it_is_routed_only_while_the_peer_lives_and_is_let_in(server: Server, router: Device) -> None:
    route(router, server)
    suspend(actor=SYSTEM, targets=[router], reason="strange traffic")
    assert pushed(router, server) == ()
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="over")
    assert pushed(router, server) == ()
    dave = make_device(make_person("Dave"), "router")
    make_grant(router.person, server.environment)
    with pytest.raises(ValidationError, match=r"in the way: 192\.168\.7\.0 to \S+ \(routed to Branch's router\)"):
        route(dave, server)


@pytest.mark.parametrize("network", [SITE, "192.168.0.0/16", "192.168.7.64/26", "192.168.7.9/32"])
def test_two_peers_never_have_overlapping_networks(server: Server, router: Device, network: str) -> None:
    other = make_device(router.person, "other router")
    route(router, server)
    for device in (other, router):
        with pytest.raises(ValidationError) as refusal:
            route(device, server, network)
        assert list(refusal.value.message_dict) == ["network"]
    first = AddressRange.objects.get(kind="routed")
    with pytest.raises(DatabaseError), transaction.atomic():
        AddressRange.objects.create(server=server, first=first.first, last=first.first, kind="routed")
    elsewhere = make_server(server.environment)
    assert route(other, elsewhere, network)
    assert route(other, server, "192.168.8.0/24")


@pytest.mark.parametrize(
    "network",
    [
        *("0.0.0.0/0", "::/0", "11.0.0.0/7", "fc00::/7", "2000::/15", "127.0.0.0/8", "127.0.0.1/32", "169.254.0.0/16"),
        *("169.0.0.0/8", "224.0.0.0/8", "239.1.1.1/32", "255.255.255.255/32", "0.0.0.0/32", "::1/128", "::/128"),
        *("fe80::/64", "ff02::/16", "10.9.0.0/24", "10.9.0.64/26", "10.0.0.0/8", "fd00:9::/96", "fd00::/16"),
        *("198.51.100.0/24", "203.0.113.0/24", "10.1.0.5/24", "x", "", "::ffff:a01:0/120", "192.168.7.0/24;id"),
    ],
)
def test_what_cannot_lie_behind_a_peer_is_refused_at_its_field(server: Server, router: Device, network: str) -> None:
    """A3: everything, the machine's own, the pools, and where the server and its clients are reached."""
    Server.objects.filter(pk=server.pk).update(host="198.51.100.7")
    PeerStatus.objects.update(endpoint="203.0.113.9:40001")
    server.refresh_from_db()
    with pytest.raises(ValidationError) as refusal:
        route(router, server, network)
    assert list(refusal.value.message_dict) == ["network"]
    assert not RoutedNetwork.objects.exists()
    assert not AddressRange.objects.filter(kind="routed").exists()
    assert route(router, server)


def test_a_peer_has_at_most_what_a_node_holds(server: Server, router: Device) -> None:
    for number in range(62):
        route(router, server, f"10.200.{number}.0/24")
    with pytest.raises(ValidationError, match="at most 62"):
        route(router, server)
    assert muster_node.peer_of(peer_lines(desired_state(server.pk).content)[router.public_key])
    assert len(pushed(router, server)) == 64


def test_what_is_routed_no_more_rests_until_the_server_has_confirmed_that(server: Server, router: Device) -> None:
    row = route(router, server)
    confirm_all()
    end(row)
    other = make_device(router.person, "other router")
    assert let_rest_pass([server]) == 0
    assert said(server)["192.168.7.0 to 192.168.7.255"].startswith(
        "rests, as vpn-fra has not confirmed that it is routed no more; the route to Branch's router ended 20"
    )
    with pytest.raises(ValidationError, match="routed no more"):
        route(other, server)
    server.refresh_from_db()
    confirm_all()
    assert let_rest_pass([server]) == 1
    assert route(other, server)
    with pytest.raises(ValidationError, match="ended already"):
        end(row)


def test_a_confirmed_route_rests_as_long_as_an_address(server: Server, router: Device) -> None:
    row, other = route(router, server), make_device(router.person, "other router")
    end(row)
    confirm_all()
    assert said(server)["192.168.7.0 to 192.168.7.255"].startswith("rests until 20")
    with pytest.raises(ValidationError, match="rests until 20"):
        route(other, server)
    assert route(router, server).network == SITE


def test_a_new_key_has_the_networks_of_the_one_that_it_replaces(server: Server, router: Device) -> None:
    route(router, server)
    new = register_device(
        actor=SYSTEM, person=router.person, name="router", public_key=new_public_key(), replaces=router
    )
    assert pushed(new, server) == pushed(router, server)
    assert SITE in pushed(new, server)
    lines = peer_lines(desired_state(server.pk).content)
    muster_node.check_overlap([muster_node.peer_of(line) for line in lines.values()])
    revoke_devices(actor=SYSTEM, devices=[router], reason="replaced")
    assert RoutedNetwork.objects.get(ended_at=None).device == new
    assert SITE in pushed(new, server)
    revoke_devices(actor=SYSTEM, devices=[new], reason="stolen")
    assert not RoutedNetwork.objects.filter(ended_at=None).exists()
    assert said(server)["192.168.7.0 to 192.168.7.255"].startswith("rests")


def test_a_site_s_own_tunnel_file_does_not_lead_to_itself(server: Server, router: Device) -> None:
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="narrower")
    networks = ["10.0.0.0/8", SITE, "192.168.7.64/26"]
    grant = grant_access(actor=SYSTEM, person=router.person, server=server, reason="branch", networks=networks)
    assert config_of(live(router, server)).allowed_ips == sorted(networks)
    route(router, server)
    assert config_of(live(router, server)).allowed_ips == ["10.0.0.0/8"]
    dave = make_person("Dave")
    grant_access(actor=SYSTEM, person=dave, server=server, reason="work", networks=[SITE])
    assert config_of(live(make_device(dave), server)).allowed_ips == [SITE]
    end_grants(actor=SYSTEM, grants=[grant], reason="narrower")
    grant_access(actor=SYSTEM, person=router.person, server=server, reason="branch", networks=[SITE])
    assert config_of(live(router, server)).allowed_ips == ["10.9.0.1/32", "fd00:9::1/128"]
    make_grant(router.person, server.environment)
    assert "AllowedIPs = 0.0.0.0/0, ::/0\n" in config_of(live(router, server)).text()


def test_a_dead_key_has_no_network(server: Server, router: Device) -> None:
    revoke_devices(actor=SYSTEM, devices=[router], reason="stolen")
    with pytest.raises(ValidationError, match="dead for ever"):
        route(router, server)
