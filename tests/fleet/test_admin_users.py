"""Users, roles and tokens in the admin."""

import re

from django.contrib.sessions.models import Session
from django.urls import reverse

from fleet.models import ApiToken, Environment, Role, User
from tests.doors import Script, browser, rows


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
    given = Role.objects.get(user=bob, environment=None)
    assert client.post(reverse("admin:fleet_role_end", args=[given.pk]), {"_answered": "1"}).status_code == 302
    assert Role.objects.get(pk=given.pk).ended_at is not None


def test_an_event_shows_old_and_new_in_a_table(alice: User, staging: Environment) -> None:
    client = browser(alice)
    data = {"description": "<b>where</b> it breaks", "address_rest": "1 00:00:00"}
    assert client.post(reverse("admin:fleet_environment_change", args=[staging.pk]), data).status_code == 302
    page = client.get(reverse("admin:audit_event_changelist") + "?verb__exact=environment.change").content.decode()
    found = re.search(r"/admin/audit/event/(\d+)/change/", page)
    assert found is not None
    shown = client.get(found.group(0)).content.decode()
    assert '<td class="new">&lt;b&gt;where&lt;/b&gt; it breaks</td>' in shown
