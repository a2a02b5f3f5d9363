"""A suspension of one peer means this device on this server: it outlives that peer, until somebody resumes it there."""

import datetime as dt
from collections.abc import Callable
from importlib import import_module

import pytest
from django.apps import apps
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from fleet.scope import Scope
from nodes.brake import preview
from nodes.desired import desired_state
from nodes.models import ReviewItem
from nodes.reviews import decide_review, hand_on_reviews
from peers.answers import answer_person
from peers.due import settle_due
from peers.granting import end_grants, grant_access
from peers.history import access_at
from peers.leaving import offboard
from peers.lost import report_lost
from peers.models import Device, Grant, Membership, Peer, Person, Suspension
from peers.moving import move_grant
from peers.revocation import revoke_devices
from peers.services import register_device
from peers.states import peer_state, suspension_state, with_causes
from peers.suspending import resume, suspend
from peers.teams import add_team, join_team, leave_team
from tests.build import make_device, make_person, make_review, make_server, new_public_key
from tests.doors import browser, rows, script
from tests.nodes.pushes import push
from tests.peers.test_admin_access import at

pytestmark = pytest.mark.django_db
WHY = "strange traffic"
DORMANT = "takes hold when access comes back"
EVERYTHING = Scope(is_admin=True, sees=None, operates=None)


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn-a")


@pytest.fixture
def device(server: Server) -> Device:
    """Carol's laptop, by a grant to the one server; her phone and Dave's laptop are beside it."""
    carol, dave = make_person("Carol"), make_person("Dave")
    for person in (carol, dave):
        grant_access(actor=SYSTEM, person=person, server=server, reason="work")
        make_device(person)
    make_device(carol, "phone")
    return Device.objects.get(person=carol, name="laptop")


def laptop_of(server: Server, device: Device) -> Peer:
    return with_causes(Peer.objects.filter(ended_at=None)).get(server=server, device=device)


def keep_out(server: Server, device: Device) -> Suspension:
    return suspend(actor=SYSTEM, targets=[laptop_of(server, device)], reason=WHY)[0]


def pushed(server: Server) -> set[str]:
    keys = desired_state(server.pk).content.peers
    return {f"{one.person.name}'s {one.name}" for one in Device.objects.filter(public_key__in=keys)}


def end_access(person: Person) -> None:
    if grants := list(Grant.objects.filter(person=person, ended_at=None)):
        end_grants(actor=SYSTEM, grants=grants, reason="over")


def by_a_grant(server: Server, person: Person) -> None:
    end_access(person)
    grant_access(actor=SYSTEM, person=person, server=server, reason="work again")


def by_a_team(server: Server, person: Person) -> None:
    """In by two, out of both, and in again by the team alone."""
    team = add_team(actor=SYSTEM, name="web")
    grant_access(actor=SYSTEM, team=team, server=server, reason="web")
    join_team(actor=SYSTEM, team=team, people=[person])
    end_access(person)
    leave_team(actor=SYSTEM, memberships=[Membership.objects.get(ended_at=None)], reason="moved on")
    assert not Peer.objects.filter(device__person=person, ended_at=None).exists()
    join_team(actor=SYSTEM, team=team, people=[person])


def by_time(server: Server, person: Person) -> None:
    Grant.objects.filter(person=person).update(until=timezone.now())
    Peer.objects.filter(device__person=person).update(expires_at=timezone.now())
    settle_due()
    grant_access(actor=SYSTEM, person=person, server=server, reason="prolonged too late")


@pytest.mark.parametrize("come_back", [by_a_grant, by_a_team, by_time])
def test_access_that_comes_back_lets_nobody_in_who_is_suspended_there(
    server: Server, device: Device, come_back: Callable[[Server, Person], None]
) -> None:
    """The person's other device comes in, as Dave does; and the same decision holds until somebody resumes it."""
    held, before = keep_out(server, device), laptop_of(server, device)
    come_back(server, device.person)
    after = laptop_of(server, device)
    assert (after != before, pushed(server)) == (True, {"Carol's phone", "Dave's laptop"})
    assert peer_state(after) == "suspending"
    old, new = Suspension.objects.order_by("pk")
    same = ("reason", "began_act", "suspended_by", "is_decided", "is_idle")
    assert [getattr(new, name) for name in same] == [getattr(held, name) for name in same]
    assert (old.peer, new.peer, new.origin, old.ended_at, old.ended_by) == (before, after, held, new.began_at, "")
    [shut] = desired_state(server.pk).shut
    assert (shut.peer_id, shut.act, shut.is_decided) == (after.pk, held.began_act, True)
    resume(actor=SYSTEM, suspension=new, reason="it was a game")
    assert pushed(server) == {"Carol's laptop", "Carol's phone", "Dave's laptop"}


def test_it_is_one_decision_however_often_access_ends_and_what_was_said_of_the_past_stays(
    server: Server, device: Device, alice: User
) -> None:
    first, moments, answers = timezone.now(), [], []
    held = keep_out(server, device)
    for _ in range(3):
        by_a_grant(server, device.person)
        moments.append(timezone.now())
        answers.append(said(server, device, moments[-1]))
    assert [said(server, device, at) for at in moments] == answers
    assert {state for state, _ in answers} == {"suspended"}
    assert {note.split(": ")[1] for _, note in answers} == {WHY}
    assert len({note for _, note in answers}) == 1  # since when, too
    assert said(server, device, first) == ("has it", "")
    last = Suspension.objects.get(ended_at=None)
    assert (last.since, last.origin) == (held.began_at, held)
    resume(actor=alice, suspension=last, reason="clean")
    assert story(alice, device) == ["resumed", *["still suspended"] * 3, "suspended"]  # newest first
    assert Event.objects.filter(verb__startswith="suspension.").count() == 2
    assert [suspension_state(one) for one in Suspension.objects.order_by("pk")] == ["went on"] * 3 + ["ended"]


def said(server: Server, device: Device, at: dt.datetime) -> tuple[str, str]:
    [row] = [row for row in access_at(at, EVERYTHING, server=server.pk) if row.device == device]
    return row.state, row.note


def story(user: User, device: Device) -> list[str]:
    [timeline] = [
        one for one in answer_person(user, timezone.now(), device.person, is_now=True) if one.name == "timeline"
    ]
    words = [str(line["what"]) for line in timeline.every()]
    return [word for word in words if word.endswith(("suspended", "resumed"))]


def test_what_takes_hold_when_access_comes_back_is_listed_and_resumed_by_its_operators(
    server: Server, device: Device, bob: User, alice: User, production: Environment
) -> None:
    """B3: Bob operates staging alone."""
    far = make_server(production, "vpn-far")
    grant_access(actor=SYSTEM, person=device.person, server=far, reason="work")
    here, there = keep_out(server, device), keep_out(far, device)
    end_access(device.person)
    page, caller = browser(bob), script(bob)
    for path in (at("peers_suspension_changelist"), at("peers_person_change", device.person_id)):
        shown = page.get(path).content.decode()
        assert (DORMANT in shown, "vpn-far" in shown) == (True, False)
    assert [row["state"] for row in caller.get("suspensions?is_ended=false")[1]["results"]] == [DORMANT]
    assert at("peers_suspension_resume", here.pk) in page.get(at("peers_suspension_change", here.pk)).content.decode()
    before = rows()
    with pytest.raises(PermissionDenied):
        resume(actor=bob, suspension=there, reason="fine")
    assert rows() == before
    assert caller.post(f"suspensions/{here.pk}/resume", reason="fine")[1]["ended_by"] == "bob"
    assert Event.objects.latest("pk").environment_label == "staging"
    resume(actor=alice, suspension=there, reason="fine")
    by_a_grant(server, device.person)
    assert "Carol's laptop" in pushed(server)


def test_it_ends_with_the_key_or_with_who_leaves_for_good(server: Server, device: Device) -> None:
    keep_out(server, device)
    end_access(device.person)
    with pytest.raises(ValidationError, match="Over already"):
        suspend(actor=SYSTEM, targets=[Peer.objects.get(device=device)], reason=WHY)
    revoke_devices(actor=SYSTEM, devices=[device], reason="scrapped")
    assert suspension_state(Suspension.objects.get()) == "over"
    phone = Device.objects.get(person=device.person, revoked_at=None)
    by_a_grant(server, device.person)
    keep_out(server, phone)
    end_access(device.person)
    assert suspension_state(Suspension.objects.get(peer__device=phone)) == DORMANT
    offboard(actor=SYSTEM, people=[device.person], reason="left")
    assert not Suspension.objects.filter(ended_at=None).exists()


def test_neither_a_new_key_nor_the_word_lost_is_a_way_round_it(server: Server, device: Device, charlie: User) -> None:
    """B5: and another device of hers may have a new key, and be lost. No server is named that nobody may see."""
    Person.objects.filter(pk=device.person_id).update(user=charlie)
    device.person.refresh_from_db()
    phone = Device.objects.get(person=device.person, name="phone")
    keep_out(server, device)
    end_access(device.person)
    key = new_public_key()
    with pytest.raises(ValidationError, match="on a server that it has no access to now: resume it first"):
        register_device(actor=SYSTEM, person=device.person, name="new", public_key=key, replaces=device)
    with pytest.raises(ValidationError, match="kept out"):
        report_lost(actor=charlie, device=device, public_key=key)
    register_device(actor=SYSTEM, person=device.person, name="new", public_key=key, replaces=phone)
    assert report_lost(actor=charlie, device=phone, public_key=new_public_key())[1] is not None


def test_a_key_that_is_to_take_its_place_is_kept_out_along_with_it(server: Server, device: Device) -> None:
    new = register_device(actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device)
    keep_out(server, device)
    by_a_grant(server, device.person)
    assert pushed(server) == {"Carol's phone", "Dave's laptop"}
    resume(actor=SYSTEM, suspension=Suspension.objects.get(peer__device=new, ended_at=None), reason="by itself")
    assert pushed(server) == {"Carol's new", "Carol's phone", "Dave's laptop"}
    by_a_grant(server, device.person)
    assert pushed(server) == {"Carol's phone", "Dave's laptop"}
    assert Suspension.objects.filter(ended_at=None).count() == 2
    Suspension.objects.filter(peer__device=new).update(ended_at=timezone.now(), ended_by="x")
    Suspension.objects.filter(ended_at=None).update(is_idle=True)  # the new key may be the one that is used
    by_a_grant(server, device.person)
    assert pushed(server) == {"Carol's new", "Carol's phone", "Dave's laptop"}


def test_a_move_keeps_out_on_both_servers(server: Server, device: Device, staging: Environment) -> None:
    """On each until somebody resumes them there, and never by two suspensions."""
    new, held = make_server(staging, "vpn-b"), keep_out(server, device)

    def move(to: Server) -> None:
        grant = Grant.objects.get(person=device.person, ended_at=None)
        move_grant(actor=SYSTEM, grant=grant, server=to, reason="nearer")
        Peer.objects.exclude(ended_at=None).update(gone_at=timezone.now())
        settle_due()

    for place in (new, server, new):
        move(place)
        assert pushed(place) - {"Dave's laptop"} == {"Carol's phone"}
        held_now = Suspension.objects.filter(ended_at=None).order_by("peer__server__name")
        assert [(one.peer.server, one.origin or one) for one in held_now if one.peer] == [(server, held), (new, held)]
    here = Suspension.objects.get(ended_at=None, peer__server=new)
    resume(actor=SYSTEM, suspension=here, reason="clean")
    assert pushed(new) == {"Carol's laptop", "Carol's phone"}
    assert suspension_state(Suspension.objects.get(ended_at=None)) == DORMANT
    move(server)
    assert pushed(server) == {"Carol's phone", "Dave's laptop"}


def test_who_was_shut_at_the_machine_comes_back_only_once_a_person_decided(server: Server, device: Device) -> None:
    """D14: nor by a new key, by the word lost, or by a move."""
    item = make_review(laptop_of(server, device))
    by_a_grant(server, device.person)
    assert (pushed(server), peer_state(laptop_of(server, device))) == (
        {"Carol's phone", "Dave's laptop"},
        "shut at its machine",
    )
    with pytest.raises(ValidationError, match="decide its review item first"):
        move_grant(
            actor=SYSTEM,
            grant=Grant.objects.get(person=device.person, ended_at=None),
            server=make_server(server.environment),
            reason="nearer",
        )
    register_device(actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device)
    assert pushed(server) == {"Carol's phone", "Dave's laptop"}
    hand_on_reviews()
    item = ReviewItem.objects.get()
    assert (item.peer, item.state) == (laptop_of(server, device), "waiting")
    assert Event.objects.latest("pk").reason == "its access came back"
    decide_review(actor=SYSTEM, item=item, decision="resume", reason="found")
    assert pushed(server) == {"Carol's laptop", "Carol's new", "Carol's phone", "Dave's laptop"}


def test_a_key_that_came_while_access_was_over_waits_for_the_same_decision(
    server: Server, device: Device, charlie: User
) -> None:
    Person.objects.filter(pk=device.person_id).update(user=charlie)
    device.person.refresh_from_db()
    new = register_device(actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device)
    make_review(laptop_of(server, device))
    end_access(device.person)
    with pytest.raises(ValidationError, match="kept out"):
        report_lost(actor=charlie, device=device, public_key=new_public_key())
    revoke_devices(actor=SYSTEM, devices=[device], reason="replaced")
    grant_access(actor=SYSTEM, person=device.person, server=server, reason="work again")
    assert pushed(server) == {"Carol's phone", "Dave's laptop"}
    hand_on_reviews()
    assert ReviewItem.objects.get().peer == laptop_of(server, new)


def test_what_was_let_in_before_is_not_shut_out_by_what_was_forgotten(server: Server, device: Device) -> None:
    """As rows were left by a Console that let a suspension end with its peer."""
    held, phone = keep_out(server, device), Device.objects.get(person=device.person, name="phone")
    waits = keep_out(server, phone)
    by_a_grant(server, device.person)
    Suspension.objects.exclude(pk__in=[held.pk, waits.pk]).delete()
    Suspension.objects.update(ended_at=None)
    Peer.objects.filter(device=phone, ended_at=None).delete()
    import_module("peers.migrations.0010_kept_out_on").end_what_was_passed_by(apps, None)
    found = {one.pk: one for one in Suspension.objects.all()}
    assert (found[held.pk].ended_by, found[waits.pk].ended_at) == ("Console", None)


def test_keeping_out_costs_the_same_however_many_are(server: Server, device: Device) -> None:
    """L4."""
    counts = []
    for number in (1, 12):
        for extra in range(number):
            keep_out(server, make_device(device.person, f"tablet {number} {extra}"))
        end_access(device.person)
        with CaptureQueriesContext(connection) as asked:
            grant_access(actor=SYSTEM, person=device.person, server=server, reason="again")
        counts.append(len(asked))
    assert counts[0] == counts[1]
    assert Suspension.objects.filter(ended_at=None, peer__ended_at=None).count() == 13


def test_whom_nothing_lets_in_is_no_removal_that_waits_for_a_person(server: Server) -> None:
    """Seven at once wait for an approval where they have a tunnel; where they come back to none, nothing goes."""
    people = [make_person(f"Person {number}") for number in range(7)]
    for person in people:
        grant_access(actor=SYSTEM, person=person, server=server, reason="work")
        make_device(person)
    push(server)
    suspend(actor=SYSTEM, targets=list(Peer.objects.all()), reason=WHY)
    assert preview(desired_state(server.pk))[1].startswith("7 of 7 peers would go")
    for person in people:
        by_a_grant(server, person)
    state = desired_state(server.pk)
    assert (len(state.shut), state.content.peers, preview(state)[1]) == (7, {}, "")
