"""Offboarding over HTTP and by pages: a list of names is done whole or not at all."""

from typing import Any

import pytest

from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.services import give_role
from peers.leaving import offboard
from peers.models import Device, Person, Revocation
from peers.services import add_person
from tests.build import make_device, make_grant, make_person, make_server
from tests.doors import browser, rows, script
from tests.peers.test_admin_access import at, errors_of


@pytest.fixture
def people(staging: Environment) -> list[Person]:
    """Ann and Ben with two keys and one on a server, Carla and carla of one address but for its case, and Gone."""
    make_server(staging)
    names = ("ann", "ben", "Carla", "carla", "gone")
    found = [add_person(actor=SYSTEM, name=name.title(), email=f"{name}@example.com") for name in names]
    for person in found[:2]:
        make_grant(person, staging)
        make_device(person)
    make_device(found[0], "phone")
    offboard(actor=SYSTEM, people=found[4:], reason="left before")
    return found


def test_a_list_of_addresses_and_ids_leaves_in_one_revocation(bob: User, people: list[Person]) -> None:
    ann, ben, *_ = people
    code, row = script(bob).post(
        "people/offboard", people=["ANN@example.com", ben.pk, f" {ann.pk} "], reason="the office closes"
    )
    assert (code, row["label"], row["state"], len(row["receipts"])) == (201, "everything of 2 people", "pending", 3)
    caller = script(bob, scope="read")
    assert caller.names("people?has_left=true") == ["Ann", "Ben", "Gone"]
    for person in (ann, ben):
        assert caller.names(f"revocations?person={person.pk}", "id") == [row["id"]]


def test_every_name_that_is_not_one_person_is_told_and_nothing_is_done(bob: User, people: list[Person]) -> None:
    """A4."""
    caller, ids = script(bob), [person.pk for person in people]
    before = rows()
    names = [ids[0], "nobody@example.com", "carla@example.com", "gone@example.com", 10**30, "Ann", "-1", ""]
    code, body = caller.post("people/offboard", people=names, reason="x")
    assert (code, body["people"]) == (
        400,
        [
            "nobody@example.com: there is nobody of this e-mail address or id.",
            f"carla@example.com: 2 people have this address; name the one by id: {ids[2]}, {ids[3]}.",
            "gone@example.com: has left already.",
            f"{10**30}: there is nobody of this e-mail address or id.",
            "Ann: there is nobody of this e-mail address or id.",
            "-1: there is nobody of this e-mail address or id.",
            ": there is nobody of this e-mail address or id.",
        ],
    )
    for bad in ([], None, "all", [None], [[1]], [True], [1] * 1001):
        code, body = caller.post("people/offboard", people=bad, reason="x")
        assert (code, list(body)) == (400, ["people"]), bad
    assert list(caller.post("people/offboard", people=[ids[0]], reason=" ")[1]) == ["reason"]
    assert rows() == before
    assert caller.post("people/offboard", people=["carla@example.com".title(), ids[0]], reason="x")[0] == 400


def test_who_may_not_do_all_of_it_does_nothing(
    bob: User, charlie: User, people: list[Person], production: Environment
) -> None:
    """D4."""
    make_server(production)
    make_grant(people[1], production)
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=None)
    chosen = {"people": [one.pk for one in people[:2]], "reason": "x"}
    callers = script(bob), script(charlie), script(bob, scope="read")
    before = rows()
    for caller in callers:
        assert caller.post("people/offboard", **chosen)[0] == 403
    assert rows() == before
    assert callers[0].post("people/offboard", people=[people[0].pk], reason="x")[0] == 201


def test_a_person_s_page_offers_it_and_says_how_much_it_is(bob: User, people: list[Person]) -> None:
    client, ann = browser(bob), people[0]
    path, page = at("peers_person_offboard", ann.pk), at("peers_person_change", ann.pk)
    assert path in client.get(page).content.decode()
    assert "2 keys on 1 server will be revoked" in client.get(path).content.decode()
    assert list(errors_of(client.post(path, {"_answered": "1", "reason": " "}))) == ["reason"]
    assert Person.objects.get(pk=ann.pk).left_at is None
    answer = client.post(path, {"_answered": "1", "reason": "left"})
    assert answer["Location"] == at("peers_revocation_change", Revocation.objects.get(person=ann).pk)
    shown = client.get(page).content.decode()
    for act in ("offboard", "grant", "add_device", "suspend", "revoke"):
        assert at(f"peers_person_{act}", ann.pk) not in shown


def test_those_selected_in_the_list_leave_together(bob: User, people: list[Person]) -> None:
    client, path = browser(bob), at("peers_person_changelist")
    chosen: dict[str, Any] = {"action": "offboard_selected", "_selected_action": [one.pk for one in people[:2]]}
    assert "3 keys on 1 server will be revoked" in client.post(path, chosen).content.decode()
    assert Person.objects.filter(left_at=None).count() == 4
    assert client.post(path, {**chosen, "_answered": "1", "reason": "left"}).status_code == 302
    assert set(Person.objects.filter(left_at=None)) == set(people[2:4])
    revocation = Revocation.objects.get(person=None)
    for person in people[:2]:
        page = client.get(at("peers_person_change", person.pk)).content.decode()
        assert at("peers_revocation_change", revocation.pk) in page


def test_a_pasted_list_is_named_then_counted_then_done(bob: User, people: list[Person]) -> None:
    client, path = browser(bob), at("peers_person_offboard_list")
    assert path in client.get(at("peers_person_changelist")).content.decode()
    assert client.get(path).status_code == 200
    before = rows()
    errors = errors_of(client.post(path, {"_named": "1", "people": "ann@example.com\r\nx@example.com\r\n77777"}))
    assert [message.split(":")[0] for message in errors["people"]] == ["x@example.com", "77777"]
    assert list(errors_of(client.post(path, {"_named": "1", "people": ""}))) == ["people"]
    page = client.post(path, {"_named": "1", "people": f"ann@example.com\n\n{people[1].pk}\n"}).content.decode()
    assert ("Offboard 2 people?" in page, "3 keys on 1 server will be revoked" in page) == (True, True)
    chosen = {"_selected_action": [one.pk for one in people[:2]]}
    assert list(errors_of(client.post(path, {**chosen, "_answered": "1", "reason": ""}))) == ["reason"]
    assert rows() == before
    answer = client.post(path, {**chosen, "_answered": "1", "reason": "the office closes"})
    assert answer["Location"] == at("peers_revocation_change", Revocation.objects.get(person=None).pk)
    assert not Device.objects.filter(revoked_at=None).exists()


def test_who_operates_nothing_is_offered_no_list(charlie: User, staging: Environment) -> None:
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=staging)
    client, person = browser(charlie), make_person()
    for path in (at("peers_person_offboard_list"), at("peers_person_offboard", person.pk)):
        assert client.get(path).status_code == 403
    assert Person.objects.get().left_at is None
