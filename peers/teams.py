"""Teams: who joins one has what it has, who leaves it has not."""

import datetime as dt
from collections.abc import Collection, Sequence

from django.core.exceptions import ValidationError
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from audit.services import Actor, act, cut
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.models import Environment
from peers.granting import lock_teams, refuse_ended
from peers.models import Grant, Membership, Peer, Person, Team
from peers.services import who_stay
from peers.settle import Ending, lock_people, settle


def add_team(*, actor: Actor, name: str, description: str = "") -> Team:
    require_operator(actor)
    team = Team(name=name, description=description)
    with act(Verb.TEAM_ADD, actor=actor) as this:
        team.full_clean()
        team.save(force_insert=True)
        this.on(team)
    return team


def end_team(*, actor: Actor, team: Team, reason: str) -> Team:
    """The team is no more. Its grants have to be ended before, so that nobody loses access by the way."""
    require_reason(reason)
    with act(Verb.TEAM_END, actor=actor, reason=reason) as this:
        lock_teams([team.pk])
        require_operator(actor, *environments_of(team))
        now = timezone.now()
        if _held_by([team], now).exists():
            raise ValidationError({"team": f"The team {team} has grants: end these first."})
        if not Team.objects.filter(pk=team.pk, ended_at=None).update(ended_at=now):
            raise ValidationError("This team has ended already: look again.", code="taken")
        Membership.objects.filter(team=team, ended_at=None).update(ended_at=now)
        team.ended_at = now
        this.on(team, changes={"ended_at": ["", now.isoformat()]})
    return team


def join_team(
    *, actor: Actor, team: Team, people: Sequence[Person], until: dt.datetime | None = None, reason: str = ""
) -> list[Membership]:
    """These people have what the team has, from now on. The actor operates all of it."""
    if not people:
        raise ValidationError({"people": "Choose at least one person."})
    with act(Verb.TEAM_JOIN, actor=actor, reason=reason) as this:
        lock_teams([team.pk])
        require_operator(actor, *environments_of(team))
        now = timezone.now()
        refuse_ended(team)
        stay = who_stay(people)
        # Who was in it until a time that is over may come again.
        over = Membership.objects.filter(team=team, person__in=people, ended_at=None, until__lte=now)
        over.update(ended_at=F("until"))
        joined = [Membership(person=one, team=team, until=until, added_by=str(actor)) for one in stay]
        _refuse_members(team, joined)
        for membership in joined:
            membership.full_clean()
            check_end(membership, now)
        Membership.objects.bulk_create(joined)
        settle([one.person_id for one in joined], this=this, ending=Ending())
        this.on(team, changes={"members": ["", cut(", ".join(one.person.name for one in joined), 2000)]})
    return joined


def leave_team(*, actor: Actor, memberships: Sequence[Membership], reason: str) -> None:
    """What they had by the team alone is withdrawn; keys live on. Several at once obey the brake."""
    if not memberships:
        raise ValidationError({"memberships": "Choose at least one membership."})
    require_reason(reason)
    teams = {membership.team for membership in memberships}
    with act(Verb.TEAM_LEAVE, actor=actor, reason=reason) as this:
        lock_teams(team.pk for team in teams)
        require_operator(actor, *environments_of(*teams))
        ids, people = [one.pk for one in memberships], {one.person_id for one in memberships}
        lock_people(people)
        if Membership.objects.filter(pk__in=ids, ended_at=None).update(ended_at=timezone.now()) != len(ids):
            raise ValidationError("One of these memberships has ended already: look again.", code="taken")
        settle(people, this=this, ending=Ending(is_decided=len(people) == 1), issues=False)
        names = ", ".join(str(one) for one in memberships)
        this.on(memberships[0].team, changes={"members": [cut(names, 2000), ""]})


def environments_of(*teams: Team) -> set[Environment]:
    """Where these teams have access, or will have."""
    held = _held_by(teams, timezone.now()).select_related("environment", "server__environment")
    return {grant.place for grant in held}


def _held_by(teams: Sequence[Team], now: dt.datetime) -> QuerySet[Grant]:
    """What is over gives nobody anything, whether somebody ended it or not."""
    return Grant.objects.filter(Q(until=None) | Q(until__gt=now), team__in=teams, ended_at=None)


def _refuse_members(team: Team, joining: Sequence[Membership]) -> None:
    there = Person.objects.filter(memberships__team=team, memberships__ended_at=None)
    names = ", ".join(map(str, there.filter(pk__in=[one.person_id for one in joining])))
    if names:
        raise ValidationError({"people": ValidationError(f"In the team {team} already: {names}.", code="taken")})


def places_of(people: Collection[int]) -> set[Environment]:
    """Wherever they have or may get access; what is over gives none."""
    lasting = Q(Q(until=None) | Q(until__gt=timezone.now()), person__in=people, ended_at=None)
    grants = Grant.objects.filter(lasting).select_related("environment", "server__environment")
    memberships = Membership.objects.filter(lasting).select_related("team")
    live = Peer.objects.filter(device__person__in=people, ended_at=None).order_by()
    places = set(live.values_list("server__environment", flat=True))
    by_team = environments_of(*{one.team for one in memberships})
    return {grant.place for grant in grants} | by_team | set(Environment.objects.filter(pk__in=places))


def check_end(membership: Membership, now: dt.datetime) -> None:
    """Its person as they are now: whoever calls it has locked them."""
    if membership.until is not None and membership.until <= now:
        raise ValidationError({"until": "Give an end in the future."})
    if membership.until is None and membership.person.kind == Person.Kind.CONTRACTOR:
        raise ValidationError({"until": f"{membership.person} is a contractor: their access needs an end date."})
