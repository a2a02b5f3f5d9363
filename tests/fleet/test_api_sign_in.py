"""Who gets through the API's door, and who does not."""

import datetime as dt
import hashlib

import pytest
from django.db import connection
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import ApiToken, Environment, User
from fleet.tokens import revoke_token
from tests.doors import Script, browser, rows, script

LISTS = [
    *("environments", "servers", "bastions", "people", "devices", "grants", "peers", "revocations"),
    *("enrolments", "plan-requests", "holds", "reviews", "events", "access-requests"),
]


@pytest.mark.parametrize("path", LISTS)
def test_a_list_opens_for_roles_and_for_nobody_else(path: str, alice: User, bob: User, charlie: User) -> None:
    """B1, B3."""
    assert script(alice).get(path)[0] == 200
    assert script(bob).get(path)[0] == 200
    assert script(bob, scope="read").get(path)[0] == 200
    assert script(charlie).get(path)[0] == 403
    assert Script().get(path)[0] == 401
    assert Script("muster_guess").get(path)[0] == 401


@pytest.mark.parametrize("path", ["", "schema", "docs"])
def test_schema_and_docs_stand_behind_the_login(path: str, alice: User, charlie: User) -> None:
    assert browser(alice).get(f"/api/v1/{path}").status_code == 200
    assert browser(charlie).get(f"/api/v1/{path}").status_code == 403
    assert browser().get(f"/api/v1/{path}").status_code == 401


def test_a_token_is_refused_from_its_first_use_after_it_ended(alice: User) -> None:
    """B12."""
    caller = script(alice)
    token = ApiToken.objects.get(user=alice)
    assert caller.get("people")[0] == 200
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert caller.get("people")[0] == 401
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now() + dt.timedelta(hours=1))
    assert caller.get("people")[0] == 200
    revoke_token(actor=SYSTEM, token=token, reason="leaked")
    assert caller.get("people")[0] == 401


def test_a_token_dies_with_its_user(alice: User) -> None:
    """B12."""
    caller = script(alice)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert caller.get("people")[0] == 401


def test_a_token_to_read_changes_nothing(bob: User) -> None:
    """B12."""
    reader, operator = script(bob, scope="read"), script(bob)
    before = rows()
    assert reader.post("people", name="Dave")[0] == 403
    assert rows() == before
    assert operator.post("people", name="Dave")[0] == 201


def test_an_auditor_reads_and_changes_nothing(charlie: User, staging: Environment) -> None:
    charlie.roles.create(name="auditor", environment=staging)
    caller = script(charlie)
    before = rows()
    assert caller.names("environments") == ["staging"]
    assert caller.post("people", name="Dave")[0] == 403
    assert rows() == before


def test_only_the_hash_of_a_token_is_kept(alice: User) -> None:
    """C4: no column of any table of ours holds the token."""
    text = script(alice).token
    token = ApiToken.objects.get(user=alice)
    assert token.digest == hashlib.sha256(text.encode()).hexdigest()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')
            assert text not in str(cursor.fetchall()), table


def test_a_browser_needs_its_csrf_token_to_change_anything(alice: User) -> None:
    """B18."""
    client = browser(alice, checks_csrf=True)
    client.get("/admin/")
    path, body, kind = "/api/v1/people", '{"name": "Dave"}', "application/json"
    assert client.post(path, body, content_type=kind).status_code == 403
    csrf = client.cookies["csrftoken"].value
    own = {"X-CSRFToken": csrf, "Referer": "https://testserver/"}
    assert client.post(path, body, content_type=kind, headers=own).status_code == 201


def test_health_needs_no_login(db: None) -> None:
    answer = browser().get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
