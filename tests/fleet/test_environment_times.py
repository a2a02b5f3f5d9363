"""An environment's time zone, warnings, idle peers and second approvals: by API and page, refused at their field."""

import datetime as dt
from typing import Any

import pytest
from django.urls import reverse

from audit.models import Event
from fleet.models import Environment, User
from tests.doors import browser, rows, script

BAD = [
    *(("time_zone", value) for value in ("Europe/Nowhere", "", "CEST+1", "a\nb")),
    *(("warn_before", value) for value in ("-1 00:00:00", "366 00:00:00", "soon")),
    *(("idle_after", value) for value in ("23:59:59", "-5 00:00:00", "3651 00:00:00", "soon")),
    ("suspends_idle", "true"),
]
GOOD = {
    "time_zone": "Europe/Berlin",
    "warn_before": "3 00:00:00",
    "idle_after": "90 00:00:00",
    "suspends_idle": True,
    "needs_second": True,
}


@pytest.mark.parametrize(("field", "value"), [*BAD, ("time_zone", 5), ("warn_before", None), ("needs_second", "x")])
def test_a_bad_value_is_named_and_nothing_changes(field: str, value: Any, alice: User, staging: Environment) -> None:
    """B4."""
    caller = script(alice)
    before = rows()
    for method, path, more in (
        ("PATCH", f"environments/{staging.pk}", {"reason": "x"}),
        ("POST", "environments", {"name": "lab"}),
    ):
        code, body = caller.call(method, path, {**more, field: value})
        assert (code, list(body)) == (400, [field]), path
    assert rows() == before


def test_they_are_set_and_shown(alice: User, bob: User, staging: Environment) -> None:
    caller = script(alice)
    code, body = caller.patch(f"environments/{staging.pk}", reason="moved", **GOOD)
    assert code == 200
    assert {name: body[name] for name in GOOD} == GOOD
    assert caller.post("environments", name="lab", **GOOD)[0] == 201
    changes = Event.objects.get(verb="environment.change").changes_dict
    assert set(changes) == set(GOOD)
    assert caller.patch(f"environments/{staging.pk}", reason="x", idle_after=None)[1].keys() == {"suspends_idle"}
    off = {"idle_after": None, "suspends_idle": False}
    assert caller.patch(f"environments/{staging.pk}", reason="x", **off)[1]["idle_after"] is None
    assert script(bob).patch(f"environments/{staging.pk}", reason="x", **GOOD)[0] == 403


def test_the_page_says_what_is_wrong_at_its_field(alice: User, staging: Environment) -> None:
    client, path = browser(alice), reverse("admin:fleet_environment_change", args=[staging.pk])
    shown = {
        "description": "",
        "address_rest": "1 00:00:00",
        "time_zone": "UTC",
        "warn_before": "7 00:00:00",
        "idle_after": "",
        "reason": "x",
    }
    before = rows()
    for field, value in BAD:
        if value != "":
            assert list(client.post(path, {**shown, field: value}).context["adminform"].form.errors) == [field]
    assert rows() == before
    assert client.post(path, shown).status_code == 302
    assert rows() == before  # nothing was another value
    good = {**shown, "time_zone": "Asia/Tokyo", "idle_after": "30 00:00:00", "suspends_idle": "on"}
    assert client.post(path, good).status_code == 302
    environment = Environment.objects.get()
    assert (environment.time_zone, environment.idle_after) == ("Asia/Tokyo", dt.timedelta(days=30))
    assert (environment.suspends_idle, environment.needs_second) == (True, False)
    assert client.post(path, {**good, "time_zone": "", "warn_before": ""}).status_code == 302
    assert (environment.time_zone, Environment.objects.get().warn_before) == ("Asia/Tokyo", dt.timedelta(days=7))
    add = reverse("admin:fleet_environment_add")
    assert client.post(add, {"name": "lab", "time_zone": "Asia/Tokyo"}).status_code == 302
    assert Environment.objects.get(name="lab").time_zone == "Asia/Tokyo"
