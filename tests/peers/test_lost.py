"""A lost device: dead everywhere by one act, of an operator or of the person whose it is."""

from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Role, Server, User
from fleet.services import add_user, give_role
from peers.due import settle_strays
from peers.leaving import offboard
from peers.lost import report_lost
from peers.models import Device, Peer, PeerStatus, Person
from peers.reserving import release_addresses, reserve_addresses
from peers.suspending import suspend
from peers.waiting import seen_waiting, where_waiting
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.doors import browser, rows, script
from tests.peers.test_admin_access import at, errors_of
from tests.worlds import fill_up

pytestmark = pytest.mark.django_db


@pytest.fixture
def device(staging: Environment, charlie: User) -> Device:
    """Charlie's laptop, on two servers; he signs in and has no role."""
    make_server(staging), make_server(staging)
    person = make_person("Charlie")
    Person.objects.filter(pk=person.pk).update(user=charlie)
    make_grant(person, staging)
    return make_device(Person.objects.get(pk=person.pk))


def test_the_next_device_is_issued_at_once_at_other_addresses(device: Device, charlie: User) -> None:
    old = set(Peer.objects.values_list("ipv4", flat=True))
    key = new_public_key()
    row, new = report_lost(actor=charlie, device=device, reason="on the train", public_key=key)
    assert new is not None
    assert (row.reason, row.tombstones.get().public_key) == ("lost: on the train", device.public_key)
    assert (new.name, new.replaces, new.public_key) == ("laptop", None, key)
    fresh = set(Peer.objects.filter(device=new, ended_at=None).values_list("ipv4", flat=True))
    assert (len(fresh), fresh & old) == (2, set())
    assert not Peer.objects.filter(device=device, ended_at=None).exists()


def test_a_bad_next_key_leaves_the_lost_one_as_it_was(device: Device, bob: User) -> None:
    """All or nothing: whoever is refused sees it, and asks again."""
    before = rows()
    for bad in ("x", device.public_key, make_device(make_person()).public_key):
        with pytest.raises(ValidationError):
            report_lost(actor=bob, device=device, public_key=bad)
    assert (Device.objects.get(pk=device.pk).revoked_at, rows()["peers.Tombstone"]) == (None, 0)
    assert rows()["peers.Peer"] == before["peers.Peer"]
    assert report_lost(actor=bob, device=device)[1] is None


def test_nobody_else_s_device_and_none_after_leaving(device: Device, charlie: User, bob: User) -> None:
    """D4."""
    other = make_device(make_person("Dave"))
    caller, page = script(charlie), browser(charlie)
    before = rows()
    with pytest.raises(PermissionDenied):
        report_lost(actor=charlie, device=other)
    assert caller.post(f"devices/{other.pk}/lost") == caller.post("devices/999999/lost")
    assert caller.post(f"devices/{other.pk}/lost")[0] == 404
    assert page.post(at("peers_device_mine_lost", other.pk), {"_answered": "1"}).status_code == 404
    assert page.post(at("peers_device_lost", other.pk), {"_answered": "1"}).status_code == 403
    assert rows() == before
    offboard(actor=SYSTEM, people=[device.person], reason="left")
    assert caller.post(f"devices/{device.pk}/lost")[0] == 401


def test_a_person_without_any_role_reports_their_own_over_http(device: Device, charlie: User) -> None:
    caller, reader = script(charlie), script(charlie, scope="read")
    assert [row["id"] for row in caller.get("devices/own")[1]] == [device.pk]
    assert (caller.get("devices")[0], reader.post(f"devices/{device.pk}/lost")[0]) == (403, 403)
    assert caller.post(f"devices/{device.pk}/lost", reason="a\nb")[1].keys() == {"reason"}
    assert caller.post(f"devices/{device.pk}/lost", public_key="x")[1].keys() == {"public_key"}
    code, body = caller.post(f"devices/{device.pk}/lost", public_key=new_public_key(), name="phone")
    assert (code, body["device"]["name"], body["revocation"]["state"]) == (201, "phone", "pending")
    assert body["revocation"]["reason"] == "lost"
    assert caller.post(f"devices/{device.pk}/lost")[0] == 409


def test_a_person_without_any_role_reports_their_own_on_a_page(device: Device, charlie: User) -> None:
    page, mine = browser(charlie), at("peers_device_mine")
    path = at("peers_device_mine_lost", device.pk)
    assert path in page.get(mine).content.decode()
    assert "My devices" in page.get("/admin/").content.decode()
    assert page.get(path).status_code == 200
    assert list(errors_of(page.post(path, {"_answered": "1", "public_key": "x"}))) == ["public_key"]
    assert page.post(path, {"_answered": "1", "reason": "stolen"})["Location"] == mine
    shown = page.get(mine).content.decode()
    assert ("being revoked" in shown, path in shown) == (True, False)


def test_an_operator_reports_it_in_two_steps_and_lands_where_the_proof_is(device: Device, bob: User) -> None:
    """D4."""
    page, path = browser(bob), at("peers_device_lost", device.pk)
    assert path in page.get(at("peers_device_change", device.pk)).content.decode()
    answer = page.post(path, {"_answered": "1", "reason": "", "public_key": new_public_key(), "name": "phone"})
    new = Device.objects.get(revoked_at=None)
    assert (answer["Location"], new.name) == (at("peers_device_change", new.pk), "phone")
    other = browser(bob).post(at("peers_device_lost", new.pk), {"_answered": "1", "reason": ""})
    assert "/revocation/" in other["Location"]


@pytest.fixture
def full(device: Device) -> Server:
    """One of the servers that Charlie's laptop is on: the last address of it is the laptop's."""
    server = Server.objects.order_by("pk")[0]
    rows = AddressRange.objects.filter(server=server, kind=AddressRange.Kind.SERVER)
    assert rows.count() == 2
    reserve_addresses(
        actor=SYSTEM, server=server, addresses=f"{server.pool4[3]}-{server.pool4[-2]}", reason="all that is left"
    )
    return server


def test_a_full_pool_holds_up_no_revocation(device: Device, full: Server, charlie: User, bob: User) -> None:
    """D3: nothing holds up a revocation. The next device has its peers where there is room, and waits elsewhere."""
    row, new = report_lost(actor=charlie, device=device, public_key=new_public_key())
    assert new is not None
    assert not Peer.objects.filter(device=device, ended_at=None).exists()
    assert (row.tombstones.count(), row.receipts.count()) == (1, 2)
    (peer,) = Peer.objects.filter(device=new)
    assert (peer.server != full, where_waiting([new])) == (True, {new.pk: [full]})
    assert list(settle_strays()) == [full.pk]
    reservation = AddressRange.objects.get(kind=AddressRange.Kind.RESERVED)
    release_addresses(actor=SYSTEM, reservation=reservation, reason="needed")
    AddressRange.objects.filter(pk=reservation.pk).update(released_at=timezone.now())
    assert settle_strays() == {}
    assert set(Peer.objects.filter(device=new, ended_at=None).values_list("server", flat=True)) == {
        full.pk,
        peer.server_id,
    }


@pytest.mark.parametrize("what", ["keyring", "database"])
def test_whatever_stands_against_the_next_device_the_lost_one_is_dead(
    what: str, own_keyrings: Path, device: Device, charlie: User
) -> None:
    """D3: nothing that the next one needs is asked before the key is dead: no keyring, and no room for its rows."""
    kept = settings.KEYRING_PEERS.with_name("kept")
    if what == "keyring":
        settings.KEYRING_PEERS.rename(kept)
    else:
        fill_up("peers_peerstatus")
    row, new = report_lost(actor=charlie, device=device, public_key=new_public_key())
    assert new is not None
    assert (row.tombstones.count(), Peer.objects.filter(device=device, ended_at=None).count()) == (1, 0)
    assert (len(where_waiting([new])[new.pk]), Peer.objects.filter(device=new).count()) == (2, 0)
    if what == "keyring":
        kept.rename(settings.KEYRING_PEERS)
        settle_strays()
        assert Peer.objects.filter(device=new, ended_at=None).count() == 2


def test_every_door_says_that_the_key_is_dead_and_where_the_next_one_waits(
    device: Device, full: Server, charlie: User, bob: User
) -> None:
    lost = {"public_key": new_public_key(), "name": "phone"}
    code, body = script(charlie).post(f"devices/{device.pk}/lost", **lost)
    assert (code, body["revocation"]["state"], body["waits_for_address"]) == (201, "pending", [full.name])
    mine = browser(charlie).get(at("peers_device_mine")).content.decode()
    assert ("being revoked" in mine, f"waits for an address on {full.name}" in mine) == (True, True)
    phone, page = Device.objects.get(name="phone"), browser(bob)
    told = f"aits for an address on {full.name}"
    assert told in page.get(at("peers_device_change", phone.pk)).content.decode()
    assert told not in page.get(at("peers_device_change", device.pk)).content.decode()
    answer = page.post(
        at("peers_device_lost", phone.pk), {"_answered": "1", "public_key": new_public_key(), "name": "tablet"}
    )
    shown = page.get(answer["Location"]).content.decode()
    assert "The key of Charlie&#x27;s phone is revoked." in shown
    assert f"Charlie&#x27;s tablet waits for an address on {full.name}" in shown
    other = make_device(make_person("Dave"))
    code, body = script(bob).post(f"devices/{other.pk}/lost", public_key=new_public_key())
    assert (code, body["waits_for_address"]) == (201, [])


def test_who_does_not_see_a_server_is_not_told_of_it(device: Device, full: Server, production: Environment) -> None:
    """B3."""
    new = report_lost(actor=SYSTEM, device=device, public_key=new_public_key())[1]
    assert new is not None
    user = add_user(actor=SYSTEM, username="dora", email="", password=None, is_superuser=False)
    give_role(actor=SYSTEM, user=user, name=Role.Name.OPERATOR, environment=production)
    assert seen_waiting([new], user) == {}
    assert seen_waiting([new], User.objects.get(username="charlie")) == {new.pk: [full.name]}


@pytest.mark.parametrize("kept", ["device", "peer", "machine"])
def test_a_device_that_is_kept_out_is_not_followed_by_another_of_its_own_accord(
    kept: str, device: Device, charlie: User, bob: User
) -> None:
    """B5: by the word lost alone nobody comes round a suspension; the key dies all the same."""
    peer = Peer.objects.filter(device=device)[0]
    if kept == "machine":
        PeerStatus.objects.filter(peer=peer).update(shut_at=timezone.now())
    else:
        suspend(actor=SYSTEM, targets=[device if kept == "device" else peer], reason="malware")
    before = rows()
    with pytest.raises(ValidationError) as refusal:
        report_lost(actor=charlie, device=device, public_key=new_public_key())
    assert refusal.value.message_dict["public_key"][0].startswith("This device is kept out: report it lost without")
    assert rows() == before
    assert report_lost(actor=charlie, device=device)[1] is None
    assert report_lost(actor=bob, device=make_device(device.person), public_key=new_public_key())[1] is not None
