"""A server that does not prove a revocation in time: an alarm, once, and never the word that it is done."""

import datetime as dt

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, User
from peers.models import Receipt, Revocation
from peers.overdue import mail_overdue, tell_overdue
from peers.revocation import revoke_devices
from tests.build import make_device, make_grant, make_person, make_server
from tests.doors import browser, script
from tests.postbox import mail_server, point_mail_to


@pytest.fixture
def waiting(staging: Environment) -> Revocation:
    """Pending on two servers for an hour; a third has proven it."""
    servers = [make_server(staging, f"vpn-{name}") for name in ("sgp", "fra", "ams")]
    person = make_person()
    make_grant(person, staging)
    row = revoke_devices(actor=SYSTEM, devices=[make_device(person)], reason="lost")
    hour_ago = timezone.now() - dt.timedelta(hours=1)
    Receipt.objects.update(created_at=hour_ago)
    proof = {"is_gone_from_kernel": True, "is_gone_from_disk": True, "is_durable": True}
    Receipt.objects.filter(server=servers[2]).update(confirmed_at=hour_ago, **proof)
    return row


def test_after_five_minutes_the_ledger_has_an_alarm_that_names_the_servers_once(waiting: Revocation) -> None:
    """D12, E16: one for both servers, and none for the one that has proven it."""
    assert [len(receipts) for receipts in tell_overdue().values()] == [2]
    event = Event.objects.get(verb="revocation.overdue")
    assert sorted(event.changes) == ["vpn-fra", "vpn-sgp"]
    assert all(new.startswith("pending since ") for _, new in event.changes.values())
    assert (event.actor_label, event.target_label, event.environment_label) == ("Console", str(waiting), "staging")
    assert tell_overdue() == {}
    assert Event.objects.filter(verb="revocation.overdue").count() == 1


def test_before_five_minutes_are_over_nobody_is_told(waiting: Revocation) -> None:
    almost = timezone.now() - dt.timedelta(minutes=4, seconds=50)
    Receipt.objects.filter(confirmed_at=None, server__name="vpn-sgp").update(created_at=almost)
    assert [one.server.name for receipts in tell_overdue().values() for one in receipts] == ["vpn-fra"]


def test_page_and_api_say_pending_since_and_never_revoked(waiting: Revocation, bob: User) -> None:
    """D12."""
    tell_overdue()
    client = browser(bob)
    first = client.get("/admin/").content.decode()
    assert first.count(">overdue</span>") == 2
    page = client.get(f"/admin/peers/revocation/{waiting.pk}/change/").content.decode()
    assert "Pending on 2 of 3" in page
    assert page.count("Pending on vpn-") == 2
    assert "Revoked: proven" not in page
    code, body = script(bob).get(f"revocations/{waiting.pk}")
    assert (code, body["state"], body["pending"]) == (200, "pending", ["vpn-fra", "vpn-sgp"])
    assert [bool(one["overdue_at"]) for one in body["receipts"]] == [
        one["confirmed_at"] is None for one in body["receipts"]
    ]


def test_administrators_get_one_mail_of_all_that_is_late(
    waiting: Revocation, alice: User, bob: User, settings: Settings
) -> None:
    """D12, E16: pending, since when and where; a mail server that is down for a while loses nothing."""
    with mail_server() as server:
        point_mail_to(settings, server.port)
        box = server.box
        tell_overdue()
        box.refuses[alice.email] = "550 not now"
        assert mail_overdue() == 0
        box.refuses.clear()
        assert (mail_overdue(), mail_overdue()) == (1, 0)
        [(to, mail)] = box.taken
    assert to == [alice.email]
    body = mail.get_content()
    assert [body.count(f"pending on vpn-{name} since ") for name in ("sgp", "fra", "ams")] == [1, 1, 0]
    assert mail["Subject"] == "A revocation is pending on 2 servers for over 5 minutes"
