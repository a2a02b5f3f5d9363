"""Keys, peers and pushes for tests of the node; no test needs their private half."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

Json = dict[str, Any]
INTERFACE: Json = {
    "addresses": ["10.1.0.1/24", "fd00:1::1/64"],
    "listen_port": 51820,
    "mtu": 1420,
    "forward": "masquerade",
}


def make_key(number: int, kind: str = "public") -> str:
    return base64.b64encode(hashlib.sha256(f"{kind} {number}".encode()).digest()).decode()


def make_peer(number: int, **changes: Any) -> Json:
    peer = {
        "public_key": make_key(number),
        "preshared_key": make_key(number, "preshared"),
        "allowed_ips": [f"10.1.{number // 250}.{number % 250 + 2}/32", f"fd00:1::{number + 2:x}/128"],
        "expires_at": None,
    }
    return peer | changes


def text_of(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest_of(peers: list[Json], interface: Json = INTERFACE) -> str:
    rows = [interface, *sorted(peers, key=lambda peer: str(peer["public_key"]))]
    return hashlib.sha256("".join(text_of(row) + "\n" for row in rows).encode()).hexdigest()


def make_whole(generation: int, peers: list[Json], **changes: Any) -> Json:
    """The fields of a whole apply."""
    interface = changes.get("interface", INTERFACE)
    push = {
        "epoch": 1,
        "generation": generation,
        "digest": digest_of(peers, interface),
        "tombstones": [],
        "approved": False,
        "decided": [],
        "journal_seen": 0,
        "interface": interface,
        "peers": peers,
    }
    return push | changes


def make_delta(generation: int, before: list[Json], after: list[Json], **changes: Any) -> Json:
    """The fields of the delta that leads from one list of peers to the other."""
    keys = {peer["public_key"] for peer in after}
    push = {
        "epoch": 1,
        "generation": generation,
        "digest": digest_of(after),
        "tombstones": [],
        "approved": False,
        "decided": [],
        "journal_seen": 0,
        "base": digest_of(before),
        "put": [peer for peer in after if peer not in before],
        "remove": [peer["public_key"] for peer in before if peer["public_key"] not in keys],
    }
    return push | changes


def dead(number: int, reason: str = "test") -> Json:
    """One thing to revoke."""
    return {"public_key": make_key(number), "reason": reason}


def console_key(number: int) -> str:
    """An SSH public key that nobody holds."""
    raw = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return "ssh-ed25519 " + base64.b64encode(raw).decode()


def make_wish(**changes: Any) -> Json:
    """What install is asked for."""
    return {
        "interface": INTERFACE,
        "console_key": console_key(1),
        "user": "root",
        "epoch": 3,
        "observe_only": False,
        "packages": False,
    } | changes
