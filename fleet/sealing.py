"""Secrets at rest: keyrings of AES-GCM keys bound to table, column and row, and boxes that only workers can open."""

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

NONCE = 12


class SealBroken(Exception):
    """What is stored was not sealed by this keyring for this place. Nothing of it is ever used."""


@dataclass(frozen=True)
class Place:
    """Where a sealed value belongs; another row's or column's value does not open here."""

    table: str
    column: str
    row: str

    @property
    def data(self) -> bytes:
        return json.dumps([self.table, self.column, self.row]).encode()


@dataclass(frozen=True)
class Keyring:
    """Named AES-256 keys; the first seals, any opens."""

    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Keyring":
        raw = json.loads(path.read_text())
        return cls({name: base64.b64decode(key, validate=True) for name, key in raw["keys"].items()})

    def seal(self, secret: str, place: Place) -> str:
        """`KEYNAME:BASE64`; a fresh nonce each time."""
        name, key = next(iter(self.keys.items()))
        nonce = os.urandom(NONCE)
        sealed = AESGCM(key).encrypt(nonce, secret.encode(), place.data)
        return f"{name}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, place: Place) -> str:
        name, _, body = sealed.partition(":")
        if name not in self.keys:
            raise SealBroken(f"{place.table}.{place.column}: sealed with a key that this keyring does not have")
        try:
            raw = base64.b64decode(body, validate=True)
            return AESGCM(self.keys[name]).decrypt(raw[:NONCE], raw[NONCE:], place.data).decode()
        except (InvalidTag, ValueError):
            raise SealBroken(f"{place.table}.{place.column}: not sealed for this row") from None


def make_keyring(path: Path) -> bool:
    """A new keyring with one random key, 0600; False where there is one already."""
    key = base64.b64encode(AESGCM.generate_key(256)).decode()
    return _write_new(path, json.dumps({"keys": {"k1": key}}))


def make_nodes_keyring(path: Path, public: Path) -> bool:
    """The workers' keyring with its box key, and the public half that the web is given."""
    box = X25519PrivateKey.generate()
    raw = box.private_bytes_raw()
    key = base64.b64encode(AESGCM.generate_key(256)).decode()
    text = json.dumps({"keys": {"k1": key}, "box": base64.b64encode(raw).decode()})
    if not _write_new(path, text):
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


def _write_new(path: Path, text: str) -> bool:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return True


def new_ssh_key(comment: str) -> tuple[str, str]:
    """An Ed25519 pair as (OpenSSH private text, public line)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"
