"""Addresses that a device has for itself on a server."""

import pytest
from django.core.exceptions import ValidationError

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Server
from nodes.desired import desired_state
from peers.granting import end_grants
from peers.models import Device, Grant, Peer, StaticAddress, Suspension
from peers.reserving import reserve_addresses
from peers.revocation import revoke_devices
from peers.selectors import config_of
from peers.services import register_device
from peers.static import assign_address, end_static_address, is_reissued
from peers.suspending import suspend
from tests.build import make_device, make_grant, make_person, make_review, make_server, new_public_key
from tests.peers.addresses import address, confirm_all, let_rest_pass, live, pushed, said

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(staging: Environment) -> Server:
    server = make_server(staging, "vpn-fra", ipv4_pool="10.9.0.0/24", ipv6_pool="fd00:9::/64")
    Server.objects.update(public_key=new_public_key())
    server.refresh_from_db()
    return server


@pytest.fixture
def laptop(server: Server) -> Device:
    """Carol's, without a grant."""
    return make_device(make_person("Carol"))


def assign(device: Device, server: Server, ipv4: str = "10.9.0.50", ipv6: str = "") -> StaticAddress:
    return assign_address(actor=SYSTEM, device=device, server=server, ipv4=ipv4, ipv6=ipv6, reason="a printer")


def withdraw(device: Device) -> None:
    end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(person=device.person, ended_at=None)), reason="over")


def open_kinds(server: Server) -> dict[str, str]:
    rows = AddressRange.objects.filter(server=server, freed_at=None)
    return {str(row): row.kind for row in rows if row.kind != AddressRange.Kind.SERVER}


def test_an_address_assigned_before_there_is_a_peer_is_its_peers_then(server: Server, laptop: Device) -> None:
    row = assign(laptop, server, ipv6="fd00:9::50")
    assert not is_reissued(row)
    make_grant(laptop.person, server.environment)
    peer = live(laptop, server)
    assert (str(peer.ipv4), str(peer.ipv6)) == ("10.9.0.50/32", "fd00:9::50/128")
    assert said(server)["10.9.0.50/32"].startswith("static of Carol's laptop, in use by Carol's laptop since ")


def test_a_static_address_outlives_its_peer_and_is_given_again(server: Server, laptop: Device) -> None:
    assign(laptop, server)
    for _ in range(2):
        make_grant(laptop.person, server.environment)
        assert address(live(laptop, server)) == "10.9.0.50"
        withdraw(laptop)
        assert said(server)["10.9.0.50/32"] == "static of Carol's laptop"
    confirm_all()
    assert let_rest_pass([server]) == 2  # the IPv6 addresses, which were ordinary ones
    assert open_kinds(server) == {"10.9.0.50/32": "static"}
    other = make_person("Dave")
    make_grant(other, server.environment)
    with pytest.raises(ValidationError, match="static of Carol's laptop"):
        assign(make_device(other), server)


def test_a_live_peer_is_issued_anew_with_it_in_the_same_act(server: Server, laptop: Device) -> None:
    make_grant(laptop.person, server.environment)
    old, began = live(laptop, server), Event.objects.count()
    file = config_of(old).text()
    row = assign(laptop, server)
    new = live(laptop, server)
    assert (is_reissued(row), address(new), new.ipv6) == (True, "10.9.0.50", old.ipv6)
    assert pushed(laptop, server) == ("10.9.0.50/32", f"{new.ipv6}")
    assert "Address = 10.9.0.50/32" in config_of(new).text()
    assert config_of(new).text() != file
    event = Event.objects.latest("pk")
    assert (Event.objects.count(), event.changes["tunnel file"][1]) == (began + 1, "another one from now on")
    old.refresh_from_db()
    assert (old.end, old.is_decided, old.ended_act) == (Peer.End.WITHDRAWN, True, event.act)
    assert said(server)["10.9.0.2/32"].startswith("rests, as vpn-fra has not confirmed that Carol's laptop is gone")
    assert (new.expires_at, new.networks) == (old.expires_at, old.networks)
    [removal] = desired_state(server.pk).removals
    assert (removal.public_key, removal.is_decided) == (laptop.public_key, True)


def test_the_address_that_a_peer_has_becomes_its_own_without_a_new_file(server: Server, laptop: Device) -> None:
    make_grant(laptop.person, server.environment)
    peer = live(laptop, server)
    row = assign(laptop, server, ipv4=address(peer))
    assert (is_reissued(row), live(laptop, server)) == (False, peer)
    assert open_kinds(server) == {"10.9.0.2/32": "static", "fd00:9::2/128": "peer"}


def test_who_is_kept_out_stays_out_under_a_new_address(server: Server, laptop: Device) -> None:
    make_grant(laptop.person, server.environment)
    make_review(live(laptop, server))
    assign(laptop, server)
    assert pushed(laptop, server) == ()
    phone = make_device(laptop.person, "phone")
    suspend(actor=SYSTEM, targets=[live(phone, server)], reason="strange traffic")
    assign(phone, server, ipv4="10.9.0.51")
    assert (pushed(phone, server), address(live(phone, server))) == ((), "10.9.0.51")
    [held] = Suspension.objects.filter(peer__device=phone, ended_at=None)
    assert (held.peer, held.reason) == (live(phone, server), "strange traffic")
    tablet = make_device(laptop.person, "tablet")
    suspend(actor=SYSTEM, targets=[tablet], reason="strange traffic")
    assign(tablet, server, ipv4="10.9.0.52")
    assert (pushed(tablet, server), address(live(tablet, server))) == ((), "10.9.0.52")


def test_the_end_of_it_leaves_a_live_peer_its_address(server: Server, laptop: Device) -> None:
    make_grant(laptop.person, server.environment)
    row = assign(laptop, server)
    end_static_address(actor=SYSTEM, static=row, reason="no printer any more")
    assert (address(live(laptop, server)), open_kinds(server)["10.9.0.50/32"]) == ("10.9.0.50", "peer")
    withdraw(laptop)
    assert "10.9.0.50/32" not in open_kinds(server)
    with pytest.raises(ValidationError, match="ended already"):
        end_static_address(actor=SYSTEM, static=row, reason="again")


def test_the_end_of_it_without_a_peer_lets_it_rest(server: Server, laptop: Device) -> None:
    end_static_address(actor=SYSTEM, static=assign(laptop, server), reason="no printer any more")
    assert "; the static address of Carol's laptop ended 20" in said(server)["10.9.0.50/32"]
    dave = make_device(make_person("Dave"))
    with pytest.raises(ValidationError, match="rests until 20"):
        assign(dave, server)
    assert let_rest_pass([server]) == 1
    assert str(assign(dave, server).ipv4) == "10.9.0.50/32"


def test_a_device_need_not_wait_for_what_it_had_itself(server: Server, laptop: Device) -> None:
    make_grant(laptop.person, server.environment)
    had = address(live(laptop, server))
    withdraw(laptop)
    assign(laptop, server, ipv4=had)
    make_grant(laptop.person, server.environment)
    assert address(live(laptop, server)) == had


@pytest.mark.parametrize("is_used", [True, False])
def test_a_new_key_has_the_address_and_keeps_it_when_the_old_one_dies(
    server: Server, laptop: Device, is_used: bool
) -> None:
    if is_used:
        make_grant(laptop.person, server.environment)
    assign(laptop, server)
    new = register_device(
        actor=SYSTEM, person=laptop.person, name="laptop", public_key=new_public_key(), replaces=laptop
    )
    with pytest.raises(ValidationError, match="give it to the one that it replaces"):
        assign(new, server, ipv4="10.9.0.51")
    revoke_devices(actor=SYSTEM, devices=[laptop], reason="replaced")
    assert StaticAddress.objects.get(ended_at=None).device == new
    assert open_kinds(server)["10.9.0.50/32"] == "static"
    withdraw(new) if is_used else None
    make_grant(laptop.person, server.environment)
    assert address(live(new, server)) == "10.9.0.50"
    revoke_devices(actor=SYSTEM, devices=[new], reason="lost")
    assert not StaticAddress.objects.filter(ended_at=None).exists()
    assert open_kinds(server) == {}


def test_a_key_that_is_to_be_replaced_is_not_issued_anew(server: Server, laptop: Device) -> None:
    make_grant(laptop.person, server.environment)
    new = register_device(
        actor=SYSTEM, person=laptop.person, name="laptop", public_key=new_public_key(), replaces=laptop
    )
    with pytest.raises(ValidationError, match="wait until it has connected"):
        assign(laptop, server)
    revoke_devices(actor=SYSTEM, devices=[laptop], reason="replaced")
    assign(new, server)
    assert pushed(new, server)[0] == "10.9.0.50/32"


@pytest.mark.parametrize("had_a_peer", [True, False])
def test_revoking_the_device_ends_it_and_the_addresses_rest(server: Server, laptop: Device, had_a_peer: bool) -> None:
    if had_a_peer:
        make_grant(laptop.person, server.environment)
    assign(laptop, server)
    revoke_devices(actor=SYSTEM, devices=[laptop], reason="stolen")
    assert open_kinds(server) == {}
    assert said(server)["10.9.0.50/32"].startswith("rests")
    with pytest.raises(ValidationError, match="dead for ever"):
        assign(laptop, server)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"ipv4": "10.9.0.0"}, "ipv4"),
        ({"ipv4": "10.9.0.255"}, "ipv4"),
        ({"ipv4": "10.9.0.1"}, "ipv4"),
        ({"ipv4": "10.9.1.5"}, "ipv4"),
        ({"ipv4": "10.9.0.0/30"}, "ipv4"),
        ({"ipv4": "10.9.0.5-10.9.0.6"}, "ipv4"),
        ({"ipv4": "010.9.0.5"}, "ipv4"),
        ({"ipv4": "::ffff:a09:5"}, "ipv4"),
        ({"ipv4": "fd00:9::5"}, "ipv4"),
        ({"ipv6": "10.9.0.5"}, "ipv6"),
        ({"ipv6": "fd00:9::"}, "ipv6"),
        ({"ipv6": "fd00:9::0:5"}, "ipv6"),
        ({"ipv6": "fd00:9::5%eth0"}, "ipv6"),
        ({"ipv4": "10.9.0.77"}, "ipv4"),
        ({}, "ipv4"),
    ],
)
def test_what_cannot_be_its_own_is_refused_at_its_field(
    server: Server, laptop: Device, values: dict[str, str], field: str
) -> None:
    """A3: the server's own, what is reserved, no address of a peer, and what is none."""
    reserve_addresses(actor=SYSTEM, server=server, addresses="10.9.0.77", reason="printers")
    before = AddressRange.objects.count()
    with pytest.raises(ValidationError) as refusal:
        assign_address(actor=SYSTEM, device=laptop, server=server, reason="x", **values)
    assert list(refusal.value.message_dict) == [field]
    assert (AddressRange.objects.count(), StaticAddress.objects.count()) == (before, 0)
    assert assign(laptop, server, ipv4="10.9.0.254", ipv6="fd00:9::ffff")


def test_a_device_has_its_own_once_on_a_server(server: Server, laptop: Device, staging: Environment) -> None:
    assign(laptop, server)
    with pytest.raises(ValidationError, match=r"has 10\.9\.0\.50/32 for itself on vpn-fra already: end that first"):
        assign(laptop, server, ipv4="10.9.0.51")
    other = make_server(staging)
    assert assign(laptop, other, ipv4=str(other.pool4[50]))
