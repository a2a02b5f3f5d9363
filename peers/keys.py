"""WireGuard public keys, parsed strictly; no ORM."""

import base64
import binascii
import os

# Public keys of low order on Curve25519, and their non-canonical twins: a shared secret with one is all zero.
LOW_ORDER = {
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
}


class BadKey(ValueError):
    """The text is not a usable public key; the message says why and what to do."""


def parse_public_key(text: str) -> str:
    """`text` itself where it is canonical base64 of a usable point; BadKey for anything else, spaces included."""
    if len(text) != 44 or not text.isascii():
        raise BadKey("A public key has 44 characters: paste the line that `wg pubkey` prints, without spaces.")
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadKey("A public key is base64: paste the line that `wg pubkey` prints.") from None
    if len(raw) != 32 or base64.b64encode(raw).decode() != text:
        raise BadKey("This is not a public key in its one canonical form: copy it again.")
    if raw[:31] + bytes([raw[31] & 127]) in LOW_ORDER:
        raise BadKey("This key is of low order, so its tunnel would be readable by anybody: make a new key pair.")
    return text


def parse_device_key(text: str) -> str:
    """As `parse_public_key`, without the second spelling that each point has: it would be a way round a tombstone."""
    parse_public_key(text)
    if base64.b64decode(text)[31] & 128:
        raise BadKey("No tool makes a key in this form: paste the line that `wg pubkey` prints on the device.")
    return text


def new_preshared_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()
