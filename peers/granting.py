"""The write path for grants."""

import datetime as dt
from collections.abc import Iterable, Sequence

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.addresses import open_pools
from fleet.models import Environment, Placement, Server
from peers.models import AccessRequest, Grant, Person, Team
from peers.rights import holders_of
from peers.services import who_stay
from peers.settle import Ending, lock_people, settle

MOST_NAMES = 20


def grant_access(
    *,
    actor: Actor,
    reason: str,
    person: Person | None = None,
    team: Team | None = None,
    environment: Environment | None = None,
    server: Server | None = None,
    networks: Sequence[str] = (),
    hours: str = "",
    pool: str = "",
    begins_at: dt.datetime | None = None,
    until: dt.datetime | None = None,
    request: AccessRequest | None = None,
    granted_by: str = "",
) -> Grant:
    """A right, and the peers that follow from it, in one transaction; where it begins later, they follow then."""
    place = environment or (server.environment if server else None)
    require_operator(actor, *([place] if place else []))
    grant = Grant(person=person, team=team, environment=environment, server=server, reason=reason, until=until)
    grant.networks, grant.hours, grant.pool, grant.request = list(networks), hours, pool, request
    grant.granted_by = granted_by or str(actor)
    with act(Verb.GRANT_ADD, actor=actor, reason=reason) as this:
        grant.full_clean()
        _check_pool(grant)
        lock_teams([team.pk] if team else [])
        now = timezone.now()  # after the lock: who joined meanwhile is a member now
        grant.begins_at = max(begins_at or now, now)  # nobody had access before it was granted
        grant.begun_at = now if grant.begins_at <= now else None
        check_grant(grant, now)
        grant.save(force_insert=True)
        if grant.begun_at:
            settle(holders_of([grant], now), this=this, ending=Ending(), on=servers_of([grant]))
        this.on(grant, environment=place.name if place else "")
    return grant


def lock_teams(ids: Iterable[int]) -> None:
    """Until the transaction ends nobody joins or leaves these teams, and they get and lose no grant."""
    list(Team.objects.select_for_update(no_key=True).filter(pk__in=set(ids)).order_by("pk").values_list("pk"))


def servers_of(grants: Iterable[Grant]) -> set[int]:
    """Those that grants reach now."""
    grants = list(grants)
    environments = {grant.environment_id for grant in grants if grant.environment_id}
    placed = Placement.objects.filter(environment__in=environments, ended_at=None).values_list("server", flat=True)
    return set(placed) | {grant.server_id for grant in grants if grant.server_id}


def check_grant(grant: Grant, now: dt.datetime) -> None:
    """Locks its person. Whoever calls it has locked its team."""
    if grant.until is not None and grant.until <= now:
        raise ValidationError({"until": "Give an end in the future."})
    if grant.until is not None and grant.until <= grant.begins_at:
        raise ValidationError({"until": "Give an end after the beginning."})
    if grant.team is not None:
        refuse_ended(grant.team)
    if grant.person is None:
        return  # a contractor in a team has an end by their membership
    person = who_stay([grant.person])[0]
    if grant.until is None and person.kind == Person.Kind.CONTRACTOR:
        raise ValidationError({"until": "A contractor's access needs an end date."})


def _check_pool(grant: Grant) -> None:
    """Some server there has it; on the others its people get addresses out of no named pool."""
    if not grant.pool:
        return
    there = open_pools(servers_of([grant]))
    names = sorted({pool.name for pools in there.values() for pool in pools})
    if grant.pool in names:
        return
    place = str(grant.environment or grant.server)
    known = f"use {', '.join(names[:MOST_NAMES])}" if names else "it has none, so leave this empty"
    raise ValidationError({"pool": f"There is no pool {grant.pool} in {place}: {known}, or add it first."})


def refuse_ended(team: Team) -> None:
    """Under the team's lock."""
    if Team.objects.filter(pk=team.pk).exclude(ended_at=None).exists():
        raise ValidationError({"team": f"The team {team} is no more."})


def end_grants(*, actor: Actor, grants: Sequence[Grant], reason: str) -> None:
    """One act. Keys live on elsewhere; where no grant is left, peers are withdrawn. Several at once obey the brake."""
    if not grants:
        raise ValidationError({"grants": "Choose at least one grant."})
    require_reason(reason, "Say why this access ends.")
    require_operator(actor, *(grant.place for grant in grants))
    with act(Verb.GRANT_END, actor=actor, reason=reason) as this:
        ids = [grant.pk for grant in grants]
        lock_teams(grant.team_id for grant in grants if grant.team_id)
        now = timezone.now()  # after the lock: who joined meanwhile loses it too
        people = holders_of(grants, now)
        lock_people(people)
        ended = Grant.objects.filter(pk__in=ids, ended_at=None).update(ended_at=now)
        if ended != len(ids):
            raise ValidationError("One of these grants has ended already: look again.", code="taken")
        settle(people, this=this, ending=Ending(is_decided=len(people) == 1), on=servers_of(grants), issues=False)
        changes = {f"grant {grant.pk}": [str(grant), "ended"] for grant in grants}
        this.on(grants[0], changes=changes, environment=_only_environment(grants), label=_name(grants))


def _name(grants: Sequence[Grant]) -> str:
    """One by its own name, several by how many they are and of whom."""
    if len(grants) == 1:
        return str(grants[0])
    holders = {grant.holder for grant in grants}
    noun = "people" if all(grant.person_id for grant in grants) else "people and teams"
    return f"{len(grants)} grants of {holders.pop() if len(holders) == 1 else f'{len(holders)} {noun}'}"


def _only_environment(grants: Sequence[Grant]) -> str:
    names = {grant.place.name for grant in grants}
    return names.pop() if len(names) == 1 else ""
