"""Revoking over HTTP: fast, everywhere, and never called done before it is proven."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit.models import Event
from fleet.models import Environment, User
from peers.models import Device, Receipt, Tombstone
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.doors import rows, script

BAD_IDS: list[Any] = [10**30, "x", None, [1], {"id": 1}, True, 0, 999]
PROOF = {"is_gone_from_kernel": True, "is_gone_from_disk": True, "is_durable": True, "generation": 12}


def make_held_device(*environments: Environment) -> Device:
    person = make_person()
    for environment in environments:
        make_grant(person, environment)
    return make_device(person)


def test_a_device_is_revoked_in_one_call_and_pending_until_proven(bob: User, staging: Environment) -> None:
    """D12, F1."""
    make_server(staging, "vpn-fra"), make_server(staging, "vpn-sgp")
    device, caller = make_held_device(staging), script(bob)
    code, body = caller.post("revocations", device=device.pk, reason="laptop lost")
    assert (code, body["state"], body["pending"]) == (201, "pending", ["vpn-fra", "vpn-sgp"])
    assert [row["confirmed_at"] for row in body["receipts"]] == [None, None]
    Receipt.objects.filter(server__name="vpn-fra").update(confirmed_at=timezone.now(), **PROOF)
    body = caller.get(f"revocations/{body['id']}")[1]
    assert (body["state"], body["pending"]) == ("pending", ["vpn-sgp"])
    Receipt.objects.update(confirmed_at=timezone.now(), **PROOF)
    body = caller.get(f"revocations/{body['id']}")[1]
    assert (body["state"], body["pending"]) == ("confirmed", [])


def test_a_person_is_revoked_with_every_device(bob: User, staging: Environment) -> None:
    make_server(staging)
    device, caller = make_held_device(staging), script(bob)
    other = make_device(device.person, "phone")
    code, body = caller.post("revocations", person=device.person_id, reason="contract ended")
    assert (code, len(body["receipts"])) == (201, 2)
    assert set(Tombstone.objects.values_list("public_key", flat=True)) == {device.public_key, other.public_key}


def test_a_key_that_nobody_knows_is_looked_for_everywhere(bob: User, staging: Environment) -> None:
    """2.5: it may be a peer that somebody put there by hand, so each server has to say that it is not there."""
    make_server(staging, "vpn-fra"), make_server(staging, "vpn-sgp")
    make_server(staging, "vpn-new", is_set_up=False)
    key, caller = new_public_key(), script(bob)
    code, body = caller.post("revocations", public_key=key, reason="found in a repository")
    assert (code, body["state"], body["pending"]) == (201, "pending", ["vpn-fra", "vpn-sgp"])
    assert caller.post("devices", person=make_person().pk, name="x", public_key=key)[0] == 409


def test_a_key_that_nobody_knows_is_killed_by_who_operates_everything(
    alice: User, bob: User, staging: Environment, production: Environment
) -> None:
    """D4: it may be in use on a server that is none of his; a known key of his own environment is his to revoke."""
    make_server(staging)
    key, device = new_public_key(), make_held_device(staging)
    caller = script(bob)
    assert caller.post("revocations", public_key=key, reason="lost")[0] == 403
    assert not Tombstone.objects.exists()
    assert caller.post("revocations", public_key=device.public_key, reason="lost")[0] == 201
    assert script(alice).post("revocations", public_key=key, reason="lost")[0] == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("reason", value) for value in ("", "  ", None, "a\nb", "x" * 501, 5)),
        *(("device", value) for value in BAD_IDS),
        ("everything", True),
    ],
)
def test_a_bad_field_is_named_and_nothing_changes(field: str, value: Any, bob: User, staging: Environment) -> None:
    """D4."""
    make_server(staging)
    device, caller = make_held_device(staging), script(bob)
    good = {"device": device.pk, "reason": "lost"}
    before = rows()
    code, body = caller.post("revocations", **{**good, field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.post("revocations", **good)[0] == 201


@pytest.mark.parametrize("key", ["", "x", "A" * 43 + "=", 5, None])
def test_a_key_that_is_none_is_refused(key: Any, bob: User) -> None:
    """A6."""
    code, body = script(bob).post("revocations", public_key=key, reason="lost")
    assert (code, list(body)) == (400, ["public_key"])


def test_a_target_must_be_named_and_only_one(bob: User, staging: Environment) -> None:
    """A4."""
    device, caller = make_held_device(staging), script(bob)
    before = rows()
    assert caller.post("revocations", reason="lost")[0] == 400
    assert caller.post("revocations", reason="lost", device=device.pk, person=device.person_id)[0] == 400
    assert rows() == before


def test_revoking_twice_is_a_conflict(bob: User, staging: Environment) -> None:
    device, caller = make_held_device(staging), script(bob)
    assert caller.post("revocations", device=device.pk, reason="lost")[0] == 201
    before = rows()
    assert caller.post("revocations", device=device.pk, reason="lost")[0] == 409
    assert rows() == before


def test_who_may_not_operate_there_cannot_revoke(
    bob: User, charlie: User, alice: User, staging: Environment, production: Environment
) -> None:
    """D4: the same device, the same request."""
    make_server(production)
    device = make_held_device(production)
    callers = (script(bob), script(bob, scope="read"), script(charlie))
    before = rows()
    assert [caller.post("revocations", device=device.pk, reason="lost")[0] for caller in callers] == [403, 403, 403]
    assert rows() == before
    assert script(alice).post("revocations", device=device.pk, reason="lost")[0] == 201


def test_another_environment_s_servers_are_counted_but_not_named(
    bob: User, alice: User, staging: Environment, production: Environment
) -> None:
    """B3, D12."""
    make_server(staging, "vpn-own"), make_server(production, "vpn-other")
    device = make_held_device(staging, production)
    row = script(alice).post("revocations", device=device.pk, reason="lost")[1]
    Receipt.objects.filter(server__name="vpn-own").update(confirmed_at=timezone.now(), **PROOF)
    body = script(bob).get(f"revocations/{row['id']}")[1]
    assert (body["state"], body["pending"], len(body["receipts"])) == ("pending", [], 1)
    assert "vpn-other" not in str(body)


def test_the_event_says_who_by_which_token_and_why(bob: User, staging: Environment) -> None:
    """G1."""
    device, caller = make_held_device(staging), script(bob)
    caller.post("revocations", device=device.pk, reason="laptop lost")
    event = Event.objects.get(verb="revocation.add")
    assert (event.actor_label, event.origin, event.origin_detail) == ("bob", "token", "bob-operate")
    assert (event.reason, event.target_label) == ("laptop lost", str(device))


def test_it_costs_the_same_however_many_servers_held_the_key(alice: User, staging: Environment) -> None:
    for _ in range(3):
        make_server(staging)
    caller, first = script(alice), make_held_device(staging)
    with CaptureQueriesContext(connection) as few:
        assert caller.post("revocations", device=first.pk, reason="lost")[0] == 201
    for _ in range(7):
        make_server(staging)
    second = make_held_device(staging)
    with CaptureQueriesContext(connection) as many:
        assert len(caller.post("revocations", device=second.pk, reason="lost")[1]["receipts"]) == 10
    assert len(many) == len(few)
    assert len(many) <= 32
