"""What one person has, now or at any time before, and how it came about: from intervals, and Events for why."""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q, QuerySet

from audit.models import Event
from fleet.scope import scope_of
from peers.access import visible_grants, visible_peers, visible_revocations
from peers.history import MOST_ROWS, Answer, access_at
from peers.history_rows import AccessRow, Spot
from peers.models import AccessRequest, Device, Grant, Membership, Peer, Person, Revocation, Suspension
from peers.rights import open_grants


@dataclass(frozen=True)
class Step:
    """One line of a person's story."""

    at: dt.datetime
    what: str
    whose: str
    where: str = ""
    by: str = ""
    reason: str = ""
    row: Model | None = None


@dataclass(frozen=True)
class Dossier:
    person: Person
    access: Answer[Spot, AccessRow]
    memberships: list[Membership]
    grants: list[Grant]
    later: list[Grant]
    requests: list[AccessRequest]
    devices: list[Device]
    suspensions: list[Suspension]
    revocations: list[Revocation]
    timeline: list[Step]


def dossier_of(at: dt.datetime, user: object, person: Person, *, is_now: bool = False) -> Dossier:
    """Of what the user sees. The timeline ends at that time, newest first."""
    access = access_at(at, scope_of(user), is_now=is_now, person=person.pk)
    been = list(Membership.objects.filter(person=person, began_at__lte=at).select_related("team", "person"))
    members = [one for one in been if _lasts(one, at)]
    ever = visible_grants(user).filter(Q(person=person) | Q(team__in=[one.team_id for one in been]))
    held = ever.filter(Q(person=person) | Q(team__in=[one.team_id for one in members]))
    suspended = list(_suspensions(user, person).filter(began_at__lte=at).order_by("began_at"))
    revoked = list(visible_revocations(user).filter(person=person, created_at__lte=at))
    devices = list(person.devices.filter(created_at__lte=at))
    steps = chain(
        _of_peers(visible_peers(user).filter(device__person=person, issued_at__lte=at)),
        _of_grants(ever.filter(person=person, begins_at__lte=at)),
        *(_of_suspensions(suspended), _of_memberships(been), _of_devices(devices), _of_revocations(revoked)),
    )
    return Dossier(
        person=person,
        access=access,
        memberships=members,
        grants=list(held.filter(pk__in=open_grants(at).values("pk"))),
        later=_later(at, held),
        requests=list(_requests(at, user, person)),
        devices=devices,
        suspensions=[one for one in suspended if one.ended_at is None or one.ended_at > at],
        revocations=revoked,
        timeline=_newest(step for step in steps if step.at <= at),
    )


def _newest(steps: Iterable[Step]) -> list[Step]:
    return sorted(steps, key=lambda step: step.at, reverse=True)[:MOST_ROWS]


def _lasts(one: Membership, at: dt.datetime) -> bool:
    return all(end is None or end > at for end in (one.ended_at, one.until))


def _later(at: dt.datetime, grants: QuerySet[Grant]) -> list[Grant]:
    """Given by then, to begin after it. When a grant was given only its Event says."""
    rows = grants.filter(Q(ended_at=None) | Q(ended_at__gt=at), begins_at__gt=at).select_related("goes_on_from")
    kind = ContentType.objects.get_for_model(Grant)
    given = Event.objects.filter(content_type=kind, object_pk__in=[str(one.pk) for one in rows], timestamp__lte=at)
    known = set(given.values_list("object_pk", flat=True))
    return [one for one in rows if str(one.pk) in known or _went_on(one, at)]


def _went_on(grant: Grant, at: dt.datetime) -> bool:
    """Whether it had got its end by then: when the one before it was ended."""
    before = grant.goes_on_from
    return before is not None and before.ended_at is not None and before.ended_at <= at


def _requests(at: dt.datetime, user: object, person: Person) -> QuerySet[AccessRequest]:
    sees = scope_of(user).sees
    rows = AccessRequest.objects.filter(Q(decided_at=None) | Q(decided_at__gt=at), person=person, created_at__lte=at)
    rows = rows.select_related("person", "environment", "server__environment")
    return rows if sees is None else rows.filter(Q(environment__in=sees) | Q(server__environment__in=sees))


def _suspensions(user: object, person: Person) -> QuerySet[Suspension]:
    """Of the person, their devices, and those of their peers that the user sees."""
    peers = visible_peers(user).filter(device__person=person).values("pk")
    rows = Suspension.objects.filter(Q(person=person) | Q(device__person=person) | Q(peer__in=peers))
    return rows.select_related("person", "device__person", "peer__device__person", "peer__server", "origin")


def _of_peers(peers: Iterable[Peer]) -> Iterator[Step]:
    peers = list(peers)
    acts = Event.objects.filter(act__in={one.ended_act for one in peers if one.ended_act})
    why = {act: (by, reason) for act, by, reason in acts.values_list("act", "actor_label", "reason")}
    for one in peers:
        yield Step(one.issued_at, "peer issued", one.device.name, one.server.name, one.issued_by, "", one)
        if one.ended_at:
            by, reason = why.get(one.ended_act, ("", ""))
            yield Step(one.ended_at, f"peer {one.end}", one.device.name, one.server.name, by, reason, one)
        if one.gone_at and one.gone_at != one.ended_at:  # else nothing was looked at: the server never was set up
            yield Step(one.gone_at, "peer seen gone", one.device.name, one.server.name, "", "", one)


def _of_suspensions(rows: Iterable[Suspension]) -> Iterator[Step]:
    for one in rows:
        what = "still suspended" if one.origin_id else "suspended"
        yield Step(one.began_at, what, str(one.target), "", one.suspended_by, one.reason)
        if one.ended_at and one.ended_by:
            yield Step(one.ended_at, "resumed", str(one.target), "", one.ended_by)


def _of_memberships(rows: Iterable[Membership]) -> Iterator[Step]:
    rows = list(rows)
    going_on = {one.goes_on_from_id for one in rows}
    for one in rows:
        what = "other end in a team" if one.goes_on_from_id else "joined a team"
        yield Step(one.began_at, what, one.team.name, "", one.added_by, one.end_reason, one.team)
        ends = [end for end in (one.ended_at, one.until) if end]
        if ends and one.pk not in going_on:
            yield Step(min(ends), "left a team", one.team.name, "", "", "", one.team)


def _of_grants(rows: Iterable[Grant]) -> Iterator[Step]:
    rows = list(rows)
    going_on = {one.goes_on_from_id for one in rows}
    for one in rows:
        what = "access moved" if one.moved_from_id else "access granted"
        what = "other end of access" if one.goes_on_from_id else what
        place, why = str(one.environment or one.server), one.end_reason or one.reason
        yield Step(one.begins_at, what, str(one.holder), place, one.granted_by, why, one)
        ends = [end for end in (one.ended_at, one.until) if end]
        if ends and one.pk not in going_on:
            yield Step(min(ends), "access ended", str(one.holder), place, "", "", one)


def _of_devices(rows: Iterable[Device]) -> Iterator[Step]:
    for one in rows:
        yield Step(one.created_at, "device registered", one.name, "", "", "", one)
        if one.revoked_at:
            yield Step(one.revoked_at, "key tombstoned", one.name, "", "", one.public_key, one)


def _of_revocations(rows: Iterable[Revocation]) -> Iterator[Step]:
    for one in rows:
        yield Step(one.created_at, "revoked", one.label, "", one.revoked_by, one.reason, one)
