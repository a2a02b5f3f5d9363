"""Public keys: one canonical form, no weak points, no key twice, and none that was revoked."""

import base64
import os

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from peers.keys import LOW_ORDER, BadKey, new_preshared_key, parse_public_key
from peers.models import Device, Peer, Tombstone
from peers.revocation import revoke_devices, revoke_key
from peers.services import TOMBSTONED, register_device
from tests.build import make_device, make_grant, make_person, make_server, new_public_key

GOOD = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
LENGTH = "A public key has 44 characters: paste the line that `wg pubkey` prints, without spaces."
BASE64 = "A public key is base64: paste the line that `wg pubkey` prints."
CANONICAL = "This is not a public key in its one canonical form: copy it again."
WEAK = "This key is of low order, so its tunnel would be readable by anybody: make a new key pair."


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", LENGTH),
        (GOOD[:43], LENGTH),
        (GOOD + "=", LENGTH),
        (" " + GOOD[:43], BASE64),
        (GOOD[:43] + " ", BASE64),
        (GOOD + "\n", LENGTH),
        ("ü" * 44, LENGTH),
        (GOOD[:20] + "-" + GOOD[21:], BASE64),
        (GOOD[:42] + "h=", CANONICAL),
        (encoded(os.urandom(31)), CANONICAL),
        (encoded(os.urandom(33)), CANONICAL),
        (encoded(bytes(32)), WEAK),
        (encoded(bytes(31) + b"\x80"), WEAK),
        (encoded((1).to_bytes(32, "little")), WEAK),
        (encoded((2**255 - 19).to_bytes(32, "little")), WEAK),
    ],
)
def test_a_key_that_is_none_is_refused_with_the_mend(text: str, message: str) -> None:
    """A6"""
    with pytest.raises(BadKey) as refusal:
        parse_public_key(text)
    assert str(refusal.value) == message
    assert parse_public_key(GOOD) == GOOD


@pytest.mark.parametrize("raw", sorted(LOW_ORDER))
@pytest.mark.parametrize("high_bit", [0, 128])
def test_every_point_of_low_order_is_refused(raw: bytes, high_bit: int) -> None:
    """A6: X25519 leaves out the highest bit, so both spellings are the same point."""
    with pytest.raises(BadKey):
        parse_public_key(encoded(raw[:31] + bytes([raw[31] | high_bit])))


@given(st.binary(min_size=32, max_size=32))
def test_any_other_32_bytes_are_a_key(raw: bytes) -> None:
    if raw[:31] + bytes([raw[31] & 127]) not in LOW_ORDER:
        assert parse_public_key(encoded(raw)) == encoded(raw)


def test_preshared_keys_are_random() -> None:
    keys = {new_preshared_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key)) for key in keys} == {32}


def refusal_of(key: str) -> dict[str, list[str]]:
    before = (Device.objects.count(), Peer.objects.count(), Event.objects.count())
    with pytest.raises(ValidationError) as refusal:
        register_device(actor=SYSTEM, person=make_person("Mallory"), name="laptop", public_key=key)
    assert (Device.objects.count(), Peer.objects.count(), Event.objects.count() - 1) == before
    return refusal.value.message_dict


@pytest.mark.django_db
def test_a_key_is_taken_once_in_the_whole_fleet(staging: Environment) -> None:
    """A6: the server's own, another peer's, a revoked one"""
    server = make_server(staging)
    Server.objects.filter(pk=server.pk).update(public_key=GOOD)
    device = make_device(make_person())
    assert refusal_of(GOOD) == {"public_key": ["This is a server's own key: give the key of the device."]}
    assert refusal_of(device.public_key) == {
        "public_key": ["Another device has this key: make a key pair for each device."]
    }
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    assert refusal_of(device.public_key) == {"public_key": [TOMBSTONED]}
    unknown = new_public_key()
    revoke_key(actor=SYSTEM, public_key=unknown, reason="seen elsewhere")
    assert refusal_of(unknown) == {"public_key": [TOMBSTONED]}
    assert make_device(make_person()).revoked_at is None


@pytest.mark.django_db
def test_nothing_that_comes_later_brings_a_tombstoned_key_back(staging: Environment) -> None:
    """D9"""
    make_server(staging)
    person = make_person()
    device = make_device(person)
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    make_grant(person, staging, days=300)
    other = make_device(person, "new laptop")
    assert list(Peer.objects.values_list("device", flat=True)) == [other.pk]
    with pytest.raises(ValidationError) as refusal:
        revoke_devices(actor=SYSTEM, devices=[device], reason="again")
    assert refusal.value.message_dict == {"public_key": [f"Revoked already: {device.public_key}. See its receipts."]}
    assert Tombstone.objects.count() == 1


def test_the_other_spelling_of_a_point_is_no_way_round_a_tombstone(alice: User) -> None:
    """A6: the last bit is ignored by Curve25519, so both spellings are one secret."""
    twin = bytearray(base64.b64decode(new_public_key()))
    twin[31] |= 128
    with pytest.raises(ValidationError) as refusal:
        make_device(make_person(), public_key=encoded(bytes(twin)))
    assert list(refusal.value.message_dict) == ["public_key"]
    revoke_key(actor=alice, public_key=encoded(bytes(twin)), reason="seen in a conf")
    assert Tombstone.objects.filter(public_key=encoded(bytes(twin))).count() == 1
