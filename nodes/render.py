"""Content to the canonical text that Console and node both hash, and to the fields of an apply request; pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from nodes.state import Content, InterfaceState, PeerState


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def peer_fields(peer: PeerState) -> dict[str, object]:
    new_key = {"replaces": peer.replaces} if peer.replaces else {}
    windows = {} if peer.windows is None else {"windows": [list(window) for window in peer.windows]}
    return {
        "public_key": peer.public_key,
        "preshared_key": peer.preshared_key,
        "allowed_ips": list(peer.allowed_ips),
        "expires_at": peer.expires_at,
        **new_key,
        **windows,
    }


def interface_fields(interface: InterfaceState) -> dict[str, object]:
    return {**asdict(interface), "addresses": list(interface.addresses)}


def peer_lines(content: Content) -> dict[str, str]:
    """Public key -> canonical line, sorted by key."""
    return {key: canonical(peer_fields(content.peers[key])) for key in sorted(content.peers)}


def digest(content: Content) -> str:
    """SHA-256, in hex, of the canonical text: the interface's line, then the peers' lines."""
    lines = [canonical(interface_fields(content.interface)), *peer_lines(content).values()]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def fingerprints(content: Content) -> dict[str, bytes]:
    """Public key -> hash of its line: enough to make a delta against, and no secret."""
    return {key: hashlib.sha256(line.encode()).digest() for key, line in peer_lines(content).items()}


def whole(content: Content) -> dict[str, object]:
    return {
        "interface": interface_fields(content.interface),
        "peers": [peer_fields(content.peers[key]) for key in sorted(content.peers)],
    }


def delta(content: Content, base_digest: str, base: Mapping[str, bytes]) -> dict[str, object]:
    """What turns the content that hashes to `base_digest` into this one. The interface must be the same."""
    now = fingerprints(content)
    return {
        "base": base_digest,
        "put": [peer_fields(content.peers[key]) for key in now if base.get(key) != now[key]],
        "remove": sorted(set(base) - set(now)),
    }
