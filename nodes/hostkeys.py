"""Host keys as text: parsing, fingerprints, and the pin that a machine's key is held against. No network."""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

_ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

# One entry for each type of key that may be pinned: the signature algorithms that prove it.
ALGORITHMS: dict[str, tuple[str, ...]] = {"ssh-ed25519": ("ssh-ed25519",), "ssh-rsa": _RSA} | {
    name: (name,) for name in _ECDSA
}
# In this order machines are asked for a key when only a fingerprint is known, or nothing yet.
FAMILIES: tuple[tuple[str, ...], ...] = (("ssh-ed25519",), _ECDSA, _RSA)

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def parse_host_key(text: str) -> tuple[str, bytes]:
    """Type and blob of "ssh-ed25519 AAAA... comment"; ValueError says what is wrong with it."""
    kind, encoded = [*text.split(maxsplit=2), "", ""][:2]
    if kind not in ALGORITHMS:
        raise ValueError(f"A host key begins with one of {', '.join(ALGORITHMS)}.")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("The second word of a host key is base64; copy the whole line.") from None
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        raise ValueError("The host key is damaged: its type and its content differ. Copy the whole line.")
    return kind, blob


def fingerprint(host_key: str) -> str:
    """The "SHA256:..." that ssh-keygen -l prints for a host key; ValueError when it is none."""
    return fingerprint_of(parse_host_key(host_key)[1])


def fingerprint_of(blob: bytes) -> str:
    """The "SHA256:..." of a key in wire form."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def host_key_text(blob: bytes) -> str:
    """A key in wire form as "ssh-ed25519 AAAA..."."""
    length = int.from_bytes(blob[:4], "big")
    return f"{blob[4 : 4 + length].decode('ascii', 'replace')} {base64.b64encode(blob).decode()}"


@dataclass(frozen=True)
class Pin:
    """What a machine must prove, and the only algorithms it is allowed to prove it with."""

    expected: str
    algorithms: tuple[str, ...]
    blob: bytes | None = None

    def accepts(self, presented: bytes) -> bool:
        """Whether the presented key, in wire form, is the pinned one."""
        if self.blob is not None:
            return hmac.compare_digest(self.blob, presented)
        return hmac.compare_digest(self.expected.encode(), fingerprint_of(presented).encode())


def pins(confirmed: str) -> list[Pin]:
    """The pins to try for a host key (one) or a "SHA256:..." fingerprint (one for each family of keys)."""
    if confirmed.startswith("SHA256:"):
        if not _FINGERPRINT.fullmatch(confirmed.rstrip("=")):
            raise ValueError("A fingerprint is SHA256: and 43 characters, as ssh-keygen -l prints it.")
        return [Pin(confirmed.rstrip("="), family) for family in FAMILIES]
    kind, blob = parse_host_key(confirmed)
    return [Pin(fingerprint_of(blob), ALGORITHMS[kind], blob)]
