"""Journals as nodes tell them: entries chained, and a session that answers `journal` alone."""

import hashlib
import json
from typing import Any, cast

from fleet.models import Server
from nodes import chain
from nodes.journal import catch_up
from nodes.pool import Session

Json = dict[str, Any]
ENTRY: Json = {
    "seq": 1,
    "at": 1,
    "what": "expired",
    "public_key": None,
    "detail": "",
    "by": "node",
    "previous": "0" * 64,
}


def hash_of(entry: Json) -> str:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def journal(*entries: Json) -> list[Json]:
    """Entries as a node chains them."""
    found: list[Json] = []
    for number, entry in enumerate(entries, 1):
        previous = hash_of(found[-1]) if found else chain.FIRST
        found.append({**ENTRY, "seq": number, **entry, "previous": previous})
    return found


class Node:
    """Answers `journal` alone, as a session does."""

    has_caught_up = False

    def __init__(self, entries: list[Json], head: int | None = None) -> None:
        self.entries, self.head = entries, head
        self.asked: list[int] = []

    def ask(self, op: str, *, timeout: float, after: int) -> "Node":
        self.asked.append(after)
        return self

    @property
    def body(self) -> Json:
        after = self.asked[-1]
        head = self.head if self.head is not None else (self.entries[-1]["seq"] if self.entries else 0)
        state = {"epoch": 1, "generation": 1, "digest": None, "pushed_digest": None, "journal": head}
        return {"state": state, "entries": [entry for entry in self.entries if entry["seq"] > after][:1000]}


def read(server: Server, node: Node) -> bool:
    return catch_up(server.pk, cast(Session, node))
