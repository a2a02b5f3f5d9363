"""Every page of the admin: it opens, costs the same however long its list is, and shows nobody another's rows."""

import re

from django.contrib import admin
from django.contrib.staticfiles import finders
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from audit.services import SYSTEM
from fleet.models import Environment, Role, Server, User
from fleet.services import give_role
from peers.models import Person
from tests.build import make_device, make_grant, make_person, make_server
from tests.doors import browser, rows
from tests.fleet.scenes import furnish

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
ADDED = {
    *("fleet.ApiToken", "fleet.Bastion", "fleet.Environment", "fleet.Role", "fleet.Server", "fleet.User"),
    *("peers.AccessRequest", "peers.Device", "peers.Grant", "peers.Person", "peers.Team"),
    *("fleet.AddressRange", "fleet.Pool", "peers.RoutedNetwork", "peers.StaticAddress"),
}
SCRIPT = "<script>alert(1)</script>{{7*7}}{% debug %}"


def address(model: type[Model], page: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def queries_of(client: Client, path: str) -> int:
    client.get(path)
    with CaptureQueriesContext(connection) as seen:
        assert client.get(path).status_code == 200, path
    return len(seen)


def test_no_page_of_django_s_own_is_left_over() -> None:
    labels = {model._meta.label for model in MODELS}
    assert labels == {
        *("audit.Event", "fleet.ApiToken", "fleet.Bastion", "fleet.Environment", "fleet.Role", "fleet.Server"),
        *("fleet.User", "nodes.Enrolment", "nodes.Hold", "nodes.PlanRequest", "nodes.ReviewItem", "nodes.Run"),
        *("peers.Device", "peers.Grant", "peers.Peer", "peers.Person", "peers.Revocation"),
        *("peers.AccessRequest", "peers.Membership", "peers.Suspension", "peers.Team"),
        *("fleet.AddressRange", "fleet.Pool", "peers.RoutedNetwork", "peers.StaticAddress"),
    }


def test_every_page_opens(alice: User, staging: Environment) -> None:
    furnish(staging, alice)
    client = browser(alice)
    assert client.get("/admin/").status_code == 200
    for model in MODELS:
        assert client.get(address(model, "changelist")).status_code == 200, model
        assert client.get(address(model, "changelist") + "?q=a").status_code == 200, model
        row = model._default_manager.first()
        assert row is not None, model
        assert client.get(address(model, "change", row.pk)).status_code == 200, model
        expected = 200 if model._meta.label in ADDED else 403
        assert client.get(address(model, "add")).status_code == expected, model


def test_nothing_can_be_deleted(alice: User, staging: Environment) -> None:
    furnish(staging, alice)
    client = browser(alice)
    before = rows()
    for model in MODELS:
        row = model._default_manager.first()
        assert row is not None
        assert client.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model
        chosen = {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
        client.post(address(model, "changelist"), chosen)
    assert rows() == before


def test_a_list_costs_the_same_however_long_it_is(alice: User, staging: Environment) -> None:
    """L4."""
    client = browser(alice)
    furnish(staging, alice, 3)
    few = {model._meta.label: queries_of(client, address(model, "changelist")) for model in MODELS}
    furnish(staging, alice, 6)
    assert {model._meta.label: queries_of(client, address(model, "changelist")) for model in MODELS} == few


def test_the_first_page_costs_the_same_however_much_there_is(alice: User, staging: Environment) -> None:
    client = browser(alice)
    furnish(staging, alice, 2)
    few = queries_of(client, "/admin/")
    furnish(staging, alice, 6)
    assert queries_of(client, "/admin/") == few


def test_an_operator_sees_their_environments_alone(
    alice: User, bob: User, staging: Environment, production: Environment
) -> None:
    """B3: another's page answers as one that does not exist."""
    own, other = make_server(staging, "vpn-own"), make_server(production, "vpn-other")
    client = browser(bob)
    page = client.get(address(Server, "changelist")).content.decode()
    assert ("vpn-own" in page, "vpn-other" in page) == (True, False)
    assert "vpn-other" not in client.get("/admin/").content.decode()
    assert client.get(address(Server, "change", own.pk)).status_code == 200
    hidden, missing = (client.get(address(Server, "change", pk)) for pk in (other.pk, 999999))
    assert (hidden.status_code, hidden.url) == (missing.status_code, missing.url)  # type: ignore[attr-defined]
    for act in ("plan", "reconcile", "enrol"):
        assert client.post(reverse(f"admin:fleet_server_{act}", args=[other.pk]), {"_answered": "1"}).status_code == 404
        assert client.get(reverse(f"admin:fleet_server_{act}", args=[own.pk])).status_code == 200
    for model in ("user", "role", "apitoken"):
        assert client.get(reverse(f"admin:fleet_{model}_changelist")).status_code == 403


def test_the_filters_of_a_list_name_what_is_in_it_alone(
    alice: User, bob: User, staging: Environment, production: Environment
) -> None:
    """B3: by filter too."""
    for environment in (staging, production):
        furnish(environment, alice, 2)
    client = browser(bob)
    hidden = [production.name, *Server.objects.filter(environment=production).values_list("name", flat=True)]
    for model in MODELS:
        answer = client.get(address(model, "changelist"))
        assert [name for name in hidden if name in answer.content.decode()] == [], model
    assert "?environment__id__exact=" in browser(alice).get(address(Server, "changelist")).content.decode()


def test_the_choices_of_a_form_are_those_the_operator_sees(
    bob: User, staging: Environment, production: Environment
) -> None:
    """B3: by admin autocomplete too."""
    make_server(production, "vpn-other")
    page = browser(bob).get(reverse("admin:peers_grant_add")).content.decode()
    assert (">staging<" in page, ">production<" in page, "vpn-other" in page) == (True, False, False)


def test_who_has_no_role_sees_no_row(charlie: User, alice: User, staging: Environment) -> None:
    furnish(staging, alice)
    client = browser(charlie)
    for model in MODELS:
        assert client.get(address(model, "changelist")).status_code == 403, model
    page = client.get("/admin/").content.decode()
    assert ("vpn-" in page, "ask an administrator to link it" in page) == (False, True)


def test_an_auditor_reads_and_is_offered_no_act(charlie: User, staging: Environment) -> None:
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=staging)
    server, person = make_server(staging), make_person()
    client = browser(charlie)
    before = rows()
    assert client.get(address(Server, "change", server.pk)).status_code == 200
    assert client.get(address(Person, "change", person.pk)).status_code == 200
    assert client.post(address(Person, "add"), {"name": "Dave", "kind": "employee"}).status_code == 403
    revoke = reverse("admin:peers_person_revoke", args=[person.pk])
    assert client.post(revoke, {"_answered": "1", "reason": "x"}).status_code == 403
    assert rows() == before


def test_what_people_type_is_inert_on_every_page(alice: User, staging: Environment) -> None:
    """A15."""
    person = make_person(SCRIPT)
    make_server(staging)
    make_grant(person, staging)
    make_device(person, SCRIPT[:60])
    client = browser(alice)
    for path in ("/admin/", *(address(model, "changelist") for model in MODELS), address(Person, "change", person.pk)):
        page = client.get(path).content.decode()
        assert "<script>alert(1)" not in page, path
        assert ">49{%" not in page, path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}{% debug %}" in page


def test_a_redirect_after_signing_in_stays_on_the_site(alice: User) -> None:
    """A15."""
    data = {"username": "alice", "password": "correct horse"}
    for target in ("https://evil.example.com/", "//evil.example.com", "javascript:alert(1)"):
        answer = browser().post(f"/admin/login/?next={target}", {**data, "next": target})
        assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_a_title_is_the_name_as_it_is(alice: User, staging: Environment) -> None:
    server = make_server(staging, "vpn-ams")
    page = browser(alice).get(address(Server, "change", server.pk)).content.decode()
    assert ("vpn-ams" in page, "Vpn-ams" in page) == (True, False)


def test_every_page_names_an_icon_that_is_there(alice: User) -> None:
    """Else browsers ask for one at an address of their own, and get an error for it."""
    page = browser(alice).get("/admin/").content.decode()
    (name,) = re.findall(r'<link rel="icon" href="/static/([^"]+)"', page)
    assert finders.find(name)
