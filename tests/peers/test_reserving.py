"""Addresses that are kept back: reserved ones, and named pools."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Pool, Server, User
from fleet.named_pools import add_pool, end_pool
from fleet.pools import PoolExhausted
from peers.granting import end_grants, grant_access
from peers.models import Device, Peer
from peers.reserving import release_addresses, reserve_addresses
from tests.build import make_device, make_grant, make_person, make_server
from tests.doors import browser, rows, script
from tests.peers.addresses import address, live, said

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn-fra", ipv4_pool="10.9.0.0/28", ipv6_pool="fd00:9::/120")


def reserve(server: Server, addresses: str, reason: str = "printers") -> AddressRange:
    return reserve_addresses(actor=SYSTEM, server=server, addresses=addresses, reason=reason)


def newcomer(server: Server, name: str = "Dave", pool: str = "") -> Device:
    """A new person with a grant to the server, and a device."""
    person = make_person(name)
    grant_access(actor=SYSTEM, person=person, server=server, reason="work", pool=pool)
    return make_device(person)


def test_reserved_addresses_are_never_given_and_released_ones_are(server: Server) -> None:
    row = reserve(server, "10.9.0.2-10.9.0.5")
    reserve(server, "fd00:9::2-fd00:9::f")
    peer = live(newcomer(server), server)
    assert (address(peer), str(peer.ipv6)) == ("10.9.0.6", "fd00:9::10/128")
    assert said(server)["10.9.0.2 to 10.9.0.5"].startswith("reserved by Console on ")
    assert said(server)["10.9.0.2 to 10.9.0.5"].endswith(": printers")
    release_addresses(actor=SYSTEM, reservation=row, reason="sold")
    assert address(live(newcomer(server), server)) == "10.9.0.2"
    with pytest.raises(ValidationError, match="ended already"):
        release_addresses(actor=SYSTEM, reservation=row, reason="again")


@pytest.mark.parametrize("addresses", ["10.9.0.2", "10.9.0.0/29", "10.9.0.1-10.9.0.2", "10.9.0.0/28"])
def test_what_is_in_the_way_of_a_reservation_is_named(server: Server, addresses: str) -> None:
    make_grant(make_person(), server.environment)
    newcomer(server, "Carol")
    before = AddressRange.objects.count()
    with pytest.raises(ValidationError, match=r"10\.9\.0\.2/32 \(in use by Carol's laptop since 20") as refusal:
        reserve(server, addresses)
    assert list(refusal.value.message_dict) == ["addresses"]
    assert AddressRange.objects.count() == before
    assert reserve(server, "10.9.0.4/30").last.endswith("07")


@pytest.mark.parametrize("addresses", ["10.9.0.16", "10.9.0.14-10.9.0.16", "10.0.0.0/8", "fd00:8::1", "", "x", "::/0"])
def test_what_lies_outside_the_pools_is_not_reserved(server: Server, addresses: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        reserve(server, addresses)
    assert list(refusal.value.message_dict) == ["addresses"]
    assert reserve(server, "10.9.0.14")


def test_many_in_the_way_are_counted(server: Server) -> None:
    for number in range(6):
        newcomer(server, f"Temp {number}")
    with pytest.raises(ValidationError, match=r"Temp 1's laptop since \S+ \S+\), and 4 more\."):
        reserve(server, "10.9.0.0/28")


def test_what_is_no_reservation_is_not_released(server: Server) -> None:
    peer = live(newcomer(server), server)
    with pytest.raises(ValidationError, match="no reservation"):
        release_addresses(actor=SYSTEM, reservation=peer.ipv4, reason="mine")
    peer.ipv4.refresh_from_db()
    assert peer.ipv4.released_at is None


def pool(server: Server, name: str = "temps", **values: str) -> Pool:
    return add_pool(actor=SYSTEM, server=server, name=name, **{"ipv4": "10.9.0.8/29", **values})


def test_a_grant_names_the_pool_and_nobody_else_gets_into_it(server: Server) -> None:
    temps = pool(server, ipv6="fd00:9::80/121")
    anybody, temp = live(newcomer(server), server), live(newcomer(server, pool="temps"), server)
    assert (address(anybody), str(anybody.ipv6)) == ("10.9.0.2", "fd00:9::2/128")
    assert (address(temp), str(temp.ipv6)) == ("10.9.0.8", "fd00:9::80/128")
    for _ in range(5):
        newcomer(server)
    with pytest.raises(PoolExhausted, match=r"^Pool 10\.9\.0\.0/28 of vpn-fra has no free address: widen it"):
        newcomer(server)
    for _ in range(6):
        newcomer(server, pool="temps")
    with pytest.raises(PoolExhausted, match=r"^Pool temps \(10\.9\.0\.8/29\) of vpn-fra has no free address"):
        newcomer(server, pool="temps")
    end_pool(actor=SYSTEM, pool=temps, reason="no temps any more")
    end_grants(actor=SYSTEM, grants=[temp.device.person.grants.get()], reason="over")
    assert AddressRange.objects.filter(server=server, released_at=None, freed_at=None).count() == 2 + 2 * 12
    with pytest.raises(ValidationError, match="ended already"):
        end_pool(actor=SYSTEM, pool=temps, reason="again")


def test_a_pool_that_ended_is_for_anybody_and_moves_nobody(server: Server) -> None:
    temps = pool(server, ipv4="10.9.0.0/29")
    temp, anybody = newcomer(server, pool="temps"), newcomer(server)
    assert (address(live(temp, server)), address(live(anybody, server))) == ("10.9.0.2", "10.9.0.8")
    end_pool(actor=SYSTEM, pool=temps, reason="no temps any more")
    assert (address(live(temp, server)), address(live(anybody, server))) == ("10.9.0.2", "10.9.0.8")
    assert address(live(newcomer(server), server)) == "10.9.0.3"
    assert address(live(make_device(temp.person, "phone"), server)) == "10.9.0.4"


def test_a_new_pool_moves_nobody_out_and_gives_to_no_one_else_what_they_have(server: Server) -> None:
    first = newcomer(server)
    pool(server, ipv4="10.9.0.0/29")
    assert address(live(first, server)) == "10.9.0.2"
    assert address(live(newcomer(server, pool="temps"), server)) == "10.9.0.3"


def test_a_pool_of_one_family_leaves_the_other_to_all(server: Server) -> None:
    pool(server, "sixes", ipv4="", ipv6="fd00:9::80/121")
    peer = live(newcomer(server, pool="sixes"), server)
    assert (address(peer), str(peer.ipv6)) == ("10.9.0.2", "fd00:9::80/128")


def test_a_pool_that_some_servers_have_not_is_no_obstacle_there(server: Server, staging: Environment) -> None:
    pool(server)
    other, person = make_server(staging, "vpn-sgp", ipv4_pool="10.8.0.0/28"), make_person("Dave")
    grant_access(actor=SYSTEM, person=person, environment=staging, reason="work", pool="temps")
    device = make_device(person)
    assert [address(live(device, one)) for one in (server, other)] == ["10.9.0.8", "10.8.0.2"]


def test_a_pool_that_no_server_there_has_is_refused_with_those_that_are_there(
    server: Server, staging: Environment, production: Environment, bob: User
) -> None:
    bare = make_server(staging, "vpn-sgp")
    pool(server), pool(server, "admins", ipv4="10.9.0.4/30")
    pool(make_server(production, ipv4_pool="10.9.0.0/28"), "far")
    end_pool(actor=SYSTEM, pool=pool(server, "old", ipv4="10.9.0.2/31"), reason="no more")
    person, caller, client = make_person(), script(bob), browser(bob)
    before = rows()
    for name in ("tmeps", "far", "old"):
        for kind, place in (("server", server), ("environment", staging)):
            told = {"pool": [f"There is no pool {name} in {place}: use admins, temps, or add it first."]}
            asked = {kind: place.pk, "person": person.pk, "reason": "work", "pool": name}
            assert caller.post("grants", **asked) == (400, told)
            page = client.post(reverse("admin:peers_grant_add"), {**asked, "begins_at_0": "", "begins_at_1": ""})
            assert (page.status_code, told["pool"][0] in page.content.decode()) == (200, True)
    told = {"pool": ["There is no pool temps in vpn-sgp: it has none, so leave this empty, or add it first."]}
    assert caller.post("grants", person=person.pk, server=bare.pk, reason="work", pool="temps") == (400, told)
    assert rows() == before
    assert caller.post("grants", person=person.pk, environment=staging.pk, reason="work", pool="temps")[0] == 201


@pytest.mark.parametrize(
    ("values", "field", "mend"),
    [
        ({"ipv4": "10.9.0.12/30"}, "ipv4", "It overlaps the pool temps, 10.9.0.8/29."),
        ({"ipv4": "10.9.0.0/28"}, "ipv4", "It overlaps the pool temps, 10.9.0.8/29."),
        ({"ipv4": "10.9.0.0/27"}, "ipv4", "Give a part of the server's pool 10.9.0.0/28, not 10.9.0.0/27."),
        ({"ipv4": "10.8.0.0/30"}, "ipv4", "Give a part of the server's pool 10.9.0.0/28, not 10.8.0.0/30."),
        ({"ipv4": "10.9.0.1/29"}, "ipv4", "Write '10.9.0.1/29' as '10.9.0.0/29'."),
        ({"ipv4": "fd00:9::/121"}, "ipv4", None),
        ({"ipv6": "10.9.0.0/30"}, "ipv6", None),
        ({}, "ipv4", "Give a part of the server's IPv4 pool, of its IPv6 pool, or of both."),
        ({"name": "temps", "ipv4": "10.9.0.0/30"}, "name", "vpn-fra has a pool of this name already: choose another."),
        ({"name": "Temps", "ipv4": "10.9.0.0/30"}, "name", None),
    ],
)
def test_a_pool_that_cannot_be_is_refused_at_its_field(
    server: Server, values: dict[str, Any], field: str, mend: str | None
) -> None:
    pool(server)
    with pytest.raises(ValidationError) as refusal:
        add_pool(actor=SYSTEM, server=server, **{"name": "other", **values})
    assert list(refusal.value.message_dict) == [field]
    assert mend is None or refusal.value.message_dict[field] == [mend]
    assert Pool.objects.count() == 1
    add_pool(actor=SYSTEM, server=server, name="other", ipv4="10.9.0.4/30")


def test_what_rests_is_given_to_nobody_else(server: Server) -> None:
    device = newcomer(server, "Carol")
    end_grants(actor=SYSTEM, grants=[device.person.grants.get()], reason="over")
    assert address(live(newcomer(server), server)) == "10.9.0.3"
    text = said(server)["10.9.0.2/32"]
    assert text.startswith(
        "rests, as vpn-fra has not confirmed that Carol's laptop is gone; Carol's laptop was withdrawn "
    )
    with pytest.raises(ValidationError, match="not confirmed that Carol's laptop is gone"):
        reserve(server, "10.9.0.2")
    assert Peer.objects.filter(ended_at=None).count() == 1
