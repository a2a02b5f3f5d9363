"""How a request for access went, step by step: what its page and its grant's page tell."""

import datetime as dt
from dataclasses import dataclass

from peers.models import AccessRequest, Grant


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
        origin = origin.moved_from
    return origin.request if origin else None
