"""People, devices, grants and revocations in the admin: each act asks for what it needs, and then does it once."""

import datetime as dt
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Role, Server, ServerStatus, User
from fleet.services import give_role
from nodes.status import record_failure
from peers.models import Device, Grant, Peer, PeerStatus, Person, Receipt, Revocation
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.doors import browser, rows

PROOF = {"is_gone_from_kernel": True, "is_gone_from_disk": True, "is_durable": True, "generation": 12}


def at(page: str, *args: object) -> str:
    return reverse(f"admin:{page}", args=args)


def make_held_device(environment: Environment) -> Device:
    person = make_person("Carol Contractor")
    make_grant(person, environment)
    return make_device(person, "laptop")


def errors_of(answer: Any) -> dict[str, list[str]]:
    """Field -> messages of a form that was shown again."""
    assert answer.status_code == 200, answer.status_code
    context = answer.context
    form = context["adminform"].form if "adminform" in context else context["form"]
    return dict(form.errors)


def test_people_and_devices_are_added_through_their_services(bob: User, staging: Environment) -> None:
    client, key = browser(bob), new_public_key()
    make_server(staging)
    answer = client.post(at("peers_person_add"), {"name": "Carol", "email": "", "kind": "employee"})
    person = Person.objects.get()
    assert (answer.status_code, person.name) == (302, "Carol")
    grant = {"person": person.pk, "environment": staging.pk, "networks": "10.0.0.0/8\n\n10.9.0.0/16", "reason": "work"}
    assert client.post(at("peers_grant_add"), grant).status_code == 302
    device = {"person": person.pk, "name": "laptop", "public_key": key}
    assert client.post(at("peers_device_add"), device).status_code == 302
    assert Grant.objects.get().networks == ["10.0.0.0/8", "10.9.0.0/16"]
    assert Peer.objects.get().device.public_key == key
    assert client.post(at("peers_person_change", person.pk), {"name": "Carla", "kind": "employee"}).status_code == 302
    assert Person.objects.get().name == "Carla"


@pytest.mark.parametrize("name", ["", "bob\n[Interface]\nPostUp = id", "x" * 101, "a\u2028b", "a\x00b"])
def test_a_bad_name_stands_at_its_field_and_nothing_changes(name: str, bob: User) -> None:
    """A1."""
    client, person = browser(bob), make_person("Carol")
    before = rows()
    for path in (at("peers_person_add"), at("peers_person_change", person.pk)):
        assert list(errors_of(client.post(path, {"name": name, "kind": "employee"}))) == ["name"]
    assert rows() == before
    assert Person.objects.get().name == "Carol"


def test_a_bad_key_stands_at_its_field(bob: User, staging: Environment) -> None:
    """A6: spaces are shown, not cut off."""
    client, taken, key = browser(bob), make_held_device(staging), new_public_key()
    before = rows()
    for bad in ("", "x", f" {key}", f"{key} ", "A" * 43 + "=", taken.public_key):
        data = {"person": taken.person_id, "name": "phone", "public_key": bad}
        assert list(errors_of(client.post(at("peers_device_add"), data))) == ["public_key"], bad
    assert rows() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("networks", value) for value in ("10.0.0.2/8", "10.0.0.2/32;id", "$(id)", "::ffff:10.0.0.2/128")),
        *(("reason", value) for value in ("", "a\u2028b", "x" * 501)),
        *(("until_0", value) for value in ("soon", "2001-01-01")),
        *(("person", value) for value in ("999", "abc", "9" * 30)),
        *(("environment", value) for value in ("999", "abc")),
    ],
)
def test_a_bad_field_of_a_grant_stands_at_its_field(field: str, value: str, bob: User, staging: Environment) -> None:
    """A3."""
    client = browser(bob)
    good = {"person": make_person().pk, "environment": staging.pk, "reason": "work", "until_1": "00:00:00"}
    good["until_0"] = (timezone.now() + dt.timedelta(days=2)).date().isoformat()
    before = rows()
    answer = client.post(at("peers_grant_add"), {**good, field: value})
    assert list(errors_of(answer)) == [field.removesuffix("_0")]
    assert rows() == before
    assert client.post(at("peers_grant_add"), good).status_code == 302


def test_a_device_is_revoked_with_a_reason_and_the_page_of_the_revocation_follows(
    bob: User, staging: Environment
) -> None:
    """D4: two steps, and none by a link alone."""
    make_server(staging, "vpn-sgp")
    device, client = make_held_device(staging), browser(bob)
    path = at("peers_device_revoke", device.pk)
    before = rows()
    assert client.get(path).status_code == 200
    assert client.post(path, {"reason": "lost"}).status_code == 200  # not asked yet
    for bad in ("", " ", "a\u2028b", "x" * 501):
        assert list(errors_of(client.post(path, {"_answered": "1", "reason": bad}))) == ["reason"]
    assert rows() == before
    answer = client.post(path, {"_answered": "1", "reason": "lost"})
    revocation = Revocation.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, at("peers_revocation_change", revocation.pk))
    assert (revocation.reason, revocation.revoked_by) == ("lost", "bob")


def test_a_revoke_needs_the_csrf_token(bob: User, staging: Environment) -> None:
    """B18."""
    device = make_held_device(staging)
    client = browser(bob, checks_csrf=True)
    path = at("peers_device_revoke", device.pk)
    assert client.post(path, {"_answered": "1", "reason": "lost"}).status_code == 403
    client.get(path)
    data = {"_answered": "1", "reason": "lost", "csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    assert client.post(path, data, headers={"Referer": "https://testserver/"}).status_code == 302


def test_a_person_is_revoked_with_everything(bob: User, staging: Environment) -> None:
    device, client = make_held_device(staging), browser(bob)
    other = make_device(device.person, "phone")
    path = at("peers_person_revoke", device.person_id)
    assert client.post(path, {"_answered": "1", "reason": "contract ended"}).status_code == 302
    assert Device.objects.filter(revoked_at=None).count() == 0
    assert Device.objects.get(pk=other.pk).revoked_at is not None


def test_selected_devices_are_revoked_in_one_act(bob: User, staging: Environment) -> None:
    """A4: no device chosen touches none."""
    first, second = make_held_device(staging), make_held_device(staging)
    client, path = browser(bob), at("peers_device_changelist")
    before = rows()
    chosen = {"action": "revoke_selected", "_selected_action": [first.pk, second.pk]}
    client.post(path, {"action": "revoke_selected", "_answered": "1", "reason": "x"})
    assert client.post(path, chosen).status_code == 200
    assert list(errors_of(client.post(path, {**chosen, "_answered": "1", "reason": ""}))) == ["reason"]
    assert rows() == before
    assert client.post(path, {**chosen, "_answered": "1", "reason": "lost"}).status_code == 302
    assert Revocation.objects.get().tombstones.count() == 2


def test_selected_grants_end_with_a_reason(bob: User, staging: Environment, production: Environment) -> None:
    mine, other = make_grant(make_person(), staging), make_grant(make_person(), production)
    client, path = browser(bob), at("peers_grant_changelist")
    chosen = {"action": "end_selected", "_selected_action": [mine.pk, other.pk]}
    assert list(errors_of(client.post(path, {**chosen, "_answered": "1", "reason": ""}))) == ["reason"]
    assert client.post(path, {**chosen, "_answered": "1", "reason": "over"}).status_code == 302
    assert list(Grant.objects.filter(ended_at=None)) == [other]


def test_an_operator_of_elsewhere_is_told_why_not(
    bob: User, alice: User, staging: Environment, production: Environment
) -> None:
    """D4: the same page, the same answer to it."""
    make_server(production)
    device = make_held_device(production)
    path, data = at("peers_device_revoke", device.pk), {"_answered": "1", "reason": "lost"}
    client = browser(bob)
    before = rows()
    errors = errors_of(client.post(path, data))
    assert list(errors) == ["__all__"]
    assert "ask an administrator" in errors["__all__"][0]
    assert "production" not in errors["__all__"][0]
    assert rows() == before
    give_role(actor=SYSTEM, user=bob, name=Role.Name.AUDITOR, environment=production)
    before = rows()
    assert errors_of(client.post(path, data)) == {"__all__": ["bob is neither operator nor helpdesk of production."]}
    assert rows() == before
    assert browser(alice).post(path, data).status_code == 302


def test_a_revocation_is_pending_until_every_server_has_proven_it(bob: User, staging: Environment) -> None:
    """D12, F1: the word is not said before, and the page says what can be done at the box."""
    make_server(staging, "vpn-fra"), make_server(staging, "vpn-sgp")
    device, client = make_held_device(staging), browser(bob)
    client.post(at("peers_device_revoke", device.pk), {"_answered": "1", "reason": "lost $(id)"})
    path = at("peers_revocation_change", Revocation.objects.get().pk)
    Receipt.objects.filter(server__name="vpn-fra").update(confirmed_at=timezone.now(), **PROOF)
    page = client.get(path).content.decode()
    assert ("Pending on 1 of 2" in page, "Revoked:" in page, 'http-equiv="refresh"' in page) == (True, False, True)
    assert "gone from kernel and disk, generation 12" in page
    assert "Pending on vpn-sgp since" in page
    assert f"muster-node revoke wg0 {device.public_key} --reason &#x27;lost $(id)&#x27;" in page
    Receipt.objects.update(confirmed_at=timezone.now(), **PROOF)
    page = client.get(path).content.decode()
    assert ("Revoked: proven on 2 of 2" in page, 'http-equiv="refresh"' in page) == (True, False)


def test_a_receipt_says_where_the_key_still_is(bob: User, staging: Environment) -> None:
    make_server(staging, "vpn-sgp")
    device, client = make_held_device(staging), browser(bob)
    client.post(at("peers_device_revoke", device.pk), {"_answered": "1", "reason": "lost"})
    Receipt.objects.update(found=["/etc/wireguard/wg0.conf"])
    page = client.get(at("peers_revocation_change", Revocation.objects.get().pk)).content.decode()
    assert "Found in /etc/wireguard/wg0.conf." in page


def test_the_page_of_a_person_says_who_shook_hands_and_when(bob: User, staging: Environment) -> None:
    make_server(staging, "vpn-fra")
    device, client = make_held_device(staging), browser(bob)
    path = at("peers_person_change", device.person_id)
    assert "<td>never</td>" in client.get(path).content.decode()
    PeerStatus.objects.update(
        latest_handshake_at=timezone.now() - dt.timedelta(minutes=2, seconds=30), endpoint="203.0.113.7:51820"
    )
    page = client.get(path).content.decode()
    assert ("handshake 2 min ago" in page, "203.0.113.7:51820" in page, ">connected<" in page) == (True, True, True)


def test_the_page_of_a_peer_gives_its_tunnel_file(bob: User, staging: Environment) -> None:
    server = make_server(staging)
    make_held_device(staging)
    client, path = browser(bob), at("peers_peer_config", Peer.objects.get().pk)
    assert client.get(path)["Location"] == at("peers_peer_change", Peer.objects.get().pk)
    Server.objects.filter(pk=server.pk).update(public_key=new_public_key())
    answer = client.get(path)
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.content.decode().startswith("[Interface]\n")


def test_no_button_is_shown_for_what_would_be_refused(
    bob: User, charlie: User, staging: Environment, production: Environment
) -> None:
    make_server(staging), make_server(production)
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.OPERATOR, environment=production)
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=staging)
    device = make_held_device(staging)
    peer = Peer.objects.get()
    buttons = (
        *((device, "revoke"), (device.person, "revoke"), (device.person.grants.get(), "end"), (peer, "config")),
        *((peer.server, act) for act in ("plan", "reconcile", "enrol")),
    )

    def shown(user: User) -> set[bool]:
        client = browser(user)
        return {
            at(f"{row._meta.app_label}_{row._meta.model_name}_{act}", row.pk)
            in client.get(at(f"{row._meta.app_label}_{row._meta.model_name}_change", row.pk)).content.decode()
            for row, act in buttons
        }

    assert (shown(bob), shown(charlie)) == ({True}, {False})
    buttons = buttons[:4]
    path = at("peers_person_revoke", device.person_id)
    assert browser(bob).post(path, {"_answered": "1", "reason": "left"}).status_code == 302
    browser(bob).post(at("peers_grant_end", Grant.objects.get().pk), {"_answered": "1", "reason": "left"})
    assert shown(bob) == {False}


def test_a_peer_says_what_its_server_says_and_nothing_once_it_ended(bob: User, staging: Environment) -> None:
    server, client = make_server(staging), browser(bob)
    device = make_held_device(staging)
    Server.objects.update(enrolled_at=timezone.now())
    path = at("peers_device_change", device.pk)
    assert ">pending<" in client.get(path).content.decode()
    now = Server.objects.get(pk=server.pk)
    seen = {"observed_epoch": now.epoch, "observed_generation": now.generation}
    ServerStatus.objects.update(**seen)
    assert "<td>yes</td>" in client.get(path).content.decode()
    record_failure(server.pk, reason="NodeSilent", message="no answer")
    assert ">unreachable<" in client.get(path).content.decode()
    client.post(at("peers_device_revoke", device.pk), {"_answered": "1", "reason": "lost"})
    assert ">unreachable<" not in client.get(path).content.decode()
