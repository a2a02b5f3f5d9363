"""Which Devices belong on which Servers, from open Grants. `wanted_peers` is the one place that says so."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from fleet.models import Server
from peers.models import Device, Grant


@dataclass(frozen=True)
class Terms:
    """What one peer may carry and until when; no networks means everything, no end means none."""

    networks: tuple[str, ...]
    expires_at: dt.datetime | None


def open_grants(now: dt.datetime) -> QuerySet[Grant]:
    return Grant.objects.filter(Q(until=None) | Q(until__gt=now), ended_at=None, began_at__lte=now)


def wanted_peers(devices: Iterable[Device], now: dt.datetime) -> dict[tuple[int, int], Terms]:
    """(device, server) -> Terms, in three queries however many devices there are."""
    devices = [device for device in devices if device.revoked_at is None]
    grants = list(open_grants(now).filter(person__in={device.person_id for device in devices}))
    servers = _servers_by_environment({grant.environment_id for grant in grants if grant.environment_id})
    per_person: defaultdict[tuple[int, int], list[Grant]] = defaultdict(list)
    for grant in grants:
        places = [grant.server_id] if grant.server_id else servers[grant.environment_id]
        for server_id in places:
            per_person[grant.person_id, server_id].append(grant)
    return {
        (device.pk, server_id): merge_terms(held)
        for device in devices
        for (person_id, server_id), held in per_person.items()
        if person_id == device.person_id
    }


def merge_terms(grants: list[Grant]) -> Terms:
    """The widest of several grants to one place: every network, the latest end."""
    unlimited = any(not grant.networks for grant in grants)
    networks = set() if unlimited else {network for grant in grants for network in grant.networks}
    ends = [grant.until for grant in grants]
    latest = None if None in ends else max(end for end in ends if end)
    return Terms(tuple(sorted(networks)), latest)


def _servers_by_environment(environments: set[int]) -> defaultdict[int | None, list[int]]:
    found: defaultdict[int | None, list[int]] = defaultdict(list)
    for pk, environment in Server.objects.filter(environment__in=environments).values_list("pk", "environment"):
        found[environment].append(pk)
    return found
