"""Access that ends soon is said once for each end: in the ledger, on the pages and over the API."""

import datetime as dt
from collections.abc import Callable
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, User
from fleet.services import change_environment
from peers.expiry import said, warn_of_ends
from peers.granting import end_grants, grant_access
from peers.models import ExpiryWarning, Grant, Peer, Person
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_peers, make_person, make_server
from tests.doors import browser, script

pytestmark = pytest.mark.django_db
DAY = dt.timedelta(days=1)


def person_with(environment: Environment, *, days: int, name: str = "Carol") -> Person:
    person = make_person(name)
    make_grant(person, environment, days=days)
    make_device(person)
    return person


def warned() -> list[str]:
    return sorted(ExpiryWarning.objects.values_list("peer__device__person__name", flat=True))


def test_an_end_within_a_week_is_told_of_once(staging: Environment) -> None:
    make_server(staging, "vpn-fra")
    person_with(staging, days=6, name="Ann")
    person_with(staging, days=8, name="Ben")
    assert (warn_of_ends(), warn_of_ends()) == (1, 0)
    assert warned() == ["Ann"]
    warning, peer = ExpiryWarning.objects.get(), Peer.objects.get(device__person__name="Ann")
    assert (warning.peer, warning.expires_at) == (peer, peer.expires_at)
    event = Event.objects.get(verb="expiry.warn")
    until = f"{peer.expires_at:%Y-%m-%d %H:%M} UTC"
    assert event.changes == {"warned": ["", f"Ann's laptop on vpn-fra until {until}"]}
    assert (event.actor_label, event.target_label, event.environment_label) == ("Console", "staging", "staging")


def test_each_environment_says_how_long_before(staging: Environment, production: Environment) -> None:
    change_environment(actor=SYSTEM, environment=production, warn_before=dt.timedelta(days=20), reason="slow renewals")
    for environment in (staging, production):
        make_server(environment)
        person_with(environment, days=15, name=f"Carol of {environment}")
    assert warn_of_ends() == 1
    assert warned() == ["Carol of production"]


def test_a_renewed_access_is_told_of_anew_when_its_new_end_comes_near(staging: Environment) -> None:
    make_server(staging)
    person = person_with(staging, days=2)
    assert warn_of_ends() == 1
    make_grant(person, staging, days=30)
    assert warn_of_ends() == 0
    change_environment(actor=SYSTEM, environment=staging, warn_before=40 * DAY, reason="sooner")
    assert (warn_of_ends(), warn_of_ends()) == (1, 0)
    ends = list(ExpiryWarning.objects.order_by("expires_at").values_list("expires_at", flat=True))
    assert [round((end - timezone.now()) / DAY) for end in ends] == [2, 30]


def test_nobody_is_told_of_what_ended_or_has_no_end(staging: Environment) -> None:
    make_server(staging)
    person_with(staging, days=2, name="Ann")
    ben, endless = person_with(staging, days=2, name="Ben"), make_person("Dora")
    grant_access(actor=SYSTEM, person=endless, environment=staging, reason="work")
    make_device(endless)
    end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(person=ben)), reason="over")
    Peer.objects.filter(device__person__name="Ann").update(expires_at=timezone.now() - DAY)
    person_with(staging, days=2, name="Eve")
    assert warn_of_ends() == 1
    assert warned() == ["Eve"]


def test_the_end_of_a_membership_is_told_of(staging: Environment) -> None:
    make_server(staging)
    team, person = add_team(actor=SYSTEM, name="web"), make_person("Carol", Person.Kind.CONTRACTOR)
    grant_access(actor=SYSTEM, team=team, environment=staging, reason="work")
    join_team(actor=SYSTEM, team=team, people=[person], until=timezone.now() + 3 * DAY)
    make_device(person)
    assert warn_of_ends() == 1
    assert warned() == ["Carol"]


def queries(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as seen:
        work()
    return len(seen)


def test_thirty_ends_take_as_many_queries_as_three(staging: Environment) -> None:
    make_server(staging)
    counts = []
    for number in (3, 30):
        make_peers(staging, number)
        Peer.objects.update(expires_at=timezone.now() + DAY * (1 + number / 100))
        counts.append(queries(warn_of_ends))
    assert counts[0] == counts[1]
    assert ExpiryWarning.objects.count() == 36
    assert queries(warn_of_ends) == 2


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2026-12-03 23:30 UTC"),
        ("Europe/Berlin", "2026-12-04 00:30 Europe/Berlin (2026-12-03 23:30 UTC)"),
        ("America/New_York", "2026-12-03 18:30 America/New_York (23:30 UTC)"),
    ],
)
def test_an_end_is_said_as_the_clock_on_the_wall_and_in_utc(zone: str, text: str) -> None:
    assert said(dt.datetime(2026, 12, 3, 23, 30, tzinfo=dt.UTC), zone) == text


def page(user: User, path: str) -> str:
    answer = browser(user).get(path)
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def test_pages_show_what_ends_soon_to_those_who_see_it(
    alice: User, bob: User, staging: Environment, production: Environment, settings: Settings
) -> None:
    """Bob sees staging alone. Whom no mail can reach is told of here alone, and why is said."""
    for environment in (staging, production):
        make_server(environment, f"vpn-{environment}")
        person_with(environment, days=3, name=f"Carol of {environment}")
    late = person_with(staging, days=20, name="Dora")
    warn_of_ends()
    both = ("Carol of staging", "Carol of production")
    assert [name in page(alice, "/admin/") for name in both] == [True, True]
    assert [name in page(bob, "/admin/") for name in both] == [True, False]
    assert "Dora" not in page(alice, "/admin/")
    hers = reverse("admin:peers_person_change", args=[Person.objects.get(name="Carol of staging").pk])
    assert "Access that ends soon" in page(bob, hers)
    assert "here alone: no mail is set up" in page(bob, hers)
    settings.EMAIL_HOST = "mail.example.com"
    assert "no e-mail address" in page(bob, hers)
    assert "Access that ends soon" not in page(bob, reverse("admin:peers_person_change", args=[late.pk]))


def test_the_list_of_peers_is_narrowed_to_ends(bob: User, staging: Environment) -> None:
    make_server(staging)
    for days, name in ((3, "Ann"), (20, "Ben"), (60, "Dora")):
        person_with(staging, days=days, name=name)
    names = ("Ann", "Ben", "Dora")
    path = reverse("admin:peers_peer_changelist")
    found = {days: page(bob, f"{path}?ends_within={days}") for days in (1, 7, 30)}
    assert {days: [f"{name}'s" in text for name in names] for days, text in found.items()} == {
        1: [False, False, False],
        7: [True, False, False],
        30: [True, True, False],
    }


def test_a_script_asks_which_peers_end_before_a_time(bob: User, staging: Environment, production: Environment) -> None:
    for environment in (staging, production):
        make_server(environment)
        person_with(environment, days=3, name=f"Carol of {environment}")
    person_with(staging, days=20, name="Dora")
    door = script(bob)
    before = (timezone.now() + 7 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    code, body = door.get(f"peers?expires_before={before}")
    assert code == 200
    assert [row["person"] for row in body["results"]] == [Person.objects.get(name="Carol of staging").pk]
    assert door.get("peers?expires_before=soon") == (400, {"expires_before": ["Enter a valid date/time."]})
    refused = {"expires_before": ["Give a time between the years 1901 and 9998."]}
    assert door.get("peers?expires_before=9999-12-31T23:59:59-23:59") == (400, refused)


def test_the_first_page_asks_as_often_for_thirty_ends_as_for_three(alice: User, staging: Environment) -> None:
    make_server(staging)
    change_environment(actor=SYSTEM, environment=staging, idle_after=30 * DAY, reason="tidy")
    client = browser(alice)
    counts = []
    for number in (3, 30):
        make_peers(staging, number)
        Peer.objects.update(expires_at=timezone.now() + DAY)
        warn_of_ends()
        client.get("/admin/")
        counts.append(queries(lambda: client.get("/admin/")))
    assert counts[0] == counts[1]
