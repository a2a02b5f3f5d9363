"""Users, roles and tokens in the admin."""

import re

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.urls import reverse

from audit.services import SYSTEM
from fleet.admin import page_of
from fleet.models import ApiToken, Environment, Role, User
from fleet.services import disable_user, enable_user
from tests.doors import Script, browser, rows, script


def test_a_token_is_shown_once_and_works(alice: User) -> None:
    """C4: the next page shows it, and nothing does after that."""
    client = browser(alice)
    data = {"name": "deploy", "user": alice.pk, "scope": "operate", "expires_at_0": "", "expires_at_1": ""}
    answer = client.post(reverse("admin:fleet_apitoken_add"), data, follow=True)
    shown = re.findall(r"muster_[A-Za-z0-9_-]{43}", answer.content.decode())
    assert len(set(shown)) == 1
    assert Script(shown[0]).get("people")[0] == 200
    later = client.get(reverse("admin:fleet_apitoken_change", args=[ApiToken.objects.get().pk]))
    assert "muster_" not in later.content.decode()
    assert shown[0] not in "".join(str(session.get_decoded()) for session in Session.objects.all())


def test_a_token_is_revoked_with_a_reason(alice: User) -> None:
    token = ApiToken.objects.create(name="deploy", user=alice, digest="0" * 64)
    client, path = browser(alice), reverse("admin:fleet_apitoken_revoke", args=[token.pk])
    assert list(client.post(path, {"_answered": "1", "reason": ""}).context["form"].errors) == ["reason"]
    assert client.post(path, {"_answered": "1", "reason": "leaked"}).status_code == 302
    assert ApiToken.objects.get().revoked_at is not None


def test_users_and_roles_are_given_by_administrators_alone(alice: User, bob: User, staging: Environment) -> None:
    """B5."""
    user = {"username": "dave", "email": "dave@example.com", "password": "tr0ub4dor and three"}
    role = {"user": bob.pk, "name": "operator", "environment": ""}
    operator = browser(bob)
    before = rows()
    for page, data in (("fleet_user_add", user), ("fleet_role_add", role), ("fleet_apitoken_add", {})):
        assert operator.post(reverse(f"admin:{page}"), data).status_code == 403
    assert rows() == before
    client = browser(alice)
    assert client.post(reverse("admin:fleet_user_add"), user).status_code == 302
    assert client.post(reverse("admin:fleet_role_add"), role).status_code == 302
    dave = User.objects.get(username="dave")
    assert (dave.is_superuser, dave.check_password("tr0ub4dor and three")) == (False, True)
    assert (
        "This user has this role everywhere already."
        in client.post(reverse("admin:fleet_role_add"), role).content.decode()
    )
    given = Role.objects.get(user=bob, environment=None)
    assert client.post(reverse("admin:fleet_role_end", args=[given.pk]), {"_answered": "1"}).status_code == 302
    assert Role.objects.get(pk=given.pk).ended_at is not None


def test_an_event_shows_old_and_new_in_a_table(alice: User, staging: Environment) -> None:
    client = browser(alice)
    data = {
        "description": "<b>where</b> it breaks",
        "address_rest": "1 00:00:00",
        "warn_before": "7 00:00:00",
        "reason": "moved",
    }
    assert client.post(reverse("admin:fleet_environment_change", args=[staging.pk]), data).status_code == 302
    page = client.get(reverse("admin:audit_event_changelist") + "?verb__exact=environment.change").content.decode()
    found = re.search(r"/admin/audit/event/(\d+)/change/", page)
    assert found is not None
    shown = client.get(found.group(0)).content.decode()
    assert '<td class="new">&lt;b&gt;where&lt;/b&gt; it breaks</td>' in shown


def test_a_disabled_user_is_refused_at_once_by_session_token_and_password(alice: User, bob: User) -> None:
    """B7: and let in again once enabled."""
    client, open_page, caller = browser(alice), browser(bob), script(bob)
    login, page = {"username": "bob", "password": "battery staple"}, reverse("admin:fleet_user_change", args=[bob.pk])
    assert (open_page.get("/admin/").status_code, caller.get("people")[0]) == (200, 200)
    disable, enable = (reverse(f"admin:fleet_user_{act}", args=[bob.pk]) for act in ("disable", "enable"))
    assert list(client.post(disable, {"_answered": "1", "reason": " "}).context["form"].errors) == ["reason"]
    assert client.post(disable, {"_answered": "1", "reason": "left"})["Location"] == page
    assert (open_page.get("/admin/").status_code, caller.get("people")[0]) == (302, 401)
    assert browser().post("/admin/login/", login).status_code == 200
    shown = client.get(page).content.decode()
    assert (disable in shown, enable in shown, "instead of deleting" in shown) == (False, True, False)
    assert client.post(enable, {"_answered": "1", "reason": "is back"})["Location"] == page
    assert browser().post("/admin/login/", login).status_code == 302
    assert caller.get("people")[0] == 200


def test_nobody_disables_themselves_or_the_last_active_administrator(alice: User, bob: User) -> None:
    """B7."""
    before = rows()
    with pytest.raises(ValidationError, match="Nobody disables themselves"):
        disable_user(actor=alice, user=alice, reason="tired")
    with pytest.raises(ValidationError, match="last active administrator"):
        disable_user(actor=SYSTEM, user=alice, reason="left")
    assert rows() == before
    other = User.objects.create(username="anna", is_superuser=True)
    disable_user(actor=other, user=alice, reason="left")
    for user, again in ((other, disable_user), (other, enable_user)):
        with pytest.raises(ValidationError):
            again(actor=SYSTEM, user=user, reason="why not")
    assert list(User.objects.filter(is_superuser=True, is_active=True)) == [other]


@pytest.mark.parametrize("reason", ["", " "])
def test_a_user_is_disabled_with_a_reason(reason: str, alice: User, bob: User) -> None:
    with pytest.raises(ValidationError, match="Say why"):
        disable_user(actor=alice, user=bob, reason=reason)
    assert User.objects.get(pk=bob.pk).is_active


def test_every_question_says_what_it_asks_and_lets_go(alice: User, bob: User) -> None:
    role = Role.objects.get(user=bob)
    token = ApiToken.objects.create(name="deploy", user=bob, digest="0" * 64)
    client = browser(alice)
    for path, title, row in (
        ("fleet_role_end", "End the role bob operator of staging?", role),
        ("fleet_apitoken_revoke", "Revoke the token deploy?", token),
        ("fleet_user_disable", "Disable bob?", bob),
    ):
        page = client.get(reverse(f"admin:{path}", args=[row.pk])).content.decode()
        assert f"<h2>{title}</h2>" in page
        assert f'href="{page_of(row)}">Cancel</a>' in page


def test_what_is_over_is_not_offered_to_be_ended(alice: User, bob: User) -> None:
    role = Role.objects.get(user=bob)
    token = ApiToken.objects.create(name="deploy", user=bob, digest="0" * 64)
    client = browser(alice)
    for row, path in ((role, "fleet_role_end"), (token, "fleet_apitoken_revoke")):
        link = reverse(f"admin:{path}", args=[row.pk])
        assert link in client.get(page_of(row)).content.decode()
        client.post(link, {"_answered": "1", "reason": "over"})
        assert link not in client.get(page_of(row)).content.decode()
