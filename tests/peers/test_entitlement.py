"""Who is wanted where: the query against a model that is too simple to be wrong."""

import datetime as dt
import itertools

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.services import SYSTEM
from fleet.models import Environment, Placement, Server
from peers.due import settle_placements
from peers.entitlement import Terms, wanted_peers
from peers.models import Device, Grant, Peer
from peers.rights import rights_of
from tests.build import make_device, make_person, make_server

pytestmark = pytest.mark.django_db
NOW = timezone.now()
NETWORKS = ["10.0.0.0/8", "192.0.2.0/24", "fd00::/8"]
hours = st.integers(-3, 3).map(lambda h: NOW + dt.timedelta(hours=h))
grants = st.lists(
    st.fixed_dictionaries(
        {
            "person": st.integers(0, 1),
            "place": st.integers(0, 4),  # two environments, then three servers
            "networks": st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True),
            "begins_at": hours,
            "until": st.none() | hours,
            "ended_at": st.none() | hours,
        }
    ),
    max_size=8,
)


def wanted(devices: list[Device], at: dt.datetime) -> dict[tuple[int, int], Terms]:
    spots = [(device.pk, device.person_id) for device in devices if device.revoked_at is None]
    return wanted_peers(spots, rights_of({person for _, person in spots}, at), at)


def naive(devices: list[Device], servers: list[Server]) -> dict[tuple[int, int], Terms]:
    found = {}
    for device, server in itertools.product(devices, servers):
        held = [
            grant
            for grant in Grant.objects.all()
            if grant.person_id == device.person_id
            and (grant.server_id == server.pk or grant.environment_id == server.environment_id)
            and grant.begins_at <= NOW
            and (grant.ended_at is None or grant.ended_at > NOW)
            and (grant.until is None or grant.until > NOW)
        ]
        if held and device.revoked_at is None:
            networks = sorted({network for grant in held for network in grant.networks})
            is_everything = any(grant.networks == [] for grant in held)
            ends = [grant.until for grant in held]
            end = None if None in ends else max(until for until in ends if until)
            found[device.pk, server.pk] = Terms(() if is_everything else tuple(networks), end)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_grants=grants, revoked=st.sets(st.integers(0, 2)))
def test_wanted_peers_are_those_that_a_naive_model_wants(
    staging: Environment, production: Environment, given_grants: list[dict[str, object]], revoked: set[int]
) -> None:
    with transaction.atomic():
        places = [staging, production]
        servers = [make_server(staging), make_server(staging), make_server(production)]
        people = [make_person("Ann"), make_person("Ben")]
        devices = [make_device(people[0]), make_device(people[0], "phone"), make_device(people[1])]
        for number in revoked:
            devices[number].revoked_at = NOW
        for values in given_grants:
            person, place = people[int(str(values.pop("person")))], int(str(values.pop("place")))
            where = {"environment": places[place]} if place < 2 else {"server": servers[place - 2]}
            Grant.objects.create(person=person, granted_by="x", reason="x", **where, **values)
        Placement.objects.update(began_at=NOW)
        assert wanted(devices, NOW) == naive(devices, servers)
        transaction.set_rollback(True)


def test_a_grant_counts_from_its_first_moment_and_not_at_its_last(staging: Environment) -> None:
    server, person = make_server(staging), make_person()
    device = make_device(person)
    Grant.objects.create(person=person, server=server, begins_at=NOW, until=NOW + dt.timedelta(hours=1), reason="x")
    Placement.objects.update(began_at=NOW - dt.timedelta(hours=1))
    assert set(wanted([device], NOW)) == {(device.pk, server.pk)}
    assert wanted([device], NOW - dt.timedelta(microseconds=1)) == {}
    assert wanted([device], NOW + dt.timedelta(hours=1)) == {}


def test_a_server_that_is_new_in_its_environment_gets_its_peers_from_the_sweep(staging: Environment) -> None:
    person = make_person()
    Grant.objects.create(person=person, environment=staging, reason="x")
    device = make_device(person)
    server = make_server(staging)
    assert not Peer.objects.exists()
    settle_placements()
    settle_placements()
    peer = Peer.objects.get()
    assert (peer.device, peer.server, peer.issued_by) == (device, server, str(SYSTEM))
