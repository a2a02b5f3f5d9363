"""Offboarding: one act ends everything that people have and nobody else's; who cannot do all of it does nothing."""

import datetime as dt

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import ApiToken, Environment, Role, User
from fleet.services import enable_user, give_role
from peers.access import of_person
from peers.granting import grant_access
from peers.leaving import held_by, offboard
from peers.models import AccessRequest, Device, Grant, Membership, Peer, Person, Receipt, Revocation, Suspension
from peers.services import register_device
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.doors import browser, rows, script

pytestmark = pytest.mark.django_db
WHY = "contract ended"


def make_leaver(name: str, environment: Environment) -> Person:
    """Somebody with a bit of everything."""
    person = make_person(name)
    make_grant(person, environment)
    make_device(person)
    phone = make_device(person, "phone")
    team = add_team(actor=SYSTEM, name=f"team-{name.lower()}")
    grant_access(actor=SYSTEM, team=team, environment=environment, reason="on call")
    join_team(actor=SYSTEM, team=team, people=[person])
    suspend(actor=SYSTEM, targets=[phone], reason="lent out")
    suspend(actor=SYSTEM, targets=[Peer.objects.filter(device=phone)[0]], reason="lent out")
    asked = {"environment": environment, "reason": "more", "duration": dt.timedelta(days=1), "asked_by": name}
    AccessRequest.objects.create(person=person, **asked)
    return person


def open_rows() -> dict[str, int]:
    """What people have now."""
    return {
        "grants": Grant.objects.filter(ended_at=None, team=None).count(),
        "memberships": Membership.objects.filter(ended_at=None).count(),
        "peers": Peer.objects.filter(ended_at=None).count(),
        "devices": Device.objects.filter(revoked_at=None).count(),
        "suspensions": Suspension.objects.filter(ended_at=None).count(),
        "requests": AccessRequest.objects.filter(decided_at=None).count(),
    }


@pytest.fixture
def people(staging: Environment) -> list[Person]:
    """Three, on two servers."""
    make_server(staging), make_server(staging)
    return [make_leaver(name, staging) for name in ("Ann", "Ben", "Eve")]


def test_one_act_ends_everything_of_some_and_nothing_of_others(people: list[Person]) -> None:
    ann, ben, eve = people
    mine = {name: count // 3 for name, count in open_rows().items()}
    assert min(mine.values()) > 0
    assert str(held_by([ann, ben])) == "4 keys on 2 servers"
    row = offboard(actor=SYSTEM, people=[ann, ben, ann], reason=WHY)
    assert open_rows() == mine
    assert set(Device.objects.filter(revoked_at=None).values_list("person", flat=True)) == {eve.pk}
    assert set(Peer.objects.exclude(ended_at=None).values_list("end", flat=True)) == {"revoked"}
    assert (row.label, row.person, row.tombstones.count()) == ("everything of 2 people", None, 4)
    assert Receipt.objects.filter(revocation=row).count() == 8
    assert list(Person.objects.filter(left_at=None)) == [eve]
    assert {one.decision for one in AccessRequest.objects.exclude(decided_at=None)} == {"cancelled"}
    event = Event.objects.latest("pk")
    assert set(event.changes_dict) == {f"person {ann.pk}", f"person {ben.pk}"}
    for person in (ann, ben):
        assert list(of_person(Revocation.objects.all(), person)) == [row]
    assert not of_person(Revocation.objects.all(), eve).exists()


def test_who_left_gets_nothing_any_more(people: list[Person], staging: Environment) -> None:
    """D9: not by what somebody read before either."""
    ann, ben, _ = people
    team = add_team(actor=SYSTEM, name="network")
    offboard(actor=SYSTEM, people=[ann], reason=WHY)
    assert ann.left_at is None  # as a page that was open meanwhile has it
    before = rows()
    for act in (
        lambda who: register_device(actor=SYSTEM, person=who, name="x", public_key=new_public_key()),
        lambda who: grant_access(actor=SYSTEM, person=who, environment=staging, reason="x"),
        lambda who: join_team(actor=SYSTEM, team=team, people=[who]),
        lambda who: suspend(actor=SYSTEM, targets=[who], reason="x"),
    ):
        with pytest.raises(ValidationError, match=r"has left|Over already"):
            act(ann)
        with pytest.raises(ValidationError, match="Left already: Ann"):
            offboard(actor=SYSTEM, people=[ben, ann], reason="again")
        assert rows() == before
        act(ben)
        before = rows()
    assert offboard(actor=SYSTEM, people=[ben], reason=WHY).tombstones.count() == 3


def test_an_operator_who_does_not_operate_all_of_it_is_refused_and_nothing_is_half_done(
    people: list[Person], bob: User, production: Environment
) -> None:
    """D4."""
    ann, ben, eve = people
    make_server(production)
    far = make_grant(ben, production)
    before = rows()
    with pytest.raises(PermissionDenied, match="ask an administrator"):
        offboard(actor=bob, people=[ann, ben], reason=WHY)
    assert (rows(), Person.objects.exclude(left_at=None).count()) == (before, 0)
    Grant.objects.filter(pk=far.pk).update(until=timezone.now())
    Peer.objects.filter(server__environment=production).update(ended_at=timezone.now(), end="expired")
    offboard(actor=bob, people=[ann, ben], reason=WHY)
    team = add_team(actor=SYSTEM, name="far")
    grant_access(actor=SYSTEM, team=team, environment=production, reason="x")
    join_team(actor=SYSTEM, team=team, people=[eve])
    with pytest.raises(PermissionDenied, match="ask an administrator"):
        offboard(actor=bob, people=[eve], reason=WHY)
    assert Person.objects.filter(left_at=None).count() == 1


def test_their_sign_in_ends_with_its_tokens_roles_and_sessions(
    alice: User, charlie: User, staging: Environment
) -> None:
    person = make_person("Charlie")
    Person.objects.filter(pk=person.pk).update(user=charlie)
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=staging)
    page, caller = browser(charlie), script(charlie)
    assert (page.get("/admin/").status_code, caller.get("people")[0]) == (200, 200)
    offboard(actor=alice, people=[person], reason=WHY)
    assert (page.get("/admin/").status_code, caller.get("people")[0]) == (302, 401)
    enable_user(actor=SYSTEM, user=User.objects.get(pk=charlie.pk), reason="hired again")
    assert caller.get("people")[0] == 401
    assert not ApiToken.objects.filter(user=charlie, revoked_at=None).exists()
    assert not Role.objects.filter(user=charlie, ended_at=None).exists()


def test_the_last_administrator_stays_and_nobody_offboards_themselves(
    alice: User, charlie: User, staging: Environment
) -> None:
    make_server(staging)
    person = make_leaver("Alice", staging)
    Person.objects.filter(pk=person.pk).update(user=alice)
    before = open_rows()
    for actor, message in ((SYSTEM, "last active administrator"), (alice, "Nobody disables themselves")):
        with pytest.raises(ValidationError, match=message):
            offboard(actor=actor, people=[person], reason=WHY)
    assert (open_rows(), Person.objects.get().left_at) == (before, None)
    User.objects.filter(pk=charlie.pk).update(is_superuser=True)
    offboard(actor=User.objects.get(pk=charlie.pk), people=[person], reason=WHY)
    assert User.objects.get(pk=alice.pk).is_active is False


def test_somebody_without_any_device_leaves_too(bob: User) -> None:
    person = make_person("Dan")
    row = offboard(actor=bob, people=[person], reason=WHY)
    assert (row.person, row.tombstones.count(), str(held_by([person]))) == (person, 0, "0 keys on 0 servers")
    with pytest.raises(ValidationError):
        offboard(actor=bob, people=[], reason=WHY)
    with pytest.raises(ValidationError):
        offboard(actor=bob, people=[make_person("Eva")], reason=" ")
    assert Person.objects.filter(left_at=None).count() == 1
