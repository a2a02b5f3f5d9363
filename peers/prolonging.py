"""Another end for what somebody has: later, or earlier. The old row ends and a new one goes on from it, in one act; the
peers stay the rows that they are, with another end, so that no address, preshared key or packet is lost."""

import datetime as dt
from collections.abc import Sequence
from typing import TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from peers.granting import check_grant, lock_teams, servers_of
from peers.models import Grant, Membership
from peers.rights import holders_of
from peers.services import who_stay
from peers.settle import Ending, lock_people, settle
from peers.teams import check_end, environments_of

Row = TypeVar("Row", Grant, Membership)


def prolong_memberships(
    *, actor: Actor, memberships: Sequence[Membership], until: dt.datetime | None, reason: str
) -> list[Membership]:
    """All of them have this end from now on, earlier or later than before; None for no end. By whoever operates all
    that the teams have, as for joining."""
    teams = {one.team_id: one.team for one in memberships}
    with act(Verb.MEMBERSHIP_SET_END, actor=actor, reason=reason) as this:
        rows = _chosen(memberships, "memberships", reason)
        lock_teams(teams)
        require_operator(actor, *environments_of(*teams.values()))
        people = {person.pk: person for person in who_stay([one.person for one in rows])}
        now = timezone.now()
        new = _go_on(Membership, rows, until, this, now)
        for one in new:
            one.person, one.began_at, one.added_by = people[one.person_id], now, str(actor)
            check_end(one, now)
        Membership.objects.bulk_create(new)
        settle(people.keys(), this=this, ending=Ending(), issues=False)
        this.on(new[0], changes=_told(rows, until), label=_name(new, "memberships"))
    return new


def prolong_grants(*, actor: Actor, grants: Sequence[Grant], until: dt.datetime | None, reason: str) -> list[Grant]:
    """The same for grants, which go on with all else that they carry. By operators of their places."""
    require_operator(actor, *(grant.place for grant in grants))
    with act(Verb.GRANT_SET_END, actor=actor, reason=reason) as this:
        rows = _chosen(grants, "grants", reason)
        lock_teams(grant.team_id for grant in rows if grant.team_id)
        now = timezone.now()  # after the lock: who joined meanwhile has it too
        people = holders_of(rows, now)
        lock_people(people)
        new = _go_on(Grant, rows, until, this, now)
        for one in new:
            one.begins_at, one.granted_by, one.request, one.moved_from = max(one.begins_at, now), str(actor), None, None
            check_grant(one, now)
        Grant.objects.bulk_create(new)
        settle(people, this=this, ending=Ending(), on=servers_of(new), issues=False)
        places = {one.place.name for one in new}
        environment = places.pop() if len(places) == 1 else ""
        this.on(new[0], changes=_told(rows, until), label=_name(new, "grants"), environment=environment)
    return new


def _chosen(rows: Sequence[Row], name: str, reason: str) -> list[Row]:
    if not rows:
        raise ValidationError({name: f"Choose at least one {name[:-1]}."})
    require_reason(reason)
    try:
        Grant._meta.get_field("end_reason").clean(reason, None)
    except ValidationError as error:
        raise ValidationError({"reason": error.messages}) from None
    return list({row.pk: row for row in rows}.values())


def _go_on(model: type[Row], rows: Sequence[Row], until: dt.datetime | None, this: Act, now: dt.datetime) -> list[Row]:
    """The old rows end; the new ones, not saved yet, are the same but for their end. What is over has no peers any
    more: that would be to let somebody in again."""
    lasting = model._default_manager.filter(Q(until=None) | Q(until__gt=now), pk__in=[row.pk for row in rows])
    if lasting.filter(ended_at=None).update(ended_at=now) != len(rows):
        noun = model._meta.verbose_name
        raise ValidationError(f"One of these is no open {noun} any more: look again.", code="taken")
    return [_copy(row, until, this.reason) for row in rows]


def _copy(row: Row, until: dt.datetime | None, reason: str) -> Row:
    new = type(row)(**{field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields})
    new.pk, new.goes_on_from, new.until, new.ended_at, new.end_reason = None, row, until, None, reason
    return new


def _told(rows: Sequence[Row], until: dt.datetime | None) -> dict[str, list[str]]:
    return {f"{row._meta.verbose_name} {row.pk}": [f"{row} {_said(row.until)}", _said(until)] for row in rows}


def _said(until: dt.datetime | None) -> str:
    return f"until {until.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC" if until else "without an end"


def _name(rows: Sequence[Row], noun: str) -> str:
    return str(rows[0]) if len(rows) == 1 else f"{len(rows)} {noun}"
