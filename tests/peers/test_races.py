"""Acts that meet: the second waits for the first, and then judges by what holds now."""

import datetime as dt
import itertools
from collections.abc import Callable
from functools import partial

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.services import SYSTEM
from fleet.changes import hold_servers
from fleet.models import Environment, Role, Server, User
from fleet.services import add_environment, give_role
from nodes.desired import desired_state
from peers.due import begin_grants, settle_placements
from peers.granting import end_grants, grant_access, lock_teams
from peers.leaving import offboard
from peers.models import Device, Grant, Membership, Peer, Person, Revocation, Suspension, Team
from peers.moving import let_moved_in, move_grant
from peers.prolonging import prolong_grants, prolong_memberships
from peers.revocation import revoke_devices
from peers.services import register_device
from peers.settle import lock_devices, lock_keys
from peers.suspending import resume, suspend
from peers.teams import add_team, end_team, join_team, leave_team
from tests.build import make_device, make_person, make_server, new_public_key
from tests.peers.racing import Act, overtake

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn")


def with_device(name: str) -> Person:
    person = make_person(name)
    make_device(person)
    return person


def later(service: Callable[..., object], **values: object) -> Act:
    return partial(service, actor=SYSTEM, **values)


def receive(gift: Callable[[Person], object], person: Person) -> None:
    """By somebody who looked the person up before."""
    gift(Person.objects.get(pk=person.pk))


def live() -> list[str]:
    return sorted(Peer.objects.filter(ended_at=None).values_list("device__person__name", flat=True))


def held_team(server: Server) -> tuple[Team, Grant]:
    team = add_team(actor=SYSTEM, name=f"team-{Team.objects.count()}")
    return team, grant_access(actor=SYSTEM, team=team, server=server, reason="on call")


def test_a_team_s_grant_ends_and_begins_while_somebody_joins(server: Server) -> None:
    """Each order, and each sees what the other did."""
    for number in range(2):
        team, grant = held_team(server)
        ann = with_device(f"Ann {number}")
        acts: list[Act] = [
            later(join_team, team=team, people=[ann]),
            later(end_grants, grants=[grant], reason="over"),
        ]
        second, then = acts[:: 1 if number else -1]
        assert overtake(partial(lock_teams, [team.pk]), second, then) == [None, None]
        assert live() == []
        acts[1] = later(grant_access, team=team, server=server, reason="again")
        other = with_device(f"Ben {number}")
        acts[0] = later(join_team, team=team, people=[other])
        second, then = acts[:: 1 if number else -1]
        assert overtake(partial(lock_teams, [team.pk]), second, then) == [None, None]
        assert live() == [f"Ann {number}", f"Ben {number}"]
        end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(ended_at=None)), reason="over")


def test_two_grants_to_one_person_at_once_both_have_their_peers(server: Server) -> None:
    ann, other = with_device("Ann"), make_server(server.environment)
    acts: list[Act] = [later(grant_access, person=ann, server=place, reason="work") for place in (server, other)]
    assert overtake(partial(lock_devices, [ann.pk]), *acts) == [None, None]
    assert live() == ["Ann", "Ann"]
    first = Grant.objects.get(server=server)
    end, again = (
        later(end_grants, grants=[first], reason="over"),
        later(grant_access, person=ann, server=server, reason="x"),
    )
    assert overtake(partial(lock_devices, [ann.pk]), end, again) == [None, None]
    assert live() == ["Ann", "Ann"]


def test_a_team_that_ends_takes_nobody_in_and_gets_no_grant(server: Server) -> None:
    ann = with_device("Ann")
    team = add_team(actor=SYSTEM, name="network")
    _, refused = overtake(
        later(end_team, team=team, reason="over"),
        later(join_team, team=Team.objects.get(pk=team.pk), people=[ann]),
    )
    assert "is no more" in str(refused)
    team = add_team(actor=SYSTEM, name="network")
    _, refused = overtake(
        later(end_team, team=team, reason="over"),
        later(grant_access, team=team, server=server, reason="x"),
    )
    assert "is no more" in str(refused)
    team = add_team(actor=SYSTEM, name="network")
    _, refused = overtake(
        later(grant_access, team=team, server=server, reason="x"),
        later(end_team, team=team, reason="over"),
    )
    assert "end these first" in str(refused)
    assert (Membership.objects.count(), Grant.objects.count()) == (0, 1)


def test_an_operator_adds_nobody_to_what_a_team_gets_at_this_moment(server: Server, bob: User, alice: User) -> None:
    """B3: what the team had when they asked does not count."""
    team, ann = add_team(actor=SYSTEM, name="network"), with_device("Ann")
    far = make_server(add_environment(actor=SYSTEM, name="production"))
    _, refused = overtake(
        lambda: grant_access(actor=alice, team=team, server=far, reason="x"),
        lambda: join_team(actor=bob, team=team, people=[ann]),
    )
    assert isinstance(refused, PermissionDenied)
    assert live() == []
    give_role(actor=SYSTEM, user=bob, name=Role.Name.OPERATOR, environment=far.environment)
    join_team(actor=bob, team=team, people=[ann])
    assert live() == ["Ann"]


def test_who_is_suspended_while_a_peer_is_issued_to_them_is_out_there_too(server: Server) -> None:
    numbers = itertools.count()
    for order in (1, -1):
        ann = with_device(f"Ann {next(numbers)}")
        acts: list[Act] = [
            later(suspend, targets=[ann], reason="ill"),
            later(grant_access, person=ann, server=server, reason="work"),
        ]
        assert overtake(*acts[::order]) == [None, None]
    assert (len(live()), desired_state(server.pk).content.peers) == (2, {})
    assert len(desired_state(server.pk).shut) == 2


def test_two_who_suspend_one_person_at_once_do_it_once(server: Server) -> None:
    ann = with_device("Ann")
    both = [later(suspend, targets=[ann], reason="ill") for _ in range(2)]
    _, refused = overtake(*both)
    assert "Suspended already: Ann" in str(refused)


def test_who_is_resumed_while_their_access_comes_back_is_in_or_is_told_to_look_again(server: Server) -> None:
    """Whoever comes first: the suspension is over, or it goes on with the new peer and the old one resumes nobody."""
    for order in (1, -1):
        ann = with_device("Ann")
        grant = grant_access(actor=SYSTEM, person=ann, server=server, reason="work")
        peer = Peer.objects.get(device__person=ann)
        [held] = suspend(actor=SYSTEM, targets=[peer], reason="malware")
        end_grants(actor=SYSTEM, grants=[grant], reason="over")
        acts: list[Act] = [
            later(resume, suspension=held, reason="clean"),
            later(grant_access, person=ann, server=server, reason="work again"),
        ]
        _, refused = overtake(*acts[::order])
        key = peer.device.public_key
        assert (refused is None, key in desired_state(server.pk).content.peers) == (order == 1, order == 1)
        assert Suspension.objects.filter(peer__device__person=ann, ended_at=None).count() == (order == -1)
    assert "ended already" in str(refused)


def test_who_leaves_while_they_get_something_has_nothing(server: Server) -> None:
    """Whoever comes first, and whatever it is that they get."""
    team, _ = held_team(server)
    gifts: tuple[Callable[[Person], object], ...] = (
        lambda who: grant_access(actor=SYSTEM, person=who, server=server, reason="work"),
        lambda who: join_team(actor=SYSTEM, team=team, people=[who]),
        lambda who: register_device(actor=SYSTEM, person=who, name="new", public_key=new_public_key()),
    )
    for gift, order in itertools.product(gifts, (1, -1)):
        ann = with_device("Ann")
        acts: list[Act] = [
            later(offboard, people=[ann], reason="left"),
            partial(receive, gift, ann),
        ]
        _, refused = overtake(*acts[::order])
        assert isinstance(refused, ValidationError) if order == 1 else refused is None
        assert Person.objects.get(pk=ann.pk).left_at is not None
    assert live() == []
    assert not Device.objects.filter(revoked_at=None).exists()
    assert not Membership.objects.filter(ended_at=None).exists()
    assert not Grant.objects.filter(ended_at=None, team=None).exists()


def test_who_revokes_a_key_and_who_offboards_its_person_wait_for_each_other_in_no_circle(server: Server) -> None:
    ann = with_device("Ann")
    device = Device.objects.get(person=ann)
    _, refused = overtake(
        lambda: lock_keys([device.public_key]),
        later(offboard, people=[ann], reason="left"),
        then=later(revoke_devices, devices=[device], reason="lost"),
    )
    assert refused is None
    assert Person.objects.get(pk=ann.pk).left_at is not None
    assert Device.objects.get(pk=device.pk).revoked_at is not None
    assert [one.label for one in Revocation.objects.order_by("created_at")] == [str(device), "everything of Ann"]


def test_who_loses_one_thing_and_who_offboards_them_wait_for_each_other_in_no_circle(server: Server) -> None:
    """Grants that end or begin, and memberships that end or begin anew."""
    later_on: list[Callable[[Person, Server], Act]] = [_end_a_grant, _begin_a_grant, _leave_a_team, _join_a_team_anew]
    for prepare in later_on:
        ann = with_device(f"Ann {prepare.__name__}")
        _, refused = overtake(
            lambda ann=ann: lock_devices([ann.pk]),  # type: ignore[misc]
            prepare(ann, server),
            then=later(offboard, people=[ann], reason="left"),
        )
        assert refused is None or isinstance(refused, ValidationError), prepare
        assert Person.objects.get(pk=ann.pk).left_at is not None
    assert live() == []


def test_who_revokes_a_key_and_who_lets_it_in_wait_for_each_other_in_no_circle(
    server: Server, staging: Environment
) -> None:
    ann, other = with_device("Ann"), make_server(staging, "other")
    grant = grant_access(actor=SYSTEM, person=ann, server=server, reason="on call")
    move_grant(actor=SYSTEM, grant=grant, server=other, reason="nearer")
    Peer.objects.filter(server=server).update(gone_at=timezone.now())
    devices = list(Device.objects.filter(person=ann))
    _, refused = overtake(
        lambda: hold_servers([other.pk]), let_moved_in, then=later(revoke_devices, devices=devices, reason="lost")
    )
    assert (refused, live()) == (None, [])


def _end_a_grant(person: Person, server: Server) -> Act:
    grant = grant_access(actor=SYSTEM, person=person, server=server, reason="on call")
    return later(end_grants, grants=[grant], reason="over")


def _begin_a_grant(person: Person, server: Server) -> Act:
    grant = grant_access(actor=SYSTEM, person=person, server=server, reason="on call")
    Grant.objects.filter(pk=grant.pk).update(begun_at=None)
    return begin_grants


def _leave_a_team(person: Person, server: Server) -> Act:
    team, _ = held_team(server)
    return later(leave_team, memberships=join_team(actor=SYSTEM, team=team, people=[person]), reason="over")


def _join_a_team_anew(person: Person, server: Server) -> Act:
    team, _ = held_team(server)
    join_team(actor=SYSTEM, team=team, people=[person])
    Membership.objects.filter(person=person).update(until=timezone.now())
    return later(join_team, team=team, people=[person])


def test_who_is_suspended_on_servers_that_others_lock_waits_in_no_circle(server: Server, staging: Environment) -> None:
    ann, other = with_device("Ann"), make_server(staging, "other")
    settle_placements()
    grant_access(actor=SYSTEM, person=ann, environment=staging, reason="on call")
    Server.objects.filter(pk=server.pk).update(mtu=1400)  # its row lies behind the other's from now on
    _, refused = overtake(
        lambda: hold_servers([server.pk]),
        later(suspend, targets=[ann], reason="lent out"),
        then=lambda: hold_servers([other.pk]),
    )
    assert refused is None
    assert [desired_state(pk).content.peers for pk in (server.pk, other.pk)] == [{}, {}]


@pytest.mark.parametrize("is_changed_first", [True, False])
def test_a_right_that_ends_while_it_is_given_another_end_is_judged_by_who_came_first(
    is_changed_first: bool, server: Server
) -> None:
    """Whoever comes second is told, and nobody stays by a row that has ended; to leave for good is never too late."""
    ann, ben, eve = map(with_device, ("Ann", "Ben", "Eve"))
    team, _ = held_team(server)
    members = join_team(actor=SYSTEM, team=team, people=[ann, eve])
    grant = grant_access(actor=SYSTEM, person=ben, server=server, reason="x")
    longer = {"until": timezone.now() + dt.timedelta(days=30), "reason": "x"}
    pairs: list[tuple[Act, Act]] = [
        (
            later(prolong_memberships, memberships=members[:1], **longer),
            later(leave_team, memberships=members[:1], reason="x"),
        ),
        (later(prolong_grants, grants=[grant], **longer), later(end_grants, grants=[grant], reason="x")),
        (later(prolong_memberships, memberships=members[1:], **longer), later(offboard, people=[eve], reason="x")),
    ]
    refused = [overtake(*(pair if is_changed_first else pair[::-1]))[1] for pair in pairs]
    assert [type(error) for error in refused] == [
        ValidationError,
        ValidationError,
        type(None) if is_changed_first else ValidationError,
    ]
    assert live() == (["Ann", "Ben"] if is_changed_first else [])
    assert Membership.objects.filter(ended_at=None).count() == (1 if is_changed_first else 0)
