"""Access that is asked for: who may ask, who decides, and what the grant then says."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.services import add_user, disable_user, end_role, give_role
from peers.leaving import offboard
from peers.linking import link_user
from peers.models import AccessRequest, Grant, Peer, Person
from peers.requests import approve_request, cancel_request, deny_request, may_approve, may_cancel, request_access
from peers.suspending import resume, suspend
from tests.build import make_device, make_person, make_request, make_server
from tests.worlds import everything

pytestmark = pytest.mark.django_db
DAY = dt.timedelta(days=1)


@pytest.fixture
def dora(staging: Environment) -> User:
    """A second operator of staging."""
    user = add_user(actor=SYSTEM, username="dora", email="", password=None, is_superuser=False)
    give_role(actor=SYSTEM, user=user, name=Role.Name.OPERATOR, environment=staging)
    return user


@pytest.fixture
def carol(charlie: User) -> Person:
    """Charlie's person: he has no role."""
    return link_user(actor=SYSTEM, person=make_person("Carol"), user=charlie, reason="joined")


def need_second(environment: Environment, *, needed: bool = True) -> None:
    Environment.objects.filter(pk=environment.pk).update(needs_second=needed)


def refused(error: type[Exception], ask: Callable[..., object], **values: Any) -> str:
    """The message; nothing has changed by it."""
    before = everything()
    with pytest.raises(error) as refusal:
        ask(**values)
    assert everything() == before
    return " ".join(getattr(refusal.value, "messages", [str(refusal.value)]))


def test_an_approval_makes_the_grant_that_was_asked_for_and_it_tells_the_story(
    staging: Environment, carol: Person, charlie: User, bob: User
) -> None:
    server = make_server(staging)
    make_device(carol)
    asked = request_access(
        actor=charlie,
        person=carol,
        server=server,
        reason="deploys",
        duration=3 * DAY,
        networks=["10.0.0.0/8"],
        hours="mon-fri 08:00-18:00",
    )
    assert (asked.asked_by, asked.asker, asked.state) == ("charlie", charlie, "open")
    now = timezone.now()
    decided = approve_request(actor=bob, request=asked, reason="as agreed")
    grant = Grant.objects.get()
    assert (grant.person, grant.server, grant.environment, grant.request) == (carol, server, None, asked)
    assert (grant.networks, grant.hours) == (["10.0.0.0/8"], "mon-fri 08:00-18:00")
    assert (grant.reason, grant.granted_by) == ("deploys", "bob")
    assert grant.until is not None
    assert dt.timedelta(0) <= grant.until - now - 3 * DAY < dt.timedelta(seconds=60)
    assert (decided.state, decided.decided_by, decided.decision_reason) == ("approved", "bob", "as agreed")
    assert Peer.objects.get(ended_at=None).server == server


def test_the_ledger_has_each_step_and_the_grant_names_its_request(
    staging: Environment, carol: Person, charlie: User, bob: User, dora: User
) -> None:
    """G1."""
    need_second(staging)
    last = Event.objects.latest("pk").pk
    asked = make_request(carol, staging, actor=charlie)
    approve_request(actor=bob, request=asked)
    approve_request(actor=dora, request=asked, reason="agreed")
    found = Event.objects.filter(pk__gt=last).order_by("pk")
    assert [(event.verb, event.actor_label, event.reason, event.environment_label) for event in found] == [
        ("request.add", "charlie", "project", "staging"),
        ("request.approve", "bob", "project", "staging"),
        ("grant.add", "dora", "project", "staging"),
        ("request.approve", "dora", "agreed", "staging"),
    ]
    assert [event.changes["decision"][1] for event in found if event.verb == "request.approve"] == [
        "first approval",
        "approved",
    ]
    assert str(asked.pk) in str(found[2].changes["request"]) or str(asked) in str(found[2].changes["request"])


def test_two_operators_agree_where_the_environment_asks_for_it(
    staging: Environment, bob: User, dora: User, alice: User
) -> None:
    need_second(staging)
    asked = make_request(make_person(), staging)
    half = approve_request(actor=bob, request=asked)
    assert (half.state, half.first_approved_by, Grant.objects.count()) == ("half approved", "bob", 0)
    assert "another operator" in refused(PermissionDenied, approve_request, actor=bob, request=half)
    assert (may_approve(bob, half), may_approve(dora, half)) == (False, True)
    User.objects.filter(pk=bob.pk).update(username="dora2")  # who somebody is does not hang on a label
    renamed = User.objects.get(pk=bob.pk)
    assert "another operator" in refused(PermissionDenied, approve_request, actor=renamed, request=half)
    approve_request(actor=dora, request=half)
    assert Grant.objects.get().granted_by == "bob and dora"


def test_how_many_have_to_agree_is_asked_at_each_decision(
    staging: Environment, production: Environment, bob: User, dora: User
) -> None:
    first, second = make_request(make_person("Ann"), staging), make_request(make_person("Ben"), staging)
    need_second(staging)
    approve_request(actor=bob, request=first)  # read before, when one was enough
    assert not Grant.objects.exists()
    need_second(staging, needed=False)
    approve_request(actor=bob, request=first)
    assert Grant.objects.get().granted_by == "bob"
    approve_request(actor=dora, request=second)
    assert Grant.objects.count() == 2


def test_nobody_approves_what_they_asked_for_or_what_is_for_themselves(
    staging: Environment, bob: User, dora: User, alice: User
) -> None:
    """B5: administrators are no exception."""
    himself = link_user(actor=SYSTEM, person=make_person("Bob"), user=bob, reason="joined")
    herself = link_user(actor=SYSTEM, person=make_person("Alice"), user=alice, reason="joined")
    for actor, asked in (
        (bob, make_request(make_person(), staging, actor=bob)),
        (bob, make_request(himself, staging, actor=dora)),
        (alice, make_request(make_person(), staging, actor=alice)),
        (alice, make_request(herself, staging, actor=dora)),
    ):
        assert "Nobody approves" in refused(PermissionDenied, approve_request, actor=actor, request=asked)
        assert not may_approve(actor, asked)
        other = dora if asked.asker != dora else (alice if actor == bob else bob)
        assert (may_approve(other, asked), approve_request(actor=other, request=asked).state) == (True, "approved")


def test_a_link_made_meanwhile_counts(staging: Environment, bob: User, dora: User) -> None:
    person = make_person()
    asked = make_request(person, staging, actor=dora)
    link_user(actor=SYSTEM, person=person, user=bob, reason="it is him")
    assert "Nobody approves" in refused(PermissionDenied, approve_request, actor=bob, request=asked)


def test_one_denial_is_enough_and_says_why(staging: Environment, bob: User, dora: User) -> None:
    need_second(staging)
    asked = make_request(make_person(), staging)
    approve_request(actor=bob, request=asked)
    for bad in ("", " ", "a\nb", "x" * 501):
        refused(ValidationError, deny_request, actor=dora, request=asked, reason=bad)
    denied = deny_request(actor=dora, request=asked, reason="not needed")
    assert (denied.state, denied.decided_by, denied.decision_reason) == ("denied", "dora", "not needed")
    assert not Grant.objects.exists()


@pytest.mark.parametrize("decide", [approve_request, deny_request, cancel_request])
def test_what_was_decided_stays_so(decide: Callable[..., AccessRequest], staging: Environment, bob: User) -> None:
    asked = make_request(make_person(), staging)
    decide(actor=bob, request=asked, reason="first")
    for again in (approve_request, deny_request, cancel_request):
        message = refused(ValidationError, again, actor=SYSTEM, request=asked, reason="again")
        assert message == f"This was {AccessRequest.objects.get().decision} by bob already: look again."


def test_who_asked_whom_it_is_for_and_an_operator_may_cancel(
    staging: Environment, production: Environment, carol: Person, charlie: User, bob: User, dora: User
) -> None:
    helen, other = (
        add_user(actor=SYSTEM, username=name, email="", password=None, is_superuser=False) for name in ("helen", "hugo")
    )
    for user in (helen, other):
        give_role(actor=SYSTEM, user=user, name=Role.Name.HELPDESK, environment=staging)
    for actor in (helen, charlie, bob):
        asked = make_request(carol, staging, actor=helen)
        assert not may_cancel(other, asked)
        refused(PermissionDenied, cancel_request, actor=other, request=asked)
        assert may_cancel(actor, asked)
        assert cancel_request(actor=actor, request=asked).decided_by == actor.username
    assert not Grant.objects.exists()


def test_only_for_oneself_or_where_one_helps_is_asked(
    staging: Environment, production: Environment, carol: Person, charlie: User, bob: User
) -> None:
    """B3, D4."""
    other = make_person("Dave")
    place: dict[str, Any] = {"environment": production, "reason": "x", "duration": DAY}
    assert "beyond what charlie covers" in refused(
        PermissionDenied, request_access, actor=charlie, person=other, **place
    )
    message = refused(PermissionDenied, request_access, actor=bob, person=other, **place)
    assert ("beyond" in message, "production" in message) == (True, False)
    assert request_access(actor=charlie, person=carol, environment=production, reason="x", duration=DAY).pk
    charlie.is_active = False
    refused(PermissionDenied, request_access, actor=charlie, person=carol, **{**place, "environment": staging})


@pytest.mark.parametrize(
    "duration", [dt.timedelta(0), -DAY, dt.timedelta(seconds=59), 366 * DAY + dt.timedelta(seconds=1)]
)
def test_a_duration_has_bounds(duration: dt.timedelta, staging: Environment) -> None:
    values: dict[str, Any] = {"actor": SYSTEM, "person": make_person(), "environment": staging, "reason": "x"}
    message = refused(ValidationError, request_access, duration=duration, **values)
    assert message == "Give a duration from one minute to 366 days."
    assert request_access(duration=366 * DAY, **values).pk


@pytest.mark.parametrize(
    ("field", "value"),
    [("reason", " "), ("reason", "a\nb"), ("hours", "always"), ("networks", ["10.0.0.1/8"]), ("environment", None)],
)
def test_a_bad_field_is_refused(field: str, value: Any, staging: Environment) -> None:
    """A1, A3."""
    good: dict[str, Any] = {
        "actor": SYSTEM,
        "person": make_person(),
        "environment": staging,
        "reason": "x",
        "duration": DAY,
    }
    refused(ValidationError, request_access, **{**good, field: value})
    assert request_access(**good).pk


def test_the_same_is_not_asked_twice_while_it_waits(staging: Environment) -> None:
    person, server = make_person(), make_server(staging)
    first = make_request(person, staging)
    values: dict[str, Any] = {"actor": SYSTEM, "person": person, "reason": "x", "duration": DAY}
    message = refused(ValidationError, request_access, environment=staging, **values)
    assert message.startswith(f"This was asked for already: request {first.pk} of ")
    assert request_access(server=server, **values).pk
    assert make_request(make_person("Dave"), staging).pk
    deny_request(actor=SYSTEM, request=first, reason="no")
    assert request_access(environment=staging, **values).pk


def test_who_is_kept_out_meanwhile_is_not_let_in_by_a_request(staging: Environment, bob: User, charlie: User) -> None:
    """D3."""
    person = link_user(actor=SYSTEM, person=make_person("Carol"), user=charlie, reason="joined")
    asked = make_request(person, staging)
    (suspension,) = suspend(actor=SYSTEM, targets=[person], reason="lost laptop")
    assert "resume them first" in refused(ValidationError, approve_request, actor=bob, request=asked)
    resume(actor=SYSTEM, suspension=suspension, reason="found")
    disable_user(actor=SYSTEM, user=charlie, reason="left?")
    assert "enable it first" in refused(ValidationError, approve_request, actor=bob, request=asked)
    other = make_request(make_person("Dave"), staging)
    assert approve_request(actor=bob, request=other).state == "approved"


def test_who_leaves_takes_their_requests_with_them(staging: Environment, bob: User) -> None:
    """D3."""
    person = make_person()
    asked = make_request(person, staging)
    offboard(actor=SYSTEM, people=[person], reason="left")
    assert "cancelled by Console" in refused(ValidationError, approve_request, actor=bob, request=asked)
    AccessRequest.objects.update(decided_at=None, decision="")
    assert "has left" in refused(ValidationError, approve_request, actor=bob, request=asked)
    assert "has left" in refused(
        ValidationError, request_access, actor=SYSTEM, person=person, environment=staging, reason="x", duration=DAY
    )


def test_a_contractor_s_access_ends_with_its_duration(staging: Environment, bob: User) -> None:
    asked = make_request(make_person(kind=Person.Kind.CONTRACTOR), staging, days=2)
    approve_request(actor=bob, request=asked)
    until = Grant.objects.get().until
    assert until is not None
    assert dt.timedelta(days=1) < until - timezone.now() <= dt.timedelta(days=2)


def test_a_sign_in_is_one_person_s(staging: Environment, alice: User, charlie: User, bob: User) -> None:
    person, other = make_person("Carol"), make_person("Dave")
    link_user(actor=alice, person=person, user=charlie, reason="joined")
    assert "Carol's already" in refused(
        ValidationError, link_user, actor=alice, person=other, user=charlie, reason="him?"
    )
    refused(ValidationError, link_user, actor=alice, person=other, user=bob, reason=" ")
    refused(PermissionDenied, link_user, actor=bob, person=other, user=bob, reason="me")
    link_user(actor=alice, person=person, user=None, reason="wrong one")
    assert link_user(actor=alice, person=other, user=charlie, reason="him").user == charlie
    offboard(actor=SYSTEM, people=[other], reason="left")
    refused(ValidationError, link_user, actor=alice, person=person, user=charlie, reason="disabled")
    refused(ValidationError, link_user, actor=alice, person=other, user=bob, reason="left")
    event = Event.objects.filter(verb="person.link").order_by("pk")[1]
    assert (event.target_label, event.changes) == ("Carol", {"user": ["charlie", ""]})


def test_an_approval_counts_as_long_as_who_gave_it_operates_there(staging: Environment, bob: User, dora: User) -> None:
    """B5: nobody agrees with whoever was shut out meanwhile."""
    need_second(staging)
    erin = add_user(actor=SYSTEM, username="erin", email="", password=None, is_superuser=False)
    role = give_role(actor=SYSTEM, user=erin, name=Role.Name.OPERATOR, environment=staging)
    asked = make_request(make_person(), staging)
    approve_request(actor=erin, request=asked)
    end_role(actor=SYSTEM, role=role)
    again = approve_request(actor=bob, request=asked)
    assert (again.state, again.first_approved_by) == ("half approved", "bob")
    assert not Grant.objects.exists()
    assert approve_request(actor=dora, request=asked).decision == "approved"
    assert Grant.objects.get().granted_by == "bob and dora"
