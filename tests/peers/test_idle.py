"""Peers that nothing was heard of for long: who counts as idle, who sees them, and what the sweep does with them."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, ServerStatus, User
from fleet.services import change_environment
from nodes import status
from nodes.desired import desired_state
from nodes.observe import NodeState
from peers import idle
from peers.granting import end_grants
from peers.idle import is_idle, suspend_idle
from peers.models import Grant, Peer, PeerStatus, Suspension
from peers.suspending import resume, suspend
from tests.build import make_grant, make_peers, make_server
from tests.doors import browser, script

pytestmark = pytest.mark.django_db
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
MONDAY = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


@pytest.fixture
def peers(staging: Environment) -> list[Peer]:
    """Ten peers of 90 days, quiet for 40, on a server that was asked all that time; idle is who is quiet for 30."""
    change_environment(actor=SYSTEM, environment=staging, idle_after=30 * DAY, reason="tidy")
    make_server(staging, "vpn-fra")
    found = make_peers(staging, 10)
    grow_old()
    return found


def grow_old() -> None:
    now = timezone.now()
    Peer.objects.update(issued_at=now - 90 * DAY)
    PeerStatus.objects.update(latest_handshake_at=now - 40 * DAY)
    ServerStatus.objects.update(peers_seen_at=now, peers_seen_since=now - 90 * DAY)


def found(at: dt.datetime | None = None) -> set[object]:
    return set(Peer.objects.filter(is_idle(at or timezone.now())).values_list("pk", flat=True))


def ids(peers: list[Peer]) -> set[object]:
    return {peer.pk for peer in peers}


def seen(peer: Peer, **values: object) -> None:
    PeerStatus.objects.filter(peer=peer).update(**values)


def test_a_peer_that_shook_hands_lately_is_not_idle(peers: list[Peer]) -> None:
    now = timezone.now()
    seen(peers[0], latest_handshake_at=now - 29 * DAY)
    seen(peers[1], latest_handshake_at=now - 31 * DAY)
    seen(peers[2], latest_handshake_at=None)
    assert found() == ids(peers[1:])


def test_a_peer_that_was_issued_lately_is_not_idle(peers: list[Peer]) -> None:
    seen(peers[0], latest_handshake_at=None)
    Peer.objects.filter(pk=peers[0].pk).update(issued_at=timezone.now() - 29 * DAY)
    assert found() == ids(peers[1:])


@pytest.mark.parametrize("target", ["peer", "device", "person"])
def test_a_peer_that_is_or_was_lately_suspended_is_not_idle(peers: list[Peer], target: str) -> None:
    """After its end the clock starts again."""
    subject = {"peer": peers[0], "device": peers[0].device, "person": peers[0].device.person}[target]
    suspension = suspend(actor=SYSTEM, targets=[subject], reason="away")[0]  # type: ignore[list-item]
    assert found() == ids(peers[1:])
    resume(actor=SYSTEM, suspension=suspension, reason="back")
    assert found() == ids(peers[1:])
    Suspension.objects.update(ended_at=timezone.now() - 31 * DAY)
    assert found() == ids(peers)


def test_a_peer_that_its_server_keeps_out_or_let_in_lately_is_not_idle(peers: list[Peer]) -> None:
    """As after a walk-in suspension, which is no row here."""
    seen(peers[0], shut_at=timezone.now() - 35 * DAY)
    seen(peers[1], let_in_at=timezone.now() - DAY)
    seen(peers[2], let_in_at=timezone.now() - 31 * DAY)
    assert found() == ids(peers[2:])


def test_a_peer_that_waits_to_move_in_is_not_idle(peers: list[Peer]) -> None:
    Peer.objects.filter(pk=peers[0].pk).update(waits_for=peers[1])
    assert found() == ids(peers[1:])


@pytest.mark.parametrize(
    "values",
    [
        {"peers_seen_at": None},
        {"peers_seen_at": 2 * HOUR},
        {"peers_seen_since": None},
        {"peers_seen_since": 29 * DAY},
        {"peers_seen_at": 2 * HOUR, "observed_at": dt.timedelta(0)},
    ],
)
def test_where_nobody_asked_the_server_nobody_is_idle(
    peers: list[Peer], staging: Environment, values: dict[str, dt.timedelta | None]
) -> None:
    """The Console was off, or the server away; a push alone says nothing of handshakes."""
    other = make_server(staging)
    ServerStatus.objects.filter(server=other).update(peers_seen_at=None)
    assert found() == ids(peers)
    now = timezone.now()
    ServerStatus.objects.update(**{name: age if age is None else now - age for name, age in values.items()})
    assert found() == set()


def polled(server: Server, at: dt.datetime, monkeypatch: pytest.MonkeyPatch) -> tuple[dt.datetime, dt.datetime]:
    monkeypatch.setattr(timezone, "now", lambda: at)
    status.record_observation(server.pk, NodeState(1, 1, "", ""), [], [], "")
    monkeypatch.undo()
    row = ServerStatus.objects.get(server=server)
    assert row.peers_seen_at is not None
    assert row.peers_seen_since is not None
    return row.peers_seen_at, row.peers_seen_since


def test_a_day_s_gap_in_asking_begins_the_time_anew(staging: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    server, begun = make_server(staging), timezone.now() - 90 * DAY
    assert polled(server, begun, monkeypatch) == (begun, begun)
    later = begun + 23 * HOUR
    assert polled(server, later, monkeypatch) == (later, begun)
    after_gap = later + 25 * HOUR
    assert polled(server, after_gap, monkeypatch) == (after_gap, after_gap)


def test_without_a_time_for_it_no_environment_has_idle_peers(peers: list[Peer], staging: Environment) -> None:
    assert found() == ids(peers)
    change_environment(actor=SYSTEM, environment=staging, idle_after=None, reason="no more")
    assert found() == set()


def hours(first: int, begin: int, end: int, days: int = 5) -> list[list[int]]:
    """Windows of `days` days a week from MONDAY + first days on, for three weeks."""
    starts = [MONDAY + (first + day + 7 * week) * DAY for week in range(3) for day in range(days)]
    return [[int((start + begin * HOUR).timestamp()), int((start + end * HOUR).timestamp())] for start in starts]


@pytest.mark.parametrize(
    ("windows", "heard", "now", "expected"),
    [
        (hours(0, 8, 18), -2.3, 0.4, False),  # Friday evening to Monday morning: no whole window between
        (hours(0, 8, 18), -2.3, 1.4, True),  # Tuesday: Monday's went by
        (hours(0, 8, 18), -2.3, 1.9, False),  # outside
        (hours(0, 8, 18), -9.0, 0.4, True),  # last week's went by
        (hours(5, 10, 14, days=1), -2 + 0.45, 5.45, False),  # Saturdays alone
        (hours(5, 10, 14, days=1), -3.0, 5.45, True),
        (hours(0, 0, 24, days=7), -2.5, 0.4, True),  # a window without an end
        (None, -2.7, 1.9, True),
    ],
)
def test_only_who_could_have_come_is_idle(
    peers: list[Peer], staging: Environment, windows: object, heard: float, now: float, expected: bool
) -> None:
    """With two days for it, in days from a Monday on."""
    change_environment(actor=SYSTEM, environment=staging, idle_after=2 * DAY, reason="strict")
    Peer.objects.update(windows=windows, windows_from=windows and MONDAY, issued_at=MONDAY - 90 * DAY)
    PeerStatus.objects.update(latest_handshake_at=MONDAY + heard * DAY)
    at = MONDAY + now * DAY
    ServerStatus.objects.update(peers_seen_at=at, peers_seen_since=MONDAY - 90 * DAY)
    assert found(at) == (ids(peers) if expected else set())


def test_idle_peers_are_suspended_where_the_environment_says_so(peers: list[Peer], staging: Environment) -> None:
    seen(peers[0], latest_handshake_at=timezone.now())
    assert suspend_idle() == 0
    change_environment(actor=SYSTEM, environment=staging, suspends_idle=True, reason="tidy")
    generation = Server.objects.get().generation
    since = f"{timezone.now() - 30 * DAY:%Y-%m-%d %H:%M} UTC"
    assert suspend_idle() == 9
    assert Server.objects.get().generation == generation + 1
    rows = Suspension.objects.all()
    assert {row.peer_id for row in rows} == ids(peers[1:])
    assert {(row.is_idle, row.is_decided, row.suspended_by) for row in rows} == {(True, False, "Console")}
    event = Event.objects.get(verb="suspension.begin")
    assert event.reason == rows[0].reason == f"idle: nothing heard since {since} (30 days)"
    assert (event.target_label, event.environment_label) == ("9 at once", "staging")
    assert suspend_idle() == 0


def test_who_is_resumed_has_all_the_time_again(peers: list[Peer], staging: Environment) -> None:
    change_environment(actor=SYSTEM, environment=staging, suspends_idle=True, reason="tidy")
    assert suspend_idle() == 10
    resume(actor=SYSTEM, suspension=Suspension.objects.get(peer=peers[0]), reason="on leave")
    assert suspend_idle() == 0
    Suspension.objects.filter(peer=peers[0]).update(ended_at=timezone.now() - 31 * DAY)
    assert suspend_idle() == 1
    alone = Suspension.objects.get(peer=peers[0], ended_at=None)
    assert (alone.is_idle, alone.is_decided) == (True, False)


def test_who_was_idle_stays_out_where_access_comes_back(peers: list[Peer], staging: Environment) -> None:
    """Nobody said that just this device is used again; once somebody does, it has all the time."""
    change_environment(actor=SYSTEM, environment=staging, suspends_idle=True, reason="tidy")
    assert suspend_idle() == 10
    [old] = Suspension.objects.filter(peer=peers[0])
    end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(person=peers[0].device.person)), reason="over")
    make_grant(peers[0].device.person, staging)
    [peer] = Peer.objects.filter(device=peers[0].device, ended_at=None)
    [held] = Suspension.objects.filter(peer=peer)
    assert (held.is_idle, held.reason, held.since, desired_state(peer.server_id).content.peers) == (
        *(True, old.reason, old.began_at),
        {},
    )
    resume(actor=SYSTEM, suspension=held, reason="back from leave")
    assert desired_state(peer.server_id).content.peers.keys() == {peer.device.public_key}
    assert (suspend_idle(), found()) == (0, set())


def test_a_server_that_is_only_looked_at_suspends_nobody(peers: list[Peer], staging: Environment) -> None:
    change_environment(actor=SYSTEM, environment=staging, suspends_idle=True, reason="tidy")
    Server.objects.update(is_observe_only=True)
    assert (len(found()), suspend_idle()) == (10, 0)
    Server.objects.update(is_observe_only=False)
    assert suspend_idle() == 10


def test_every_server_is_looked_at_within_minutes(
    peers: list[Peer], staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_environment(actor=SYSTEM, environment=staging, suspends_idle=True, reason="tidy")
    for _ in range(2):
        make_server(staging)
    monkeypatch.setattr(idle, "SERVERS_AT_ONCE", 1)
    begun, counts = timezone.now(), []
    for number in range(3):
        at = begun + number * dt.timedelta(seconds=15)
        monkeypatch.setattr(timezone, "now", lambda at=at: at)
        counts.append(suspend_idle())
    assert sorted(counts) == [0, 0, 10]


def test_doors_list_idle_peers_to_those_who_see_them(
    peers: list[Peer], alice: User, bob: User, production: Environment
) -> None:
    change_environment(actor=SYSTEM, environment=production, idle_after=30 * DAY, reason="tidy")
    make_server(production)
    make_peers(production, 3)
    grow_old()
    seen(peers[0], latest_handshake_at=timezone.now())
    assert len(script(alice).names("peers?is_idle=true", "id")) == 12
    door = script(bob)
    assert door.names("peers?is_idle=true", "id") == sorted(str(peer.pk) for peer in peers[1:])
    assert door.names("peers?is_idle=false", "id") == [str(peers[0].pk)]
    client = browser(bob)
    assert "9 peers</a> that nothing was heard of" in client.get("/admin/").content.decode()
    assert "12 peers</a> that nothing was heard of" in browser(alice).get("/admin/").content.decode()
    answer = client.get(reverse("admin:peers_peer_changelist") + "?idle=yes")
    assert answer.context["cl"].result_count == 9
    assert client.get(reverse("admin:peers_peer_changelist")).context["cl"].result_count == 10


def queries(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as seen:
        work()
    return len(seen)


def test_thirty_idle_peers_take_as_many_queries_as_ten(peers: list[Peer], staging: Environment) -> None:
    assert queries(suspend_idle) == 1
    change_environment(actor=SYSTEM, environment=staging, suspends_idle=True, reason="tidy")
    few = queries(suspend_idle)
    make_peers(staging, 30)
    Suspension.objects.all().delete()
    grow_old()
    assert queries(suspend_idle) == few
    assert Suspension.objects.count() == 40
    assert queries(suspend_idle) == 4


def test_an_administrator_says_when_to_warn_and_what_is_idle(alice: User, bob: User, staging: Environment) -> None:
    path = f"environments/{staging.pk}"
    asked = {"warn_before": "3 00:00:00", "idle_after": "30 00:00:00", "suspends_idle": True, "reason": "tidy"}
    assert script(bob).patch(path, **asked)[0] == 403
    door = script(alice)
    for name, value, mend in (
        ("warn_before", "-1 00:00:00", "Warn from 0 to 365 days before the end."),
        ("idle_after", "12:00:00", "A peer is called idle after 1 to 3650 days."),
    ):
        assert door.patch(path, **{**asked, name: value}) == (400, {name: [mend]})
    assert Environment.objects.get().idle_after is None
    code, body = door.patch(path, **asked)
    assert (code, {name: body[name] for name in asked if name != "reason"}) == (
        200,
        {"warn_before": "3 00:00:00", "idle_after": "30 00:00:00", "suspends_idle": True},
    )
    page = reverse("admin:fleet_environment_change", args=[staging.pk])
    typed = {"address_rest": "1 00:00:00", "warn_before": "7 00:00:00", "reason": "less of it"}
    refused = browser(alice).post(page, {**typed, "idle_after": "00:10:00"})
    assert refused.context["adminform"].form.errors == {"idle_after": ["A peer is called idle after 1 to 3650 days."]}
    assert browser(alice).post(page, {**typed, "idle_after": ""}).status_code == 302
    found = Environment.objects.get()
    assert (found.warn_before, found.idle_after, found.suspends_idle) == (7 * DAY, None, False)
