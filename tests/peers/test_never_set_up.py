"""Servers that were never set up: no key ever was there, so nothing is waited for from them."""

import datetime as dt
from importlib import import_module

import pytest
from django.apps import apps
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from peers.due import settle_placements
from peers.granting import end_grants, grant_access
from peers.leaving import held_by
from peers.linking import link_user
from peers.models import Device, Grant, Peer, Receipt, Revocation
from peers.moving import move_grant
from peers.overdue import tell_overdue
from peers.revocation import revoke_devices, revoke_key
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.doors import browser, script

PROOF = {"is_gone_from_kernel": True, "is_gone_from_disk": True, "is_durable": True, "generation": 12}


@pytest.fixture
def device(staging: Environment) -> Device:
    """Carol's laptop, wanted on a server that is not set up yet."""
    make_server(staging, "vpn-new", is_set_up=False)
    person = make_person()
    make_grant(person, staging)
    return make_device(person)


def turn_late() -> None:
    Receipt.objects.update(created_at=timezone.now() - dt.timedelta(hours=1))


def page_of(row: Revocation, user: User) -> str:
    return str(browser(user).get(f"/admin/peers/revocation/{row.pk}/change/").content.decode())


def test_only_servers_that_were_set_up_are_waited_for(device: Device, bob: User, staging: Environment) -> None:
    """D12: the other one is named, with the reason."""
    assert str(held_by([device.person])) == "1 key on 0 servers, and on 1 that is not set up yet"
    make_server(staging, "vpn-fra")
    settle_placements()
    assert str(held_by([device.person])) == "1 key on 1 server, and on 1 that is not set up yet"
    row = revoke_devices(actor=bob, devices=[device], reason="lost")
    caller = script(bob)
    body = caller.get(f"revocations/{row.pk}")[1]
    assert (body["state"], body["pending"], body["not_set_up"]) == ("pending", ["vpn-fra"], ["vpn-new"])
    told = [(one["server_name"], one["state"]) for one in body["receipts"]]
    assert told == [("vpn-fra", "pending"), ("vpn-new", "nothing to confirm")]
    event = Event.objects.get(verb="revocation.add")
    assert (event.changes["servers"][1], event.changes["servers not set up yet"][1]) == ("1", "1")
    page = page_of(row, bob)
    assert "Pending on 1 of 1" in page
    assert "vpn-new is not set up yet: the key never was there, and never gets in." in page
    assert "Pending on vpn-new" not in page
    turn_late()
    assert [one.server.name for found in tell_overdue().values() for one in found] == ["vpn-fra"]
    Receipt.objects.filter(server__name="vpn-fra").update(confirmed_at=timezone.now(), **PROOF)
    assert caller.get(f"revocations/{row.pk}")[1]["state"] == "confirmed"
    assert "Revoked: proven on 1 of 1" in page_of(row, bob)


def test_where_no_server_was_set_up_a_revocation_is_done_at_once_and_says_so(
    device: Device, alice: User, bob: User, charlie: User
) -> None:
    link_user(actor=alice, person=device.person, user=charlie, reason="it is hers")
    row = revoke_devices(actor=bob, devices=[device], reason="lost")
    body = script(bob).get(f"revocations/{row.pk}")[1]
    assert (body["state"], body["pending"], body["not_set_up"]) == ("confirmed", [], ["vpn-new"])
    assert "Revoked: nothing to confirm, as 1 server was not set up yet" in page_of(row, bob)
    client = browser(bob)
    for path in ("revocation/", f"person/{device.person_id}/change/"):
        page = client.get(f"/admin/peers/{path}").content.decode()
        assert ("nothing to confirm" in page, "pending on" in page) == (True, False), path
    assert "being revoked" not in browser(charlie).get("/admin/peers/device/mine/").content.decode()
    turn_late()
    assert tell_overdue() == {}
    assert ">pending</span>" not in client.get("/admin/").content.decode()


def test_what_ends_there_is_gone_at_once(device: Device, bob: User) -> None:
    """Nobody reads that it may still pass there, and its addresses wait for nobody's word."""
    end_grants(actor=bob, grants=list(Grant.objects.all()), reason="over")
    peer = Peer.objects.get()
    assert peer.gone_at == peer.ended_at is not None
    caller = script(bob)
    assert caller.names("peers", "state") == ["gone"]
    assert caller.get("questions/access")[1]["access"]["total"] == 0
    steps = caller.get(f"questions/person?person={device.person_id}")[1]["timeline"]["rows"]
    assert [one["what"] for one in steps if one["what"].startswith("peer")] == ["peer withdrawn", "peer issued"]


def test_a_move_from_there_waits_for_nothing(staging: Environment) -> None:
    """D3: and one from a server that was set up does."""
    for name, is_set_up in (("a", False), ("b", True)):
        old, new = make_server(staging, f"vpn-old-{name}", is_set_up=is_set_up), make_server(staging, f"vpn-new-{name}")
        person = make_person(f"Ann {name}")
        make_device(person)
        grant = grant_access(actor=SYSTEM, person=person, server=old, reason="work")
        move_grant(actor=SYSTEM, grant=grant, server=new, reason="nearer")
        assert (Peer.objects.get(server=new).waits_for is not None) is is_set_up


def test_a_server_that_is_only_looked_at_stays_pending_and_says_why(staging: Environment, bob: User) -> None:
    """D12: whoever runs it may have put the key there by hand, and the Console takes nothing out."""
    make_server(staging, "vpn-seen", is_observe_only=True)
    person = make_person()
    make_grant(person, staging)
    row = revoke_devices(actor=bob, devices=[make_device(person)], reason="lost")
    assert script(bob).get(f"revocations/{row.pk}")[1]["pending"] == ["vpn-seen"]
    page = page_of(row, bob)
    assert "The Console only looks at this server and changes nothing there" in page
    assert "muster-node revoke wg0" in page
    turn_late()
    assert [one.server.name for found in tell_overdue().values() for one in found] == ["vpn-seen"]


def test_a_key_that_nobody_knows_may_be_where_the_console_only_looks(staging: Environment, alice: User) -> None:
    """2.5: that server is named, and nobody reads that it was asked; a known key's page is about its own servers."""
    make_server(staging, "vpn-seen", is_observe_only=True), make_server(staging, "vpn-later", is_set_up=False)
    server, person = make_server(staging, "vpn-fra"), make_person()
    grant_access(actor=SYSTEM, person=person, server=server, reason="work")
    rows = (
        revoke_key(actor=alice, public_key=new_public_key(), reason="found on a disk"),
        revoke_devices(actor=alice, devices=[make_device(person)], reason="lost"),
    )
    told = ["vpn-seen was not asked: the Console only looks at it" in page_of(row, alice) for row in rows]
    assert (told, set(Receipt.objects.values_list("server__name", flat=True))) == ([True, False], {"vpn-fra"})


def test_what_waited_for_ever_before_waits_no_more(device: Device, staging: Environment) -> None:
    """The migration: what an older Console wrote about servers that were never set up."""
    make_server(staging, "vpn-fra")
    other = make_device(make_person("Ann"))
    grant_access(actor=SYSTEM, person=other.person, server=Server.objects.get(name="vpn-fra"), reason="work")
    revoke_devices(actor=SYSTEM, devices=[device, other], reason="lost")
    Receipt.objects.update(is_needless=False)
    Peer.objects.update(gone_at=None)
    import_module("peers.migrations.0008_nothing_to_confirm").end_the_waiting(apps, None)
    assert list(Receipt.objects.values_list("server__name", "is_needless")) == [("vpn-fra", False), ("vpn-new", True)]
    gone = dict(Peer.objects.values_list("server__name", "gone_at"))
    assert (gone["vpn-fra"], gone["vpn-new"]) == (None, Peer.objects.get(server__name="vpn-new").ended_at)
