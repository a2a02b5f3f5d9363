"""A node's answers to frozen values; pure and strict, since a node may be compromised."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from peers.keys import BadKey, parse_public_key

DRIFT_LIMIT = 1000
TEXT_LIMIT = 300
JOURNAL_LIMIT = 1000
REASON_LIMIT = 500
ENTRY_FIELDS = {"seq", "at", "what", "public_key", "detail", "by", "previous"}


class Nonsense(ValueError):
    """The answer is not what the protocol says; nothing of it is kept."""


@dataclass(frozen=True)
class NodeState:
    """What the node says it holds. `digest` is that of its content now, `pushed_digest` that of the last push,
    `journal` the number of its journal's last entry."""

    epoch: int
    generation: int
    digest: str
    pushed_digest: str
    journal: int = 0


@dataclass(frozen=True)
class ReceiptSeen:
    public_key: str
    durable: bool
    kernel: bool
    disk: bool
    found: tuple[str, ...]

    @property
    def is_proof(self) -> bool:
        return self.durable and self.kernel and self.disk


@dataclass(frozen=True)
class PeerSeen:
    """`latest_handshake` in seconds since 1970, 0 for never; transfer in bytes."""

    public_key: str
    endpoint: str
    latest_handshake: int
    transfer_rx: int
    transfer_tx: int


@dataclass(frozen=True)
class DriftSeen:
    public_key: str
    what: str
    detail: str


@dataclass(frozen=True)
class Entry:
    """One entry of a node's journal; `at` in seconds since 1970. `hash` is its own, which the next one names as
    `previous`. A key that is none is left out."""

    seq: int
    at: int
    what: str
    public_key: str | None
    detail: str
    by: str
    previous: str
    hash: str


def number(body: Mapping[str, object], name: str, high: int = 2**62) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
        raise Nonsense(f"{name} is not a number from 0 to {high}")
    return value


def text(value: object, limit: int = TEXT_LIMIT) -> str:
    """One line, without control characters."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 65536:
        raise Nonsense("a text is not a text")
    return "".join(c if c.isprintable() else "?" for c in value)[:limit]


def rows(body: Mapping[str, object], name: str, limit: int) -> list[object]:
    value = body.get(name, [])
    if not isinstance(value, list) or len(value) > limit:
        raise Nonsense(f"{name} is not a list of at most {limit}")
    return value


def mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Nonsense("an entry is not an object")
    return value


def node_state(body: Mapping[str, object]) -> NodeState:
    state = mapping(body.get("state"))
    return NodeState(
        number(state, "epoch", 2**31 - 1),
        number(state, "generation"),
        text(state.get("digest"), 64),
        text(state.get("pushed_digest"), 64),
        number(state, "journal"),
    )


def node_version(about: Mapping[str, object]) -> str:
    """The version in a node's hello."""
    node = about.get("node")
    return text(node.get("version"), 20) if isinstance(node, dict) else ""


def receipts(body: Mapping[str, object], asked: set[str]) -> list[ReceiptSeen]:
    """One for each key that was asked, and for no other."""
    found = [_receipt(mapping(row)) for row in rows(body, "receipts", len(asked))]
    if {receipt.public_key for receipt in found} != asked:
        raise Nonsense("the receipts are not for the keys that were asked")
    return found


def _receipt(row: Mapping[str, object]) -> ReceiptSeen:
    return ReceiptSeen(
        text(row.get("public_key"), 44),
        row.get("durable") is True,
        row.get("kernel") is True,
        row.get("disk") is True,
        tuple(text(place) for place in rows(row, "found", 100)),
    )


def peers(body: Mapping[str, object], limit: int) -> list[PeerSeen]:
    return [_peer(row) for row in rows(body, "peers", limit)]


def _peer(row: object) -> PeerSeen:
    if not isinstance(row, list) or len(row) != 5:
        raise Nonsense("a peer is not [key, endpoint, handshake, rx, tx]")
    key, endpoint, *numbers = row
    named = dict(zip(("handshake", "rx", "tx"), numbers, strict=True))
    return PeerSeen(
        text(key, 44),
        text(endpoint, 60),
        number(named, "handshake", 2**33),
        number(named, "rx"),
        number(named, "tx"),
    )


def drift(body: Mapping[str, object]) -> list[DriftSeen]:
    found = [mapping(row) for row in rows(body, "drift", 100_000)[:DRIFT_LIMIT]]
    return [
        DriftSeen(text(row.get("public_key"), 44), text(row.get("what"), 40), text(row.get("detail"))) for row in found
    ]


def journal(body: Mapping[str, object]) -> list[Entry]:
    return [_entry(mapping(row)) for row in rows(body, "entries", JOURNAL_LIMIT)]


def _entry(row: Mapping[str, object]) -> Entry:
    if row.keys() != ENTRY_FIELDS:
        raise Nonsense("an entry of the journal does not have the fields of one")
    seq, at = number(row, "seq"), number(row, "at", 2**33)
    return Entry(
        seq,
        at,
        text(row["what"], 40),
        _key(text(row["public_key"])),
        text(row["detail"], REASON_LIMIT),
        text(row["by"], 100),
        text(row["previous"], 64),
        _hash_of(row),
    )


def _key(value: str) -> str | None:
    try:
        return parse_public_key(value)
    except BadKey:
        return None


def _hash_of(row: Mapping[str, object]) -> str:
    """Of the entry as it came: its values are numbers and texts, so this is the node's own canonical text."""
    canonical = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
