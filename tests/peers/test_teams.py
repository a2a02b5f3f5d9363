"""Teams: who joins one has what it has, who leaves it has not, and nobody else notices."""

import datetime as dt

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from peers.due import begin_grants, expire_peers
from peers.granting import end_grants, grant_access
from peers.leaving import offboard
from peers.models import Grant, Membership, Peer, Person, Team
from peers.teams import add_team, end_team, join_team, leave_team
from tests.build import make_device, make_grant, make_person, make_server
from tests.doors import rows

pytestmark = pytest.mark.django_db
HOUR = dt.timedelta(hours=1)


def in_hours(count: float) -> dt.datetime:
    return timezone.now() + HOUR * count


def live() -> set[tuple[str, str]]:
    """(person, server) of every live peer."""
    found = Peer.objects.filter(ended_at=None).values_list("device__person__name", "server__name")
    return set(found)


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn")


@pytest.fixture
def team(server: Server, staging: Environment) -> Team:
    """With access to staging."""
    found = add_team(actor=SYSTEM, name="network")
    grant_access(actor=SYSTEM, team=found, environment=staging, reason="on call")
    return found


def person_with_device(name: str, kind: str = Person.Kind.EMPLOYEE) -> Person:
    person = make_person(name, kind)
    make_device(person)
    return person


def test_peers_follow_who_joins_and_leaves_and_nobody_else(team: Team, staging: Environment) -> None:
    ann, ben, eve = map(person_with_device, ("Ann", "Ben", "Eve"))
    make_grant(eve, staging)
    stays = Peer.objects.get()
    joined = join_team(actor=SYSTEM, team=team, people=[ann, ben, ann])
    assert live() == {("Ann", "vpn"), ("Ben", "vpn"), ("Eve", "vpn")}
    leave_team(actor=SYSTEM, memberships=[joined[0]], reason="other work")
    assert live() == {("Ben", "vpn"), ("Eve", "vpn")}
    ended = Peer.objects.get(device__person=ann)
    assert (ended.end, ended.is_decided) == ("withdrawn", True)
    stays.refresh_from_db()
    assert (stays.ended_at, stays.ipv4) == (None, stays.ipv4)


def test_several_who_leave_at_once_are_no_decision_about_one(team: Team) -> None:
    """So the brake weighs them."""
    joined = join_team(actor=SYSTEM, team=team, people=[person_with_device("Ann"), person_with_device("Ben")])
    leave_team(actor=SYSTEM, memberships=joined, reason="the project is over")
    assert live() == set()
    assert {peer.is_decided for peer in Peer.objects.all()} == {False}
    assert len({peer.ended_act for peer in Peer.objects.all()}) == 1


def test_who_has_it_by_another_grant_too_keeps_it(team: Team, staging: Environment) -> None:
    ann = person_with_device("Ann")
    (membership,) = join_team(actor=SYSTEM, team=team, people=[ann])
    own = make_grant(ann, staging)
    before = Peer.objects.get()
    leave_team(actor=SYSTEM, memberships=[membership], reason="other work")
    after = Peer.objects.get()
    assert (after.pk, after.ended_at, after.expires_at) == (before.pk, None, own.until)


def test_a_membership_is_over_at_its_end_and_the_person_may_come_again(team: Team) -> None:
    ann = person_with_device("Ann", Person.Kind.CONTRACTOR)
    until = in_hours(1)
    join_team(actor=SYSTEM, team=team, people=[ann], until=until)
    assert Peer.objects.get().expires_at == until
    past = in_hours(-1)
    Membership.objects.update(until=past, began_at=in_hours(-2))
    Peer.objects.update(expires_at=past)
    expire_peers()
    assert live() == set()
    join_team(actor=SYSTEM, team=team, people=[ann], until=in_hours(5))
    assert live() == {("Ann", "vpn")}
    first, second = Membership.objects.order_by("pk")
    assert (first.ended_at, second.ended_at) == (past, None)


def test_a_member_s_end_and_the_grant_s_count_whichever_is_first(server: Server) -> None:
    team, ann = add_team(actor=SYSTEM, name="network"), person_with_device("Ann")
    join_team(actor=SYSTEM, team=team, people=[ann], until=in_hours(2))
    grant_access(actor=SYSTEM, team=team, server=server, reason="x", until=in_hours(9))
    assert Peer.objects.get().expires_at == Membership.objects.get().until
    early = grant_access(actor=SYSTEM, team=team, server=make_server(server.environment), reason="x", until=in_hours(1))
    assert Peer.objects.get(server=early.server).expires_at == early.until


def test_who_may_not_join_is_named_and_nobody_joins(team: Team, staging: Environment) -> None:
    ann, gone, carol = person_with_device("Ann"), make_person("Gone"), make_person("Carol", Person.Kind.CONTRACTOR)
    member = person_with_device("Mia")
    join_team(actor=SYSTEM, team=team, people=[member])
    offboard(actor=SYSTEM, people=[gone], reason="left")
    before = rows()
    for person, until, message in (
        (gone, None, "Gone has left"),
        (carol, None, "Carol is a contractor: their access needs an end date"),
        (member, None, "In the team network already: Mia"),
        (ann, in_hours(-1), "Give an end in the future"),
    ):
        with pytest.raises(ValidationError, match=message):
            join_team(actor=SYSTEM, team=team, people=[ann, person], until=until)
    with pytest.raises(ValidationError, match="Choose at least one"):
        join_team(actor=SYSTEM, team=team, people=[])
    assert rows() == before
    join_team(actor=SYSTEM, team=team, people=[ann, carol], until=in_hours(1))
    assert live() == {("Ann", "vpn"), ("Mia", "vpn")}


def test_only_who_operates_all_that_a_team_has_changes_its_members(
    team: Team, bob: User, production: Environment
) -> None:
    """B3: what is over counts no more."""
    make_server(production, "far")
    ann, ben = person_with_device("Ann"), person_with_device("Ben")
    (membership,) = join_team(actor=bob, team=team, people=[ann])
    far = grant_access(actor=SYSTEM, team=team, environment=production, reason="x", until=in_hours(1))
    before = rows()
    for act in (
        lambda: join_team(actor=bob, team=team, people=[ben]),
        lambda: leave_team(actor=bob, memberships=[membership], reason="x"),
        lambda: end_team(actor=bob, team=team, reason="x"),
    ):
        with pytest.raises(PermissionDenied, match="ask an administrator"):
            act()
    assert rows() == before
    Grant.objects.filter(pk=far.pk).update(until=in_hours(-1))
    join_team(actor=bob, team=team, people=[ben])
    assert {name for name, _ in live()} == {"Ann", "Ben"}


def test_a_team_ends_once_its_grants_have(team: Team, staging: Environment) -> None:
    join_team(actor=SYSTEM, team=team, people=[person_with_device("Ann")])
    with pytest.raises(ValidationError, match="end these first"):
        end_team(actor=SYSTEM, team=team, reason="reorganised")
    assert live() == {("Ann", "vpn")}
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="reorganised")
    end_team(actor=SYSTEM, team=team, reason="reorganised")
    assert not Membership.objects.filter(ended_at=None).exists()
    stale = Team.objects.get()
    stale.ended_at = None
    for act, message in (
        (lambda: join_team(actor=SYSTEM, team=stale, people=[make_person()]), "is no more"),
        (lambda: grant_access(actor=SYSTEM, team=stale, environment=staging, reason="x"), "is no more"),
        (lambda: end_team(actor=SYSTEM, team=stale, reason="x"), "ended already"),
    ):
        with pytest.raises(ValidationError, match=message):
            act()
    assert add_team(actor=SYSTEM, name="network").pk != team.pk


def test_a_grant_that_begins_later_gives_its_peers_then(server: Server) -> None:
    team, ann, ben = add_team(actor=SYSTEM, name="network"), person_with_device("Ann"), person_with_device("Ben")
    join_team(actor=SYSTEM, team=team, people=[ann])
    later = grant_access(actor=SYSTEM, team=team, server=server, reason="x", begins_at=in_hours(1), until=in_hours(2))
    begin_grants()
    assert (live(), later.begun_at) == (set(), None)
    Grant.objects.update(begins_at=in_hours(-0.01))
    join_team(actor=SYSTEM, team=team, people=[ben])
    assert live() == {("Ben", "vpn")}
    begin_grants()
    begin_grants()
    assert live() == {("Ann", "vpn"), ("Ben", "vpn")}
    assert Grant.objects.get().begun_at is not None


def test_nobody_had_access_before_it_was_granted(server: Server) -> None:
    """History at a time before stays what it was."""
    before, person = timezone.now(), person_with_device("Ann")
    grant = grant_access(actor=SYSTEM, person=person, server=server, reason="x", begins_at=in_hours(-48))
    assert grant.begins_at >= before
    assert live() == {("Ann", "vpn")}
    with pytest.raises(ValidationError, match="Give an end after the beginning"):
        grant_access(actor=SYSTEM, person=person, server=server, reason="x", begins_at=in_hours(3), until=in_hours(2))
