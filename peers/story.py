"""How a request for access went, step by step, and which ends a right had: what their pages tell."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peers.models import AccessRequest, Grant, Membership


@dataclass(frozen=True)
class Step:
    at: dt.datetime
    what: str
    who: str
    why: str = ""


def story_of(asked: AccessRequest) -> list[Step]:
    """As it went so far."""
    steps = [Step(asked.created_at, "asked", asked.asked_by, asked.reason)]
    if asked.first_approved_at is not None:
        steps.append(Step(asked.first_approved_at, "first approval", asked.first_approved_by))
    if asked.decided_at is not None:
        steps.append(Step(asked.decided_at, asked.decision, asked.decided_by, asked.decision_reason))
    return steps


def request_of(grant: Grant) -> AccessRequest | None:
    """What it was asked for by, also where it has moved since."""
    origin: Grant | None = grant
    while origin is not None and origin.request is None:
        origin = origin.goes_on_from or origin.moved_from
    return origin.request if origin else None


@dataclass(frozen=True)
class End:
    """One row of those that a grant or a membership is made of: since when, by whom and why it had this end."""

    row: Grant | Membership
    at: dt.datetime
    who: str
    why: str


def ends_of(row: Grant | Membership) -> list[End]:
    """All that it had, the first one first; none where it never had another one."""
    rows = list(_line_of(row))
    return [_end(one) for one in rows] if len(rows) > 1 else []


def _line_of(row: Grant | Membership) -> Iterator[Grant | Membership]:
    while row.goes_on_from is not None:
        row = row.goes_on_from
    found: Any = row
    while found is not None:
        yield found
        found = type(found)._default_manager.filter(goes_on_from=found.pk).first()


def _end(row: Grant | Membership) -> End:
    if isinstance(row, Membership):
        return End(row, row.began_at, row.added_by, row.end_reason)
    return End(row, row.begins_at, row.granted_by, row.end_reason or row.reason)
