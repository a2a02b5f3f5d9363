"""A device that replaces another: it has its addresses, and no third one ever does."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, User
from nodes.chores import release_rested
from nodes.desired import desired_state
from nodes.models import ReviewItem
from nodes.render import peer_lines
from nodes.reviews import decide_review, hand_on_reviews
from peers.granting import end_grants
from peers.models import Device, Grant, Peer, Revocation
from peers.revocation import revoke_devices
from peers.services import register_device
from tests.build import make_device, make_grant, make_person, make_review, make_server, new_public_key
from tests.doors import browser, script
from tests.nodes.journals import Node, journal, read

pytestmark = pytest.mark.django_db


@pytest.fixture
def old(staging: Environment) -> Device:
    """Carol's laptop, on two servers."""
    for _ in range(2):
        make_server(staging)
    person = make_person("Carol")
    make_grant(person, staging)
    return make_device(person)


def replace(old: Device) -> Device:
    return register_device(actor=SYSTEM, person=old.person, name=old.name, public_key=new_public_key(), replaces=old)


def live(device: Device) -> list[Peer]:
    return list(Peer.objects.filter(device=device, ended_at=None).order_by("server"))


def pushed(peer: Peer) -> dict[str, str]:
    return peer_lines(desired_state(peer.server_id).content)


def test_a_replacement_has_the_addresses_of_the_old_one_on_every_server(old: Device, staging: Environment) -> None:
    taken = AddressRange.objects.count()
    new = replace(old)
    assert [(p.ipv4, p.ipv6) for p in live(new)] == [(p.ipv4, p.ipv6) for p in live(old)]
    assert len(live(new)) == 2
    assert AddressRange.objects.count() == taken
    for peer in live(new):
        lines = pushed(peer)
        assert set(lines) == {old.public_key, new.public_key}
        assert f'"replaces":"{old.public_key}"' in lines[new.public_key]
        assert "replaces" not in lines[old.public_key]
    make_server(staging, name="vpn-later")
    another = make_device(make_person("Dave"))
    make_grant(another.person, staging)
    assert {p.ipv4 for p in live(another)}.isdisjoint({p.ipv4 for p in live(old)})


def test_a_server_that_comes_later_gets_both_at_one_address(old: Device, staging: Environment) -> None:
    new = replace(old)
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="pause")
    make_grant(old.person, staging)
    assert [p.ipv4 for p in live(new)] == [p.ipv4 for p in live(old)]
    assert len(live(new)) == 2


def test_once_the_old_key_is_dead_the_new_one_stands_alone_at_its_addresses(old: Device) -> None:
    new = replace(old)
    revoke_devices(actor=SYSTEM, devices=[old], reason="stolen")
    for peer in live(new):
        lines = pushed(peer)
        assert set(lines) == {new.public_key}
        assert "replaces" not in lines[new.public_key]
        assert (peer.ipv4.freed_at, peer.ipv6.freed_at) == (None, None)
    third = replace(new)
    assert [p.ipv4 for p in live(third)] == [p.ipv4 for p in live(new)]


def test_addresses_rest_when_both_have_gone(old: Device, staging: Environment) -> None:
    new = replace(old)
    revoke_devices(actor=SYSTEM, devices=[new], reason="never used")
    assert all(peer.ipv4.freed_at is None for peer in live(old))
    again = replace(old)
    revoke_devices(actor=SYSTEM, devices=[old, again], reason="stolen")
    ranges = AddressRange.objects.filter(peers4__device=old) | AddressRange.objects.filter(peers6__device=old)
    assert all(row.freed_at for row in ranges.distinct())
    ranges.update(freed_at=timezone.now() - staging.address_rest)
    Peer.objects.filter(device=old).update(gone_at=timezone.now())
    assert release_rested() == 0
    Peer.objects.update(gone_at=timezone.now())
    assert release_rested() == 4


def test_no_third_peer_has_an_address(old: Device) -> None:
    peer = live(old)[0]
    replace(old)
    for values in ({"replaces": None}, {"replaces": peer}):
        extra = Peer(
            device=make_device(make_person("Dave")), server=peer.server, ipv4=peer.ipv4, ipv6=peer.ipv6, **values
        )
        with pytest.raises(IntegrityError), transaction.atomic():
            extra.save(force_insert=True)


def test_who_was_shut_out_at_the_machine_is_not_pushed_by_the_new_key(old: Device) -> None:
    new = replace(old)
    first, second = live(old)
    make_review(first)
    assert set(pushed(first)) == set()
    assert set(pushed(second)) == {old.public_key, new.public_key}


def test_a_node_says_that_the_new_key_has_come_and_the_old_one_is_dead_everywhere(old: Device) -> None:
    new = replace(old)
    server = live(old)[0].server
    entry = {"what": "rotated", "public_key": old.public_key, "detail": f"replaced by {new.public_key}"}
    read(server, Node(journal(entry)))
    assert live(old) == []
    assert len(live(new)) == 2
    row = Revocation.objects.get()
    assert (row.label, row.reason, row.receipts.count()) == (str(old), entry["detail"], 2)
    event = Event.objects.get(verb="revocation.add")
    assert (event.origin, event.origin_detail, event.actor_label) == ("node", server.name, "node")


def test_it_is_dead_also_where_the_new_key_was_revoked_before_we_heard_of_it(old: Device) -> None:
    new, server = replace(old), live(old)[0].server
    revoke_devices(actor=SYSTEM, devices=[new], reason="lost too")
    entry = {"what": "rotated", "public_key": old.public_key, "detail": f"replaced by {new.public_key}"}
    read(server, Node(journal(entry)))
    assert live(old) == []


@pytest.mark.parametrize("end", ["by a person", "by the new key elsewhere"])
def test_who_is_shut_out_at_a_machine_waits_for_a_person_under_the_new_key(old: Device, bob: User, end: str) -> None:
    new = replace(old)
    first, second = live(old)
    read(first.server, Node(journal({"what": "suspended", "public_key": old.public_key, "detail": "missing"})))
    if end == "by a person":
        revoke_devices(actor=SYSTEM, devices=[old], reason="lost")
        assert pushed(first) == {}
        hand_on_reviews()
    else:
        read(second.server, Node(journal({"what": "rotated", "public_key": old.public_key, "detail": "replaced"})))
    item = ReviewItem.objects.get()
    assert (item.peer, item.state, pushed(first)) == (live(new)[0], "waiting", {})
    assert set(pushed(second)) == {new.public_key}
    decide_review(actor=bob, item=item, decision="resume", reason="it was found")
    assert set(pushed(first)) == {new.public_key}


def test_a_suspend_that_is_read_after_the_key_was_replaced_shuts_the_new_one(old: Device) -> None:
    replace(old)
    first, second = live(old)
    read(second.server, Node(journal({"what": "rotated", "public_key": old.public_key, "detail": "replaced"})))
    read(first.server, Node(journal({"what": "suspended", "public_key": old.public_key, "detail": "missing"})))
    assert ReviewItem.objects.get().state == "waiting"
    assert pushed(first) == {}


def test_a_node_kills_no_key_by_it_that_nothing_replaces(old: Device) -> None:
    """E15: its word goes into the ledger, and no further."""
    entry = {"what": "rotated", "public_key": old.public_key, "detail": "replaced by nobody"}
    read(live(old)[0].server, Node(journal(entry)))
    assert len(live(old)) == 2
    assert Event.objects.filter(verb="journal.entry").count() == 1


@pytest.mark.parametrize("case", ["another person's", "revoked", "replaced already", "not connected yet"])
def test_what_cannot_be_replaced_is_refused_at_its_field(old: Device, case: str) -> None:
    chosen, word = old, {"another person's": "same person", "revoked": "revoked already"}.get(case, "revoke")
    person = old.person
    if case == "another person's":
        person = make_person("Dave")
    elif case == "revoked":
        revoke_devices(actor=SYSTEM, devices=[old], reason="stolen")
    else:
        new = replace(old)
        chosen = new if case == "not connected yet" else old
    before = Device.objects.count()
    with pytest.raises(ValidationError, match=word):
        register_device(actor=SYSTEM, person=person, name="new", public_key=new_public_key(), replaces=chosen)
    assert Device.objects.count() == before


def test_a_key_is_replaced_by_the_api_and_the_admin(old: Device, bob: User, staging: Environment) -> None:
    caller, key = script(bob), new_public_key()
    code, body = caller.post("devices", person=old.person_id, name="laptop", public_key=key, replaces=old.pk)
    assert (code, body["replaces"]) == (201, old.pk)
    new = Device.objects.get(public_key=key)
    client = browser(bob)
    page = reverse("admin:peers_device_change", args=[new.pk])
    assert "Replace key" not in client.get(page).content.decode()
    revoke_devices(actor=SYSTEM, devices=[old], reason="stolen")
    assert "Replace key" in client.get(page).content.decode()
    url = client.get(reverse("admin:peers_device_replace", args=[new.pk]))["Location"]
    assert client.get(url).context["adminform"].form.initial["replaces"] == str(new.pk)
    for nonsense in ("replaces=abc", "person=abc", "replaces=999"):
        assert client.get(f"{reverse('admin:peers_device_add')}?{nonsense}").status_code == 200
    form = {"person": new.person_id, "name": "laptop", "public_key": new_public_key(), "replaces": new.pk}
    assert client.post(url, form).status_code == 302
    assert Device.objects.filter(replaces=new).count() == 1
