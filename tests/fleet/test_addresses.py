"""One address, one peer: what is never given, what the database refuses, what a full pool does, and the rest."""

import datetime as dt
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Server
from fleet.pools import PoolExhausted, from_hex, gateway, to_hex, usable
from fleet.services import change_server
from nodes.chores import release_rested
from peers.due import settle_due, settle_placements
from peers.granting import end_grants, grant_access
from peers.models import Device, Grant, Peer
from peers.revocation import revoke_devices
from peers.services import register_device
from tests.build import make_device, make_grant, make_peers, make_person, make_server, new_public_key

pools = st.one_of(
    st.integers(8, 30).flatmap(lambda p: st.integers(0, 2**p - 1).map(lambda n: IPv4Network((n << (32 - p), p)))),
    st.integers(120, 126).flatmap(lambda p: st.integers(1, 2**30).map(lambda n: IPv6Network((n << (128 - p), p)))),
)


@given(pools)
def test_hex_digits_sort_and_read_back_as_the_addresses_do(pool: IPv4Network) -> None:
    low, high = pool[0], pool[-1]
    assert (from_hex(to_hex(low)), from_hex(to_hex(high))) == (low, high)
    assert to_hex(low) < to_hex(high)
    assert len(to_hex(gateway(pool))) == 32
    assert usable(pool)[0] == int(to_hex(low), 16) + 1


SMALL = {"ipv4_pool": "10.9.0.0/30", "ipv6_pool": "fd00:9::/126"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pools", "full", "room"),
    [
        ({"ipv4_pool": "10.9.0.0/30"}, "10.9.0.0/30", 1),
        ({"ipv6_pool": "fd00:9::/126"}, "fd00:9::/126", 2),
    ],
)
def test_a_full_pool_is_a_clear_refusal_and_changes_nothing(
    staging: Environment, pools: dict[str, str], full: str, room: int
) -> None:
    server = make_server(staging, **pools)
    for _ in range(room):
        person = make_person()
        make_grant(person, staging)
        make_device(person)
    late = make_person("Too Late")
    make_grant(late, staging)
    before = (Device.objects.count(), AddressRange.objects.count(), Event.objects.count())
    with pytest.raises(PoolExhausted) as refusal:
        make_device(late)
    assert str(refusal.value) == (
        f"Pool {full} of {server} has no free address: widen it, or wait until released ones have rested."
    )
    assert (Device.objects.count(), AddressRange.objects.count(), Event.objects.count()) == before
    assert Peer.objects.filter(server=server).count() == room


@pytest.mark.django_db
def test_a_full_pool_elsewhere_does_not_stand_against_the_end_of_access(
    staging: Environment, production: Environment
) -> None:
    make_server(staging)
    person = make_person()
    make_grant(person, staging)
    first, second = make_device(person), make_device(person, "phone")
    make_grant(person, production)
    full = make_server(production, **SMALL)
    assert settle_placements() == {
        full.pk: f"Pool 10.9.0.0/30 of {full} has no free address: widen it, or wait until released ones have rested."
    }
    end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(environment=staging)), reason="over")
    assert not Peer.objects.filter(ended_at=None, device__in=[first, second]).exists()
    revoke_devices(actor=SYSTEM, devices=[first], reason="gone")
    assert settle_due() == {}
    assert list(Peer.objects.filter(ended_at=None).values_list("device", "server")) == [(second.pk, full.pk)]


def insert(server: Server, first: str, last: str, released: bool = False) -> None:
    """As anybody with the database's password could."""
    sql = (
        "INSERT INTO fleet_addressrange (server_id, first, last, kind, reason, taken_by, taken_at, released_at)"
        " VALUES (%s, %s, %s, 'peer', '', '', %s, %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [server.pk, first, last, timezone.now(), timezone.now() if released else None])


def text(number: int) -> str:
    return f"{number:032x}"


@pytest.mark.django_db
@pytest.mark.parametrize(("first", "last"), [(100, 200), (150, 150), (50, 100), (200, 300), (1, 999), (100, 100)])
def test_the_database_itself_refuses_overlap(staging: Environment, first: int, last: int) -> None:
    server, other = make_server(staging), make_server(staging)
    insert(server, text(100), text(200))
    with pytest.raises(DatabaseError), transaction.atomic():
        insert(server, text(first), text(last))
    insert(server, text(first), text(last), released=True)
    insert(other, text(first), text(last))
    insert(server, text(1000), text(1001))
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE fleet_addressrange SET released_at = NULL WHERE server_id = %s", [server.pk])
    with pytest.raises(DatabaseError), transaction.atomic():
        AddressRange.objects.filter(server=server, first=text(1000)).update(first=text(first), last=text(last))


@pytest.mark.django_db
@pytest.mark.parametrize(("first", "last"), [(text(2), text(1)), ("0" * 31, "0" * 32), ("A" * 32, "f" * 32)])
def test_the_database_refuses_what_is_no_range(staging: Environment, first: str, last: str) -> None:
    server = make_server(staging)
    with pytest.raises(DatabaseError), transaction.atomic():
        insert(server, first, last)
    insert(server, text(1), text(2))


@pytest.mark.django_db
def test_a_freed_address_rests_until_its_time_and_its_proof(staging: Environment) -> None:
    make_server(staging, **SMALL)
    person = make_person()
    grant = make_grant(person, staging)
    device = make_device(person)
    end_grants(actor=SYSTEM, grants=[grant], reason="over")
    newcomer = make_person("Next")
    make_grant(newcomer, staging)

    def is_free() -> bool:
        release_rested()
        try:
            with transaction.atomic():
                register_device(actor=SYSTEM, person=newcomer, name="x", public_key=new_public_key())
        except PoolExhausted:
            return False
        return True

    peers = Peer.objects.filter(device=device)
    assert not is_free()
    peers.update(gone_at=timezone.now())
    assert not is_free()
    day = timezone.now() - dt.timedelta(hours=25)
    AddressRange.objects.exclude(freed_at=None).update(freed_at=day)
    peers.update(gone_at=None)
    assert not is_free()
    peers.update(gone_at=timezone.now())
    assert is_free()
    address = Peer.objects.get(ended_at=None).ipv4
    assert str(address) == "10.9.0.2/32"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value", "mend"),
    [
        ("ipv4_pool", "10.9.0.1/24", "Write '10.9.0.1/24' as '10.9.0.0/24'."),
        ("ipv4_pool", "10.9.0.0/31", "Give an IPv4 network from /8 to /30, such as 10.1.0.0/16."),
        ("ipv4_pool", "fd00::/64", "Give an IPv4 network from /8 to /30, such as 10.1.0.0/16."),
        ("ipv6_pool", "fd00::/127", "Give an IPv6 network from /32 to /126, such as fd00:1::/64."),
        ("ipv6_pool", "::ffff:10.0.0.0/120", "Write '::ffff:10.0.0.0/120' as '::ffff:a00:0/120'."),
        ("ipv6_pool", "::ffff:a00:0/120", "'::ffff:a00:0/120' is an IPv4 network inside IPv6: write it as IPv4."),
        ("dns", ["dns.google, 1.1.1.1"], "'dns.google, 1.1.1.1' is not an address: give one such as 10.0.0.53."),
        ("dns", ["10.0.0.53/32"], "'10.0.0.53/32' is not an address: give one such as 10.0.0.53."),
        ("dns", ["fd00::0:53"], "Write 'fd00::0:53' as 'fd00::53'."),
        ("dns", ["::ffff:a00:35"], None),
        ("dns", ["fe80::1%eth0"], None),
        ("ipv4_pool", "010.9.0.0/16", None),
        ("ipv4_pool", "10.9.0.0/16\n", None),
    ],
)
def test_a_pool_or_address_that_is_none_is_refused_with_the_mend(
    staging: Environment, field: str, value: Any, mend: str | None
) -> None:
    with pytest.raises(ValidationError) as refusal:
        make_server(staging, **{field: value})
    assert list(refusal.value.message_dict) == [field]
    if mend:
        assert refusal.value.message_dict[field] == [mend]
    assert not Server.objects.exists()
    assert make_server(staging, ipv4_pool="10.9.0.0/30").pool4 == ip_network("10.9.0.0/30")


@pytest.mark.django_db
def test_a_grant_to_a_full_server_is_refused_whole(staging: Environment) -> None:
    server = make_server(staging, **SMALL)
    person = make_person()
    make_device(person)
    make_device(person, "phone")
    with pytest.raises(PoolExhausted):
        grant_access(actor=SYSTEM, person=person, server=server, reason="both")
    assert (Grant.objects.count(), Peer.objects.count()) == (0, 0)


def test_a_pool_out_of_which_addresses_were_given_stays_what_it_is(staging: Environment) -> None:
    server = make_server(staging, is_set_up=False, ipv4_pool="10.200.0.0/24", ipv6_pool="fd00:200::/64")
    make_peers(staging, 8)
    for pools in ({"ipv4_pool": "10.200.0.8/29"}, {"ipv6_pool": "fd00:201::/64"}):
        with pytest.raises(ValidationError) as refusal:
            change_server(actor=SYSTEM, server=Server.objects.get(), **pools)
        assert list(refusal.value.message_dict) == list(pools)
    server.refresh_from_db()
    assert (server.ipv4_pool, server.ipv6_pool) == ("10.200.0.0/24", "fd00:200::/64")


def test_the_servers_own_address_follows_its_pool(staging: Environment) -> None:
    server = make_server(staging, is_set_up=False, ipv4_pool="10.200.0.0/24")
    change_server(actor=SYSTEM, server=server, ipv4_pool="10.201.0.0/24")
    taken = AddressRange.objects.filter(server=server, released_at=None)
    assert {str(row) for row in taken if row.is_ipv4} == {"10.201.0.1/32"}
