"""Sealed values open in their own place with their own keyring, and otherwise raise; never a wrong value."""

import base64
import json
import stat
from pathlib import Path

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from audit.services import SYSTEM
from fleet import conditions
from fleet.models import Environment, ServerStatus
from fleet.sealing import (
    Keyring,
    Place,
    SealBroken,
    box_for_workers,
    make_keyring,
    make_nodes_keyring,
    new_ssh_key,
    open_box,
)
from nodes.desired import desired_state, keys_to_kill
from nodes.pool import SessionPool
from nodes.reconcile import reconcile
from peers.models import Peer
from peers.revocation import revoke_devices
from tests.build import make_peers, make_server

HERE = Place("peers_peer", "preshared_key", "1")
KEYRING = Keyring({"k2": b"2" * 32, "k1": b"1" * 32})


@given(st.text())
def test_what_is_sealed_opens_again_and_looks_different_each_time(secret: str) -> None:
    one, two = KEYRING.seal(secret, HERE), KEYRING.seal(secret, HERE)
    assert (KEYRING.open(one, HERE), KEYRING.open(two, HERE)) == (secret, secret)
    assert one != two
    assert len(secret) < 8 or secret not in one


@pytest.mark.parametrize(
    "place",
    [
        Place("peers_peer", "preshared_key", "2"),
        Place("peers_peer", "other", "1"),
        Place("nodes_credential", "preshared_key", "1"),
        Place("peers_peerpreshared_key", "", "1"),
    ],
)
def test_another_place_does_not_open_it(place: Place) -> None:
    """C9"""
    with pytest.raises(SealBroken):
        KEYRING.open(KEYRING.seal("secret", HERE), place)


@given(st.integers(0, 2**20), st.integers(0, 7))
def test_one_flipped_bit_breaks_the_seal(where: int, bit: int) -> None:
    """C9"""
    name, body = KEYRING.seal("a secret of some length", HERE).split(":")
    raw = bytearray(base64.b64decode(body))
    raw[where % len(raw)] ^= 1 << bit
    with pytest.raises(SealBroken):
        KEYRING.open(f"{name}:{base64.b64encode(bytes(raw)).decode()}", HERE)


@given(st.text())
def test_plain_text_never_opens(text: str) -> None:
    """C9"""
    for planted in (text, f"k1:{text}", f"k1:{base64.b64encode(text.encode()).decode()}"):
        with pytest.raises(SealBroken):
            KEYRING.open(planted, HERE)


def test_a_keyring_that_lacks_the_key_or_has_another_of_that_name_opens_nothing() -> None:
    """C7"""
    sealed = KEYRING.seal("secret", HERE)
    for wrong in (Keyring({"k1": b"1" * 32}), Keyring({"k2": b"3" * 32}), Keyring({})):
        with pytest.raises(SealBroken):
            wrong.open(sealed, HERE)
    assert Keyring({"k3": b"3" * 32, **KEYRING.keys}).open(sealed, HERE) == "secret"


def test_a_keyring_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """C10"""
    path, other = tmp_path / "deep" / "peers", tmp_path / "other"
    assert [make_keyring(path), make_keyring(path), make_keyring(other)] == [True, False, True]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.read(path).keys != Keyring.read(other).keys
    assert "key" not in repr(Keyring.read(path)).lower().replace("keyring", "")


def test_what_the_web_has_opens_no_box(tmp_path: Path) -> None:
    nodes, public, peers = tmp_path / "nodes", tmp_path / "nodes.pub", tmp_path / "peers"
    make_nodes_keyring(nodes, public)
    make_keyring(peers)
    boxed = box_for_workers("bootstrap password", HERE, public)
    assert open_box(boxed, HERE, nodes) == "bootstrap password"
    assert "bootstrap" not in base64.b64decode(boxed).decode("latin-1")
    forged = tmp_path / "forged"
    forged.write_text(json.dumps({"keys": {}, "box": public.read_text().strip()}))
    with pytest.raises(SealBroken):
        open_box(boxed, HERE, forged)
    with pytest.raises(KeyError):
        open_box(boxed, HERE, peers)
    with pytest.raises(SealBroken):
        open_box(boxed, Place("peers_peer", "preshared_key", "2"), nodes)
    assert json.loads(nodes.read_text())["box"] not in public.read_text() + peers.read_text()


@pytest.mark.parametrize("planted", ["", "short", "!!!!", base64.b64encode(bytes(31)).decode(), "A" * 200])
def test_a_box_that_is_none_is_broken(planted: str) -> None:
    with pytest.raises(SealBroken):
        open_box(planted, HERE, settings.KEYRING_NODES)


def test_each_ssh_key_is_new() -> None:
    (private, public), (other, _) = new_ssh_key("a"), new_ssh_key("a")
    assert private != other
    assert public.split()[0::2] == ["ssh-ed25519", "a"]


@pytest.mark.django_db
def test_swapped_rows_stop_the_push_and_no_revocation(staging: Environment) -> None:
    """C9"""
    server = make_server(staging)
    one, two = make_peers(staging, 2)
    assert len(desired_state(server.pk).content.peers) == 2
    Peer.objects.filter(pk=one.pk).update(preshared_key=two.preshared_key)
    outcome = reconcile(server.pk, SessionPool())
    condition = conditions.read(ServerStatus.objects.get(server=server).conditions, conditions.Type.IN_SYNC)
    assert condition is not None
    assert (condition.status, condition.reason) == (False, "SealBroken")
    name = f"The preshared key of {one.device} does not open (peers_peer.preshared_key: not sealed for this row)"
    mend = f"put the row back as it was, or revoke {one.device}; until then nothing but revocations is sent here."
    assert (outcome.result, outcome.detail) == ("failed", f"{name}: {mend}")
    revoke_devices(actor=SYSTEM, devices=[one.device], reason="lost")
    type(server).objects.filter(pk=server.pk).update(enrolled_at=server.environment.created_at)
    assert keys_to_kill() == {server.pk: [{"public_key": one.device.public_key, "reason": "lost"}]}
