"""One place where something was seen, and what all that look for it share."""

import datetime as dt
from dataclasses import dataclass
from typing import TypeVar

from django.db.models import Model, QuerySet

from audit.models import Event
from fleet.scope import scope_of, visible_environments
from peers.history import MOST_ROWS
from peers.models import Peer
from peers.states import peer_state

IN = ("connected", "issued")
Row = TypeVar("Row", bound=Model)
Got = TypeVar("Got")


@dataclass(frozen=True)
class Trace:
    """One place where it was: what it was there, from when to when (none: to this day), and whose."""

    what: str
    text: str
    whose: str
    where: str
    first: dt.datetime | None
    last: dt.datetime | None = None
    note: str = ""
    row: Model | None = None


def some(rows: "QuerySet[Row, Got]") -> "QuerySet[Row, Got]":
    return rows[: MOST_ROWS + 1]


def visible_events(user: object) -> QuerySet[Event]:
    """Of the environments that the user sees; those of none only to who sees every one."""
    rows: QuerySet[Event] = Event.objects.order_by("pk")
    if scope_of(user).sees is None:
        return rows
    seen: QuerySet[Event] = rows.filter(environment_label__in=visible_environments(user).values("name"))
    return seen


def of_event(event: Event, text: str) -> Trace:
    note = f"{event.verb} by {event.actor_label}" + (f": {event.reason}" if event.reason else "")
    at = event.timestamp
    return Trace("event", text, event.target_label, event.environment_label, at, at, note, event)


def span_of(peer: Peer) -> tuple[dt.datetime, dt.datetime | None, str]:
    """Until it was seen gone: it may have passed packets until then."""
    if peer.ended_at is None:
        word = peer_state(peer)
        return peer.issued_at, None, f"issued by {peer.issued_by}" + ("" if word in IN else f", {word}")
    pending = "" if peer.gone_at else f", pending on {peer.server.name} since {peer.ended_at:%Y-%m-%d %H:%M}"
    return peer.issued_at, peer.gone_at, f"{peer.end}{pending}"
