"""What comes due by itself: windows of another week, another time zone, and whatever acts made of peers."""

import datetime as dt

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Placement, Server
from fleet.services import change_environment, change_server
from peers import due
from peers.due import begin_grants, renew_windows, settle_due, settle_placements, settle_strays
from peers.entitlement import monday
from peers.granting import grant_access
from peers.models import Device, Grant, Peer, SweepMark
from peers.revocation import revoke_devices
from peers.windows import BadHours
from tests.build import make_device, make_grant, make_person, make_server

pytestmark = pytest.mark.django_db
WEEK = dt.timedelta(weeks=1)
OFFICE = "mon-fri 08:00-18:00"


@pytest.fixture
def device(staging: Environment) -> Device:
    """Carol's laptop, on one server in office hours."""
    server, person = make_server(staging), make_person("Carol")
    settle_placements()
    grant_access(actor=SYSTEM, person=person, server=server, reason="work", hours=OFFICE)
    return make_device(person)


def changed(verb: str) -> dict[str, list[str]]:
    return dict(Event.objects.filter(verb=verb).latest("pk").changes_dict)


def test_each_monday_brings_the_windows_of_one_more_week(device: Device) -> None:
    now = monday(timezone.now())
    peer, other = Peer.objects.get(), make_person("Dave")
    assert peer.windows is not None
    make_grant(other, peer.server.environment)
    make_device(other)
    assert (peer.windows_from, len(peer.windows)) == (now, 15)
    assert renew_windows() == 0
    Peer.objects.filter(pk=peer.pk).update(windows=peer.windows[5:10], windows_from=now - WEEK)
    before = Server.objects.get().generation
    assert (renew_windows(), renew_windows()) == (1, 0)
    again = Peer.objects.get(pk=peer.pk)
    assert (again.windows, again.windows_from, again.ended_at) == (peer.windows, now, None)
    assert Server.objects.get().generation == before + 1
    assert changed("peer.settle") == {"other terms": ["", "1"]}


def test_another_time_zone_moves_the_windows_and_no_address(device: Device, staging: Environment) -> None:
    make_grant(make_device(make_person("Dave")).person, staging)
    before, untouched = Peer.objects.get(device=device), Peer.objects.exclude(device=device).get()
    assert before.windows is not None
    change_environment(actor=SYSTEM, environment=staging, time_zone="UTC", reason="said again")
    assert Placement.objects.get().settled_at is not None
    change_environment(actor=SYSTEM, environment=staging, time_zone="Asia/Tokyo", reason="moved")
    settle_placements()
    after = Peer.objects.get(device=device)
    assert after.windows is not None
    # But for the first one, which begins before the week does in UTC.
    assert after.windows[1:15] == [[begin - 9 * 3600, end - 9 * 3600] for begin, end in before.windows[1:]]
    assert (after.pk, after.ipv4, after.ended_at) == (before.pk, before.ipv4, None)
    same = Peer.objects.get(pk=untouched.pk)
    assert (same.windows, same.ended_at) == (None, None)
    assert changed("peer.settle") == {"peers": ["0", "0"], "other terms": ["", "1"]}


def test_what_acts_missed_is_found_and_made_right(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level-triggered: in parts, each looked at in its turn; where nothing differs nothing is written."""
    monkeypatch.setattr(due, "LOOKED_AT", 1)
    others = [make_device(make_person(name)) for name in ("Dave", "Erin")]
    server = Server.objects.get()
    Grant.objects.create(person=others[0].person, server=server, begun_at=timezone.now(), reason="x", granted_by="x")
    Grant.objects.filter(person=device.person).update(ended_at=timezone.now())
    for _ in range(4):
        settle_strays()
    monkeypatch.undo()
    assert set(Peer.objects.filter(ended_at=None).values_list("device", flat=True)) == {others[0].pk}
    events = Event.objects.filter(verb="peer.settle", target_label__in=["Carol", "Dave", "Erin"])
    assert sorted(events.values_list("target_label", flat=True)) == ["Carol", "Dave"]
    count = Event.objects.count()
    settle_due()
    assert Event.objects.count() == count


def strays(monkeypatch: pytest.MonkeyPatch, count: int) -> list[Device]:
    """Devices that have a right and no peer, as no act has left them; a sweep looks at two at once."""
    monkeypatch.setattr(due, "LOOKED_AT", 2)
    devices = [make_device(make_person(f"Person {number}")) for number in range(count)]
    for device in devices:
        right = {"server": Server.objects.get(), "begun_at": timezone.now(), "reason": "x", "granted_by": "x"}
        Grant.objects.create(person=device.person, **right)
    return devices


@pytest.mark.parametrize("seconds", [0, 7, 15, 60, 61])
def test_every_part_is_looked_at_however_far_apart_the_sweeps_are(
    seconds: int, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many sweeps as there are parts are enough, wherever the first of them begins."""
    Grant.objects.all().update(ended_at=timezone.now())
    settle_strays()
    devices = strays(monkeypatch, 7)
    settle_strays()
    Peer.objects.all().delete()
    now = timezone.now()
    for turn in range(8 // 2 + 1):
        monkeypatch.setattr(timezone, "now", lambda turn=turn: now + dt.timedelta(seconds=seconds * turn))
        settle_strays()
    assert set(Peer.objects.filter(ended_at=None).values_list("device", flat=True)) == {one.pk for one in devices}


def test_devices_that_come_and_go_hide_no_other(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sweep one device more, and one less of those that were looked at."""
    devices = strays(monkeypatch, 6)
    for number in range(6):
        revoke_devices(
            actor=SYSTEM, devices=[devices[number] if number < 2 else make_device(make_person())], reason="x"
        )
        strays(monkeypatch, 1)
        settle_strays()
    issued = set(Peer.objects.filter(ended_at=None).values_list("device", flat=True))
    assert {one.pk for one in devices[2:]} <= issued


def test_a_part_that_cannot_be_read_stops_no_other_and_is_read_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = strays(monkeypatch, 5)
    Grant.objects.filter(person=device.person).update(hours="now and then")
    seen = []
    for _ in range(8):
        try:
            settle_strays()
            seen.append("looked")
        except BadHours:
            seen.append("fault")
    assert seen == ["fault", "looked", "looked", "looked", "fault", "looked", "looked", "looked"]
    assert set(Peer.objects.exclude(device=device).values_list("device", flat=True)) == {one.pk for one in devices[1:]}
    Grant.objects.filter(person=device.person).update(hours=OFFICE)
    settle_strays()
    assert Peer.objects.filter(device=devices[0]).count() == 1


def test_a_part_holds_no_more_peers_than_are_looked_at_at_once(
    device: Device, staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are on many servers or on one: a sweep takes as long for both."""
    monkeypatch.setattr(due, "LOOKED_AT", 2)
    for _ in range(2):
        grant_access(actor=SYSTEM, person=device.person, server=make_server(staging), reason="x")
    others = [make_device(make_person(name)) for name in ("Dave", "Erin")]
    marks = []
    for _ in range(4):
        settle_strays()
        marks.append(SweepMark.objects.get().seen)
    assert marks == [device.pk, others[1].pk, 0, device.pk]


def test_where_all_are_looked_at_each_time_nothing_is_written(device: Device) -> None:
    settle_strays(), settle_strays()
    assert not SweepMark.objects.exists()


def test_a_pool_that_is_too_small_holds_up_nothing_else(staging: Environment) -> None:
    small = make_server(staging, "small", ipv4_pool="10.9.9.0/30")
    wide = make_server(staging, "wide")
    people = [make_device(make_person(name)).person for name in ("Ann", "Ben", "Eve")]
    for person in people:
        for server in (small, wide):
            grant_access(actor=SYSTEM, person=person, server=server, reason="x", begins_at=in_an_hour())
    Grant.objects.update(begins_at=timezone.now())
    full = begin_grants()
    assert (set(full), Peer.objects.filter(server=wide).count()) == ({small.pk}, 3)
    assert (Peer.objects.filter(server=small).count(), Grant.objects.filter(begun_at=None).count()) == (1, 0)
    assert list(settle_strays()) == [small.pk]
    change_server(actor=SYSTEM, server=small, ipv4_pool="10.9.9.0/24", reason="widened")
    assert settle_strays() == {}
    assert Peer.objects.filter(server=small, ended_at=None).count() == 3


def test_a_grant_that_ended_before_it_began_gives_nothing(device: Device, staging: Environment) -> None:
    later = grant_access(actor=SYSTEM, person=device.person, environment=staging, reason="x", begins_at=in_an_hour())
    Grant.objects.filter(pk=later.pk).update(ended_at=timezone.now(), begins_at=timezone.now())
    before = Peer.objects.count()
    assert begin_grants() == {}
    assert (Peer.objects.count(), Grant.objects.get(pk=later.pk).begun_at) == (before, None)


@pytest.mark.parametrize("hours", ["always", "mon 08:00-08:00", "mon 08:00-18:00,tue 08:00-18:00"])
def test_hours_that_are_none_are_refused_at_their_field(staging: Environment, hours: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        grant_access(actor=SYSTEM, person=make_person(), environment=staging, reason="x", hours=hours)
    assert list(refusal.value.message_dict) == ["hours"]
    assert not Grant.objects.exists()


def in_an_hour() -> dt.datetime:
    return timezone.now() + dt.timedelta(hours=1)
