"""Who has access to what, now or at any time before: from intervals alone.

Grants, memberships and placements say who should have had it; rows of Peer say who had. A row tells both, and where
they differ. What is looked at first are pairs of ids, of the whole fleet if need be; only a page's rows are read whole.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from django.db.models import Q

from fleet.models import Placement
from fleet.scope import Scope
from peers.asked import refuse_future
from peers.history_rows import AccessRow, Place, Spot, access_rows, peers_at
from peers.models import Device, Person
from peers.rights import lasted, open_grants, open_memberships

MOST_ROWS = 1000
Row = TypeVar("Row")
Key = TypeVar("Key")


@dataclass(frozen=True)
class Answer(Generic[Key, Row]):
    """All rows of an answer, of which those that are shown are read: a page, or page after page."""

    keys: Sequence[Key]
    load: Callable[[Sequence[Key]], list[Row]]

    def __len__(self) -> int:
        return len(self.keys)

    def page(self, offset: int = 0, limit: int = MOST_ROWS) -> list[Row]:
        chosen = self.keys[offset : offset + min(limit, MOST_ROWS)]
        return self.load(chosen) if chosen else []

    def __iter__(self) -> Iterator[Row]:
        for offset in range(0, len(self.keys), MOST_ROWS):
            yield from self.page(offset)


def access_at(
    at: dt.datetime,
    scope: Scope,
    *,
    is_now: bool = False,
    environment: int | None = None,
    server: int | None = None,
    team: int | None = None,
    person: int | None = None,
) -> Answer[Spot, AccessRow]:
    """Each device on each server that `scope` sees: who had access at that time, who was kept out, whose peer was
    pending, and who had a right without a device or a peer; `is_now` where `at` is no time of the past, and what the
    servers were read back with is told too. The rest narrows it, by ids."""
    refuse_future(at)
    places = places_at(at, scope, environment=environment, server=server)
    people = people_at(at, team=team, person=person)
    entitled = entitled_at(at, places, holders_at(at).values())
    spots = in_order(_spots(at, places, people, entitled), places, people)
    return Answer(spots, lambda chosen: access_rows(at, chosen, places, is_now))


def places_at(
    at: dt.datetime, scope: Scope, *, environment: int | None = None, server: int | None = None
) -> dict[int, Place]:
    """Servers by the environment that they were in; both that one and the present one are seen."""
    rows = scope.of(scope.of(Placement.objects.filter(lasted(at))), "server__environment")
    rows = rows.filter(environment=environment) if environment is not None else rows
    rows = rows.filter(server=server) if server is not None else rows
    found = rows.values_list("server", "server__name", "environment", "environment__name")
    return {one[0]: Place(*one) for one in found}


@dataclass
class Individual:
    """A person as far as the order of rows and their entitlement need it, with devices by id."""

    name: str
    left_at: dt.datetime | None
    devices: dict[int, tuple[str, dt.datetime | None]] = field(default_factory=dict)

    def live_devices(self, at: dt.datetime) -> list[int]:
        return [pk for pk, (_, revoked_at) in self.devices.items() if revoked_at is None or revoked_at > at]


def people_at(at: dt.datetime, *, team: int | None = None, person: int | None = None) -> dict[int, Individual]:
    chosen = Q()
    if person is not None:
        chosen &= Q(pk=person)
    if team is not None:
        chosen &= Q(pk__in=open_memberships(at).filter(team=team).values("person"))
    rows = Person.objects.filter(chosen)
    found = {pk: Individual(name, left_at) for pk, name, left_at in rows.values_list("pk", "name", "left_at")}
    devices = Device.objects.filter(created_at__lte=at)
    devices = devices.filter(person__in=rows.values("pk")) if chosen else devices
    for key, owner, label, revoked_at in devices.order_by().values_list("pk", "person", "name", "revoked_at"):
        if owner in found:
            found[owner].devices[key] = label, revoked_at
    return found


Holder = tuple[int | None, int | None, int | None, int | None]  # a grant's person, team, environment, server


def holders_at(at: dt.datetime) -> dict[int, Holder]:
    """Whom each grant lets in where."""
    rows = open_grants(at).order_by().values_list("pk", "person", "team", "environment", "server")
    return {pk: (person, team, environment, server) for pk, person, team, environment, server in rows}


def entitled_at(at: dt.datetime, places: dict[int, Place], grants: Iterable[Holder]) -> dict[int, set[int]]:
    """Server -> the people that these grants let in there, by themselves or by a team."""
    members: defaultdict[int | None, set[int]] = defaultdict(set)
    for team_id, member in open_memberships(at).order_by().values_list("team", "person"):
        members[team_id].add(member)
    by_environment: defaultdict[int | None, set[int]] = defaultdict(set)
    by_server: defaultdict[int | None, set[int]] = defaultdict(set)
    for person, team, environment, server in set(grants):
        held = by_environment[environment] if environment is not None else by_server[server]
        held |= {person} if person is not None else members[team]
    return {pk: by_environment[place.environment_id] | by_server[pk] for pk, place in places.items()}


def _spots(
    at: dt.datetime, places: dict[int, Place], people: dict[int, Individual], entitled: dict[int, set[int]]
) -> set[Spot]:
    owners = owners_of(people)
    had = had_at(at, places, owners)
    found = {Spot(owners[device], device, server) for device, server in had}
    for server, held in entitled.items():
        for person in held & people.keys():
            one = people[person]
            if one.left_at is not None and one.left_at <= at:
                continue
            devices = one.live_devices(at)
            found |= {Spot(person, device, server) for device in devices if (device, server) not in had}
            if not devices:
                found.add(Spot(person, None, server))
    return found


def owners_of(people: dict[int, Individual]) -> dict[int, int]:
    return {device: person for person, one in people.items() for device in one.devices}


def had_at(at: dt.datetime, places: dict[int, Place], owners: dict[int, int]) -> set[tuple[int, int]]:
    rows = peers_at(at)
    rows = rows.filter(server__in=places) if len(places) < 20 else rows
    rows = rows.filter(device__in=owners) if len(owners) < 200 else rows
    pairs = set(rows.values_list("device", "server"))
    return {pair for pair in pairs if pair[0] in owners and pair[1] in places}


def in_order(spots: Collection[Spot], places: dict[int, Place], people: dict[int, Individual]) -> list[Spot]:
    """By person, device and server: names first, ids so that the order is the same each time."""
    by_name = sorted(places, key=lambda pk: places[pk].server)
    servers = {pk: number for number, pk in enumerate(by_name)}
    ranks: dict[tuple[int, int | None], int] = {}
    for person in sorted(people, key=lambda pk: (people[pk].name, pk)):
        devices = people[person].devices
        slots: list[int | None] = [None, *sorted(devices, key=lambda pk: (devices[pk][0], pk))]
        for device in slots:
            ranks[person, device] = len(ranks) * len(servers)
    return sorted(spots, key=lambda spot: ranks[spot[:2]] + servers[spot[2]])
