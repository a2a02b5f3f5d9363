"""What the database says of people's rights, now as at any time before: Grants, Memberships and Placements."""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable

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
    grants = list(grants_of(people, at).order_by("pk"))
    members = _members(grants, people, at)
    servers, zones = _places(grants, at, on)
    found: Rights = defaultdict(lambda: defaultdict(list))
    for grant in grants:
        places = servers[grant.environment_id] if grant.environment_id else [grant.server_id or 0]
        held = [(grant.person_id, grant.until)] if grant.person_id else members[grant.team_id]
        for server in set(places) & zones.keys():
            for person, until in held:
                found[person][server].append(_right(grant, until, zones[server]))
    return found


def _right(grant: Grant, member_until: dt.datetime | None, zone: str) -> Right:
    until = min((end for end in (grant.until, member_until) if end), default=None)
    return Right(tuple(grant.networks), until, grant.hours, zone, grant.pool)


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
