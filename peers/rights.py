"""What the database says of people's rights, now as at any time before: Grants, Memberships and Placements."""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from django.db.models import Q, QuerySet

from fleet.models import Placement
from peers.entitlement import Right
from peers.models import Grant, Membership

Rights = dict[int, dict[int, list[Right]]]  # person -> server -> rights


def lasted(at: dt.datetime, begin: str = "began_at") -> Q:
    """Intervals that were open at a time."""
    return Q(Q(ended_at=None) | Q(ended_at__gt=at), **{f"{begin}__lte": at})


def open_grants(at: dt.datetime) -> QuerySet[Grant]:
    return Grant.objects.filter(lasted(at, "begins_at"), Q(until=None) | Q(until__gt=at))


def open_memberships(at: dt.datetime) -> QuerySet[Membership]:
    return Membership.objects.filter(lasted(at), Q(until=None) | Q(until__gt=at))


def grants_of(people: Collection[int], at: dt.datetime) -> QuerySet[Grant]:
    """Open grants to these people, or to teams that they are in."""
    teams = open_memberships(at).filter(person__in=people).values("team")
    return open_grants(at).filter(Q(person__in=people) | Q(team__in=teams))


def holders_of(grants: Iterable[Grant], at: dt.datetime) -> set[int]:
    """The people who have these grants, by themselves or by a team."""
    grants = list(grants)
    people = {grant.person_id for grant in grants if grant.person_id}
    teams = {grant.team_id for grant in grants if grant.team_id}
    members = open_memberships(at).filter(team__in=teams).values_list("person", flat=True) if teams else ()
    return people | set(members)


def rights_of(people: Collection[int], at: dt.datetime, on: Collection[int] | None = None) -> Rights:
    """`on` names the servers that are looked at, where not all are. Three queries, however many people there are."""
    found: Rights = defaultdict(lambda: defaultdict(list))
    for person, server, held in _held(grants_of(people, at), people, at, on):
        found[person][server].append(held.right)
    return found


class Holding(NamedTuple):
    """One grant as one person has it on one server: until when, and in which time zone its hours are."""

    grant: Grant
    until: dt.datetime | None
    zone: str

    @property
    def right(self) -> Right:
        grant = self.grant
        return Right(tuple(grant.networks), self.until, grant.hours, self.zone, grant.pool)


def holdings_of(
    people: Collection[int], at: dt.datetime, on: Collection[int] | None = None
) -> dict[tuple[int, int], list[Holding]]:
    """(person, server) -> the grants that give the right; like `rights_of`, with where it comes from."""
    found: defaultdict[tuple[int, int], list[Holding]] = defaultdict(list)
    for person, server, held in _held(grants_of(people, at).select_related("team", "moved_from"), people, at, on):
        found[person, server].append(held)
    return found


def _held(
    rows: QuerySet[Grant], people: Collection[int], at: dt.datetime, on: Collection[int] | None
) -> Iterator[tuple[int, int, Holding]]:
    grants = list(rows.order_by("pk"))
    members = _members(grants, people, at)
    servers, zones = _places(grants, at, on)
    for grant in grants:
        places = servers[grant.environment_id] if grant.environment_id else [grant.server_id or 0]
        held = [(grant.person_id, grant.until)] if grant.person_id else members[grant.team_id]
        for server in set(places) & zones.keys():
            for person, member_until in held:
                until = min((end for end in (grant.until, member_until) if end), default=None)
                yield person, server, Holding(grant, until, zones[server])


def _members(
    grants: list[Grant], people: Collection[int], at: dt.datetime
) -> defaultdict[int | None, list[tuple[int, dt.datetime | None]]]:
    found: defaultdict[int | None, list[tuple[int, dt.datetime | None]]] = defaultdict(list)
    teams = {grant.team_id for grant in grants if grant.team_id}
    rows = open_memberships(at).filter(team__in=teams, person__in=people).order_by("pk")
    for team, person, until in rows.values_list("team", "person", "until"):
        found[team].append((person, until))
    return found


def _places(
    grants: list[Grant], at: dt.datetime, on: Collection[int] | None
) -> tuple[defaultdict[int | None, list[int]], dict[int, str]]:
    """The servers of each environment at that time, and each server's time zone."""
    environments = {grant.environment_id for grant in grants if grant.environment_id}
    alone = {grant.server_id for grant in grants if grant.server_id}
    rows = Placement.objects.filter(lasted(at), Q(environment__in=environments) | Q(server__in=alone))
    if on is not None:
        rows = rows.filter(server__in=on)
    servers: defaultdict[int | None, list[int]] = defaultdict(list)
    zones: dict[int, str] = {}
    for server, environment, zone in rows.values_list("server", "environment", "environment__time_zone"):
        servers[environment].append(server)
        zones[server] = zone
    return servers, zones
