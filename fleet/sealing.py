"""Secrets at rest: keyrings of AES-GCM keys bound to table, column and row, and boxes that only workers can open."""

import base64
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fleet.whole_files import write_new

NONCE, KEY = 12, 32
_NAME, _DERIVED = re.compile(r"k[0-9a-z]{1,39}"), re.compile(r"k[0-9a-f]{16}")


class SealBroken(Exception):
    """What is stored was not sealed by this keyring for this place. Nothing of it is ever used."""


class KeyMissing(SealBroken):
    """It may be sealed well, with a key that this keyring does not have."""


class KeyringBroken(SealBroken):
    """There is no file, or none that is a keyring."""


@dataclass(frozen=True)
class Place:
    """Where a sealed value belongs; another row's or column's value does not open here."""

    table: str
    column: str
    row: str

    @property
    def data(self) -> bytes:
        return json.dumps([self.table, self.column, self.row]).encode()


def key_name(key: bytes) -> str:
    """From a hash of the key: two keys never have one name by accident. (The first Consoles called theirs k1.)"""
    return "k" + hashlib.sha256(b"muster key name" + key).hexdigest()[:16]


@dataclass(frozen=True)
class Keyring:
    """Named AES-256 keys; the first seals, any opens. A rotation under way takes out those in `retiring`."""

    keys: dict[str, bytes] = field(repr=False)
    retiring: tuple[str, ...] = ()
    box: str = field(default="", repr=False)

    @classmethod
    def read(cls, path: Path) -> "Keyring":
        """Strict: KeyringBroken where anything in the file is not as we write it."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyringBroken(f"{path} cannot be read ({getattr(error, 'strerror', 'no text')})") from None
        try:
            return _parsed(json.loads(text, object_pairs_hook=_unique))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            # Without its cause, which quotes what is in the file.
            raise KeyringBroken(f"{path} holds no keyring, or a damaged one") from None

    def text(self) -> str:
        """What its file holds."""
        keys = {name: base64.b64encode(key).decode() for name, key in self.keys.items()}
        rest = {"box": self.box, "retiring": list(self.retiring)}
        return json.dumps({"keys": keys, **{name: value for name, value in rest.items() if value}})

    def vouches_for(self, name: str) -> bool:
        """Whether a row that its key `name` does not open must be a broken row: the name is made of this very key, or
        the rotation that is under way began by opening others."""
        return _DERIVED.fullmatch(name) is not None or name in self.retiring

    def seal(self, secret: str, place: Place) -> str:
        """`KEYNAME:BASE64`; a fresh nonce each time."""
        name, key = next(iter(self.keys.items()))
        nonce = os.urandom(NONCE)
        sealed = AESGCM(key).encrypt(nonce, secret.encode(), place.data)
        return f"{name}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, place: Place) -> str:
        name, colon, body = sealed.partition(":")
        if not colon or not is_name(name):
            raise SealBroken(f"{place.table}.{place.column}: not sealed at all")  # and not quoted: it may be a secret
        if name not in self.keys:
            raise KeyMissing(f"{place.table}.{place.column}: sealed with key {name}, which this keyring does not have")
        try:
            raw = base64.b64decode(body, validate=True)
            return AESGCM(self.keys[name]).decrypt(raw[:NONCE], raw[NONCE:], place.data).decode()
        except (InvalidTag, ValueError):
            raise SealBroken(f"{place.table}.{place.column}: not sealed for this row") from None


def _parsed(raw: dict[str, Any]) -> Keyring:
    keys = {name: base64.b64decode(key, validate=True) for name, key in raw.pop("keys").items()}
    box, retiring = raw.pop("box", ""), tuple(raw.pop("retiring", ()))
    is_named = all(is_name(name) and len(key) == KEY for name, key in keys.items())
    is_true = all(name == key_name(key) for name, key in keys.items() if _DERIVED.fullmatch(name))
    is_boxed = box == "" or len(base64.b64decode(box, validate=True)) == KEY
    if raw or not keys or not is_named or not is_true or not is_boxed or not set(retiring) <= set(keys):
        raise ValueError
    return Keyring(keys, retiring, box)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def new_key() -> dict[str, bytes]:
    """One more key, by its name."""
    key = AESGCM.generate_key(256)
    return {key_name(key): key}


def make_keyring(path: Path) -> bool:
    """A new keyring with one random key, 0600; False where there is one already."""
    return write_new(path, Keyring(new_key()).text())


def make_nodes_keyring(path: Path, public: Path) -> bool:
    """The workers' keyring with its box key, and the public half that the web is given."""
    box = X25519PrivateKey.generate()
    if not write_new(path, Keyring(new_key(), box=base64.b64encode(box.private_bytes_raw()).decode()).text()):
        return False
    public.write_text(base64.b64encode(box.public_key().public_bytes_raw()).decode() + "\n")
    return True


def box_for_workers(secret: str, place: Place, public: Path) -> str:
    """Seal to the workers' public key: the web that calls this cannot open it again."""
    theirs = X25519PublicKey.from_public_bytes(base64.b64decode(public.read_text()))
    ours = X25519PrivateKey.generate()
    ours_public = ours.public_key().public_bytes_raw()
    key = _box_key(ours.exchange(theirs), ours_public)
    sealed = AESGCM(key).encrypt(b"\0" * NONCE, secret.encode(), place.data)
    return base64.b64encode(ours_public + sealed).decode()


def open_box(sealed: str, place: Place, keyring: Path) -> str:
    """Workers only: `keyring` is the nodes keyring."""
    mine = X25519PrivateKey.from_private_bytes(base64.b64decode(json.loads(keyring.read_text())["box"]))
    try:
        raw = base64.b64decode(sealed, validate=True)
        shared = mine.exchange(X25519PublicKey.from_public_bytes(raw[:32]))
        return AESGCM(_box_key(shared, raw[:32])).decrypt(b"\0" * NONCE, raw[32:], place.data).decode()
    except (InvalidTag, ValueError):
        raise SealBroken(f"{place.table}.{place.column}: not boxed for this row") from None


def _box_key(shared: bytes, salt: bytes) -> bytes:
    # The key is used once: a new key pair is made for each box, so a fixed nonce is safe.
    return HKDF(hashes.SHA256(), 32, salt, b"muster bootstrap box").derive(shared)


def new_ssh_key(comment: str) -> tuple[str, str]:
    """An Ed25519 pair as (OpenSSH private text, public line)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"
