"""Conditions of a Server: adjectives with status, reason, message and the time of their last change."""

import datetime as dt
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Type(StrEnum):
    REACHABLE = "Reachable"
    IN_SYNC = "InSync"
    HELD = "Held"
    INTACT = "Intact"


@dataclass(frozen=True)
class Condition:
    """`status` is whether the adjective holds; `reason` a CamelCase word for machines; `message` for people."""

    type: Type
    status: bool
    reason: str
    message: str
    last_transition_at: str

    @property
    def since(self) -> dt.datetime:
        return dt.datetime.fromisoformat(self.last_transition_at)


def update(
    conditions: dict[str, Any], type: Type, *, status: bool, reason: str, message: str, now: dt.datetime
) -> dict[str, Any]:
    """A copy of `conditions` with one set; the time of transition changes only when the status does."""
    old = conditions.get(type)
    since = old["last_transition_at"] if old and old["status"] == status else now.isoformat()
    return {**conditions, type: asdict(Condition(type, status, reason, message[:500], since))}


def read(conditions: dict[str, Any], type: Type) -> Condition | None:
    found = conditions.get(type)
    return Condition(**{**found, "type": Type(found["type"])}) if found else None
