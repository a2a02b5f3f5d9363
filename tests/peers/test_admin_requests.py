"""The pages of requests, and which of them and of their buttons each user gets."""

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any

import pytest
from django.db.models import Model
from django.urls import reverse

from audit.models import Event
from audit.services import SYSTEM
from fleet.admin import page_of
from fleet.models import Environment, Role, User
from fleet.services import add_user, give_role
from peers.linking import link_user
from peers.models import AccessRequest, Grant, Peer, Person
from peers.moving import move_grant
from peers.requests import approve_request, deny_request, request_access
from tests.build import make_device, make_grant, make_person, make_request, make_server
from tests.doors import browser, rows

pytestmark = pytest.mark.django_db
LIST, ADD = "/admin/peers/accessrequest/", "/admin/peers/accessrequest/add/"
ASK = {"duration": "3 00:00:00", "reason": "deploys"}
BADGE = re.compile(r"min-w-\[18px\] bg-red-100[^>]*>(\d+)<")


def make_user(name: str, role: str, environment: Environment) -> User:
    user = add_user(actor=SYSTEM, username=name, email="", password=None, is_superuser=False)
    give_role(actor=SYSTEM, user=user, name=role, environment=environment)
    return user


@pytest.fixture
def carol(charlie: User) -> Person:
    """Charlie's person: he has no role."""
    return link_user(actor=SYSTEM, person=make_person("Carol"), user=charlie, reason="joined")


def act_on(row: Model, act: str) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{act}", args=[row.pk])


def shown(user: User, row: Model, acts: Iterable[str]) -> set[str]:
    page = browser(user).get(page_of(row)).content.decode()
    return {act for act in acts if act_on(row, act) in page}


def errors_of(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.status_code
    context = answer.context
    return list((context["adminform"].form if "adminform" in context else context["form"]).errors)


def test_a_person_asks_and_an_operator_approves_on_the_pages(
    charlie: User, carol: Person, bob: User, staging: Environment
) -> None:
    own, operator = browser(charlie), browser(bob)
    assert [ADD in one.get("/admin/").content.decode() for one in (own, operator)] == [True, False]
    assert own.get("/admin/").status_code == 200
    form = own.get(ADD).content.decode()
    assert ('name="place"' in form, 'name="person"' in form, 'name="environment"' in form) == (True, False, False)
    before = rows()
    for bad in (
        {"place": ""},
        {"place": "nowhere"},
        {"duration": ""},
        {"duration": "0"},
        {"duration": "2 weeks"},
        {"reason": ""},
    ):
        assert errors_of(own.post(ADD, {"place": "staging", **ASK, **bad})) in ([*bad], ["__all__"])
    assert rows() == before
    assert own.post(ADD, {"place": "staging", **ASK})["Location"] == LIST
    asked = AccessRequest.objects.get()
    assert (asked.person, asked.environment, asked.asked_by, asked.duration) == (
        carol,
        staging,
        "charlie",
        dt.timedelta(3),
    )
    assert operator.post(act_on(asked, "approve"), {"_answered": "1", "reason": ""})["Location"] == page_of(asked)
    grant = Grant.objects.get()
    page = own.get(page_of(grant)).content.decode()
    assert all(text in page for text in (f"Request {asked.pk}", "charlie", "deploys", "approved", ">bob<"))
    assert page_of(grant) in own.get(page_of(asked)).content.decode()


def test_the_first_page_says_who_waits_for_an_answer_and_the_question_what_for(bob: User, staging: Environment) -> None:
    values: dict[str, Any] = {"reason": "<b>deploys</b>", "networks": ["10.0.0.0/8"], "hours": "mon-fri 08:00-18:00"}
    asked = request_access(
        actor=SYSTEM, person=make_person("Ann"), environment=staging, duration=dt.timedelta(days=3), **values
    )
    client = browser(bob)
    first = client.get("/admin/").content.decode()
    assert (page_of(asked) in first, "&lt;b&gt;deploys&lt;/b&gt;" in first) == (True, True)
    page = client.get(act_on(asked, "approve")).content.decode()
    assert "To 10.0.0.0/8, mon-fri 08:00-18:00, for 3 00:00:00 from now on. Console says: &lt;b&gt;" in page
    Environment.objects.filter(pk=staging.pk).update(needs_second=True)
    assert "from the second operator&#x27;s approval on" in client.get(act_on(asked, "approve")).content.decode()
    approve_request(actor=bob, request=asked)
    assert page_of(asked) not in client.get("/admin/").content.decode()


def test_a_grant_tells_its_story_also_after_it_has_moved(bob: User, staging: Environment) -> None:
    old, new = make_server(staging), make_server(staging)
    person = make_person()
    asked = request_access(actor=SYSTEM, person=person, server=old, reason="nights", duration=dt.timedelta(days=2))
    approve_request(actor=bob, request=asked)
    moved = move_grant(actor=bob, grant=Grant.objects.get(), server=new, reason="load")
    assert f"Request {asked.pk}" in browser(bob).get(page_of(moved)).content.decode()
    plain = make_grant(person, staging)
    assert f"Request {asked.pk}" not in browser(bob).get(page_of(plain)).content.decode()


def test_helpdesk_operators_and_others_are_shown_the_buttons_that_they_may_use(
    staging: Environment, alice: User, bob: User, carol: Person, charlie: User
) -> None:
    """B2, B5: whoever asks all the same is refused, and the ledger says so."""
    make_server(staging)
    make_grant(carol, staging)
    device = make_device(carol)
    asked = make_request(make_person("Dave"), staging)
    helen, amy = make_user("helen", Role.Name.HELPDESK, staging), make_user("amy", Role.Name.AUDITOR, staging)
    own = make_request(make_person("Erin"), staging, actor=helen)
    decisions = ("approve", "deny", "cancel")
    table = {
        # user: on another's request, on what helen asked for, on a device, on its person, on a grant
        alice: ({*decisions}, {*decisions}, {"replace", "revoke"}, {"grant", "add_device", "link", "revoke"}, {"end"}),
        bob: ({*decisions}, {*decisions}, {"replace", "revoke"}, {"grant", "add_device", "revoke"}, {"end"}),
        helen: (set(), {"cancel"}, {"revoke"}, {"revoke"}, set()),
        amy: (set(), set(), set(), set(), set()),
    }
    for user, expected in table.items():
        found = (
            shown(user, asked, decisions),
            shown(user, own, decisions),
            shown(user, device, ("replace", "revoke")),
            shown(user, carol, ("grant", "add_device", "link", "revoke")),
            shown(user, carol.grants.get(), ["end"]),
        )
        assert found == expected, user
    client, before = browser(helen), rows()
    for row, act in (
        (asked, "approve"),
        (own, "approve"),
        (asked, "deny"),
        (carol.grants.get(), "end"),
        (carol, "link"),
    ):
        answer = client.post(act_on(row, act), {"_answered": "1", "reason": "x"})
        assert answer.status_code == 403 or errors_of(answer) == ["__all__"], act
    for page in (reverse("admin:peers_grant_add"), reverse("admin:peers_device_add"), reverse("admin:fleet_user_add")):
        assert client.post(page, {}).status_code == 403
    assert rows() == before
    assert Event.objects.filter(verb="act.refused", actor=helen).count() == 8


def test_the_helpdesk_asks_and_revokes_in_two_clicks_where_it_covers_all(
    staging: Environment, production: Environment
) -> None:
    """D4."""
    make_server(staging), make_server(production)
    inside, outside = make_person("Ann"), make_person("Ben")
    make_grant(inside, staging), make_grant(outside, production)
    mine, other = make_device(inside), make_device(outside)
    client = browser(make_user("helen", Role.Name.HELPDESK, staging))
    before = rows()
    answer = client.post(act_on(other, "revoke"), {"_answered": "1", "reason": "lost"})
    assert errors_of(answer) == ["__all__"]
    assert rows() == before
    assert Event.objects.get(verb="act.refused").changes["asked"][1] == f"POST {act_on(other, 'revoke')}"
    assert client.post(act_on(mine, "revoke"), {"_answered": "1", "reason": "lost"}).status_code == 302
    values = {"person": inside.pk, **ASK}
    assert errors_of(client.post(ADD, {**values, "environment": production.pk})) == ["environment"]
    assert client.post(ADD, {**values, "environment": staging.pk}).status_code == 302
    assert AccessRequest.objects.get().asked_by == "helen"


def test_a_person_without_a_role_is_shown_their_own_and_nothing_else(
    charlie: User, carol: Person, staging: Environment, production: Environment
) -> None:
    """B3."""
    make_server(staging, "vpn-own"), make_server(production, "vpn-other")
    dave = make_person("Dave")
    for person, place in ((carol, staging), (dave, production)):
        make_grant(person, place), make_device(person), make_request(person, place)
    client = browser(charlie)
    for model in (Peer, Grant, AccessRequest):
        name = model._meta.model_name
        page = client.get(f"/admin/peers/{name}/").content.decode()
        assert ("Carol" in page, "Dave" in page, "production" in page) == (True, False, False), name
        mine, others = (
            model._default_manager.order_by("pk")[:2]
            if model != Peer
            else (
                Peer.objects.get(device__person=carol),
                Peer.objects.get(device__person=dave),
            )
        )
        assert client.get(page_of(mine)).status_code == 200
        hidden, missing = client.get(page_of(others)), client.get(page_of(others).replace(str(others.pk), "9" * 9))
        assert (
            (hidden.status_code, hidden["Location"]) == (missing.status_code, missing["Location"]) == (302, "/admin/")
        )
    for page in ("person", "device", "team", "revocation"):
        assert client.get(f"/admin/peers/{page}/").status_code == 403
    for page in ("fleet/server/", "fleet/environment/", "audit/event/", "nodes/hold/"):
        assert client.get(f"/admin/{page}").status_code == 403
    first = client.get("/admin/").content.decode()
    assert [LIST in first, "/admin/peers/person/" in first, "vpn-" in first] == [True, False, False]


def test_the_badge_counts_what_waits_for_this_user(
    staging: Environment, production: Environment, bob: User, alice: User, charlie: User, carol: Person
) -> None:
    link_user(actor=SYSTEM, person=make_person("Bob"), user=bob, reason="joined")
    Environment.objects.filter(pk=staging.pk).update(needs_second=True)
    half, waits = make_request(make_person("Ann"), staging), make_request(make_person("Ben"), staging)
    make_request(make_person("Eve"), staging, actor=bob)
    make_request(Person.objects.get(user=bob), staging)
    make_request(make_person("Far"), production)
    deny_request(actor=SYSTEM, request=make_request(make_person("Gus"), staging), reason="no")

    def counted(user: User) -> int:
        found = BADGE.findall(browser(user).get(LIST).content.decode())
        return int(found[0]) if found else 0

    assert (counted(bob), counted(alice), counted(charlie)) == (2, 5, 0)
    approve_request(actor=bob, request=half)
    assert (counted(bob), counted(alice)) == (1, 5)
    Environment.objects.filter(pk=staging.pk).update(needs_second=False)
    assert counted(bob) == 2
    approve_request(actor=alice, request=waits)
    assert counted(bob) == 1


def test_open_requests_stand_first(bob: User, staging: Environment) -> None:
    old = make_request(make_person("Olga"), staging)
    deny_request(actor=SYSTEM, request=make_request(make_person("Nina"), staging), reason="no")
    page = browser(bob).get(LIST).content.decode()
    assert page.index("Olga") < page.index("Nina")
    assert old.state == "open"


def test_a_sign_in_is_linked_on_the_page_of_its_person(alice: User, bob: User, charlie: User) -> None:
    person, client = make_person("Carol"), browser(alice)
    operator, path = browser(bob), act_on(person, "link")
    before = rows()
    assert operator.post(path, {"_answered": "1", "user": bob.pk, "reason": "me"}).status_code == 403
    assert errors_of(client.post(path, {"_answered": "1", "user": 999, "reason": "x"})) == ["user"]
    assert errors_of(client.post(path, {"_answered": "1", "user": charlie.pk, "reason": ""})) == ["reason"]
    assert rows() == before
    assert client.post(path, {"_answered": "1", "user": charlie.pk, "reason": "joined"})["Location"] == page_of(person)
    assert Person.objects.get(pk=person.pk).user == charlie
    assert "charlie" in client.get(page_of(person)).content.decode()
    assert client.post(path, {"_answered": "1", "user": "", "reason": "wrong"})["Location"] == page_of(person)
    assert Person.objects.get(pk=person.pk).user is None


def test_a_decision_needs_the_csrf_token(bob: User, staging: Environment) -> None:
    """B18."""
    asked = make_request(make_person(), staging)
    client = browser(bob, checks_csrf=True)
    assert client.post(act_on(asked, "approve"), {"_answered": "1"}).status_code == 403
    assert browser(bob).get(act_on(asked, "approve")).status_code == 200
    assert not Grant.objects.exists()


def test_two_approvals_are_an_administrator_s_choice(alice: User, bob: User, staging: Environment) -> None:
    path = reverse("admin:fleet_environment_change", args=[staging.pk])
    rests = {"address_rest": "1 00:00:00", "warn_before": "7 00:00:00"}
    values = {"description": "", **rests, "needs_second": "on", "reason": "careful"}
    assert browser(bob).post(path, values).status_code == 403
    assert browser(alice).post(path, values).status_code == 302
    assert Environment.objects.get(pk=staging.pk).needs_second
