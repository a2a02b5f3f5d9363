"""A contractor's access has an end, whichever way it comes."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, User
from nodes.desired import desired_state
from peers.due import settle_due
from peers.granting import grant_access
from peers.models import Grant, Membership, Peer, Person, Team
from peers.moving import move_grant
from peers.services import change_person
from peers.teams import add_team, join_team, leave_team
from tests.build import make_device, make_grant, make_person, make_server
from tests.doors import script

pytestmark = pytest.mark.django_db
DAY = dt.timedelta(days=1)
CONTRACTOR, EMPLOYEE, SERVICE = Person.Kind.CONTRACTOR, Person.Kind.EMPLOYEE, Person.Kind.SERVICE


@pytest.fixture
def team(staging: Environment) -> Team:
    """With an endless grant to staging."""
    make_server(staging, "vpn-fra")
    found = add_team(actor=SYSTEM, name="web")
    grant_access(actor=SYSTEM, team=found, environment=staging, reason="work")
    return found


def in_days(days: float) -> dt.datetime:
    return timezone.now().replace(microsecond=0) + days * DAY


def joined(team: Team, person: Person, until: dt.datetime | None) -> list[Membership]:
    return join_team(actor=SYSTEM, team=team, people=[person], until=until)


def refusal(act: Callable[[], object]) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        act()
    return error.value.message_dict


def test_a_contractor_joins_a_team_until_a_day_only(team: Team) -> None:
    carol, ann = make_person("Carol", CONTRACTOR), make_person("Ann")
    said = {"until": ["Carol is a contractor: their access needs an end date."]}
    assert refusal(lambda: joined(team, carol, None)) == said
    assert refusal(lambda: join_team(actor=SYSTEM, team=team, people=[ann, carol])) == said
    assert not Membership.objects.exists()
    joined(team, carol, in_days(5)), joined(team, ann, None)
    assert Membership.objects.count() == 2


def test_the_end_of_a_contractor_s_membership_reaches_the_node(team: Team) -> None:
    """As the end of the peer, by the endless grant of the team; an employee beside them has none."""
    until = in_days(5)
    for name, kind, end in (("Carol", CONTRACTOR, until), ("Ann", EMPLOYEE, None)):
        person = make_person(name, kind)
        joined(team, person, end)
        make_device(person)
    peers = Peer.objects.select_related("device__person", "server")
    told = desired_state(peers[0].server_id).content.peers
    ends = {peer.device.person.name: told[peer.device.public_key].expires_at for peer in peers}
    assert ends == {"Carol": int(until.timestamp()), "Ann": None}
    Membership.objects.filter(person__name="Carol").update(until=timezone.now())
    Peer.objects.exclude(expires_at=None).update(expires_at=timezone.now())
    settle_due()
    assert list(Peer.objects.filter(ended_at=None).values_list("device__person__name", flat=True)) == ["Ann"]
    assert Peer.objects.get(device__person__name="Carol").end == Peer.End.EXPIRED


def test_the_earlier_of_a_grant_s_and_a_membership_s_end_counts(team: Team, staging: Environment) -> None:
    grant_access(actor=SYSTEM, team=team, environment=staging, reason="work", until=in_days(3))
    Grant.objects.filter(until=None).update(ended_at=timezone.now())
    carol = make_person("Carol", CONTRACTOR)
    joined(team, carol, in_days(9))
    make_device(carol)
    assert Peer.objects.get().expires_at == Grant.objects.get(ended_at=None).until


@pytest.mark.parametrize("kind", [EMPLOYEE, SERVICE])
def test_nobody_becomes_a_contractor_with_an_endless_membership(team: Team, kind: str) -> None:
    person = make_person("Carol", kind)
    joined(team, person, None)
    said = {"kind": ["A contractor's membership needs an end date: end those that have none first."]}
    assert refusal(lambda: change_person(actor=SYSTEM, person=Person.objects.get(), kind=CONTRACTOR)) == said
    assert Person.objects.get().kind == kind
    leave_team(actor=SYSTEM, memberships=list(Membership.objects.all()), reason="contract")
    change_person(actor=SYSTEM, person=Person.objects.get(), kind=CONTRACTOR)
    joined(team, Person.objects.get(), in_days(5))
    assert Person.objects.get().kind == CONTRACTOR


def test_nobody_becomes_a_contractor_with_an_endless_grant_that_has_not_begun(staging: Environment) -> None:
    server, person = make_server(staging), make_person("Carol")
    grant_access(actor=SYSTEM, person=person, server=server, reason="work", begins_at=in_days(3))
    said = {"kind": ["A contractor's access needs an end date: end the grants that have none first."]}
    assert refusal(lambda: change_person(actor=SYSTEM, person=person, kind=CONTRACTOR)) == said
    assert Person.objects.get().kind == EMPLOYEE
    change_person(actor=SYSTEM, person=Person.objects.get(), kind=SERVICE)
    assert Person.objects.get().kind == SERVICE


def test_a_contractor_s_grant_that_begins_later_needs_an_end_too(staging: Environment) -> None:
    server, person = make_server(staging), make_person("Carol", CONTRACTOR)

    def granted(until: dt.datetime | None) -> Grant:
        begin = in_days(3)
        return grant_access(actor=SYSTEM, person=person, server=server, reason="work", begins_at=begin, until=until)

    assert refusal(lambda: granted(None)) == {"until": ["A contractor's access needs an end date."]}
    assert not Grant.objects.exists()
    end = in_days(9)
    assert granted(end).until == end


def test_what_moves_keeps_its_end(staging: Environment) -> None:
    server, other, carol = make_server(staging), make_server(staging), make_person("Carol", CONTRACTOR)
    grant = grant_access(actor=SYSTEM, person=carol, server=server, reason="work", until=in_days(9))
    make_device(carol)
    moved = move_grant(actor=SYSTEM, grant=grant, server=other, reason="nearer")
    assert moved.until == grant.until
    assert [(p.server, p.expires_at) for p in Peer.objects.filter(ended_at=None)] == [(other, grant.until)]


def test_a_script_is_told_of_a_contractor_s_end(bob: User, staging: Environment) -> None:
    make_server(staging)
    door, carol = script(bob), make_person("Carol", CONTRACTOR)
    asked = {"person": carol.pk, "environment": staging.pk, "reason": "work"}
    assert door.post("grants", **asked) == (400, {"until": ["A contractor's access needs an end date."]})
    assert door.post("grants", **asked, until=in_days(9).isoformat())[0] == 201
    ann = make_person("Ann")
    make_grant(ann, staging)
    assert door.patch(f"people/{ann.pk}", kind="contractor")[0] == 200
    Grant.objects.filter(person=ann).update(until=None)
    door.patch(f"people/{ann.pk}", kind="employee")
    code, body = door.patch(f"people/{ann.pk}", kind="contractor")
    assert (code, list(body)) == (400, ["kind"])
