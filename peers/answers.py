"""The answers as tables, alike for pages, API and CSV: columns of text, times, lists, and names that lead to a row."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from fleet.pools import Network
from fleet.scope import scope_of
from peers.dossier import Dossier, Step, dossier_of
from peers.history import MOST_ROWS, Answer, access_at
from peers.history_rows import AccessRow
from peers.models import Grant, Person
from peers.reach import reach_at
from peers.rights import Holding
from peers.trace import Trace
from peers.traces import traces_of


@dataclass(frozen=True)
class Ref:
    """A name, and the row that it is the name of."""

    text: str
    model: str  # as in peers.person
    pk: object

    def __str__(self) -> str:
        return self.text


Line = dict[str, Any]
KEYS = ("public_key",)  # columns that a spreadsheet gets unchanged


@dataclass(frozen=True)
class Table:
    """`page` reads what is shown of it, `every` all of it."""

    name: str
    title: str
    columns: Sequence[str]
    total: int
    page: Callable[[int, int], list[Line]]
    every: Callable[[], Iterable[Line]]


def ref(row: Model | None, text: str = "") -> Ref | str:
    return Ref(text or str(row), row._meta.label_lower, row.pk) if row is not None else text


ACCESS = (
    *("state", "person", "device", "server", "note", "environment", "networks", "hours", "until", "grants", "since"),
    *("addresses", "kind", "public_key"),
)


def access_line(row: AccessRow) -> Line:
    device, place = row.device, row.place
    return {
        "state": str(row.state),
        "person": ref(row.person),
        "kind": row.person.kind,
        "device": ref(device, device.name) if device else "",
        "public_key": device.public_key if device else "",
        "server": Ref(place.server, "fleet.server", place.server_id),
        "environment": Ref(place.environment, "fleet.environment", place.environment_id),
        "addresses": row.addresses,
        "networks": row.networks or ["everything"],
        "hours": row.hours,
        "until": row.until,
        "since": Ref(f"{row.since:%Y-%m-%d %H:%M:%S}", "peers.peer", row.peer.pk) if row.peer else row.since,
        "grants": [Ref(_story(one), "peers.grant", one.grant.pk) for one in row.held],
        "note": row.note,
    }


def _story(one: Holding) -> str:
    by_team = f"team {one.grant.team}, " if one.grant.team else ""
    return f"{by_team}by {one.grant.granted_by}: {one.grant.reason}"


def _access_table(title: str, answer: Answer[Any, AccessRow]) -> Table:
    return Table(
        name="access",
        title=title,
        columns=ACCESS,
        total=len(answer),
        page=lambda offset, limit: [access_line(row) for row in answer.page(offset, limit)],
        every=lambda: (access_line(row) for row in answer),
    )


def _table(name: str, title: str, columns: str, lines: list[Line]) -> Table:
    return Table(
        name=name,
        title=title,
        columns=columns.split(),
        total=len(lines),
        page=lambda offset, limit: lines[offset : offset + min(limit, MOST_ROWS)],
        every=lambda: lines,
    )


NOW = "As grants and servers are now. Only 'has it' is access as it should be: each other row says what is not so."
PAST = (
    "From the grants, peers and suspensions of that time. What the machines held then is not known; names and kinds are"
    " those of today."
)


def told_of(is_now: bool) -> str:
    """What an answer rests on."""
    return NOW if is_now else PAST


def answer_access(user: object, at: dt.datetime, *, is_now: bool, **narrowed: int | None) -> list[Table]:
    """Who has access to what."""
    return [_access_table("Who has access to what", access_at(at, scope_of(user), is_now=is_now, **narrowed))]


def answer_person(user: object, at: dt.datetime, person: Person, *, is_now: bool) -> list[Table]:
    """What one person has, and how it came about."""
    found = dossier_of(at, user, person, is_now=is_now)
    place = "to networks hours from until granted_by reason"
    return [
        _access_table(f"What {person} has", found.access),
        _table("devices", "Devices", "device public_key registered tombstoned", _devices(found)),
        _table("memberships", "Teams", "team since until added_by", _memberships(found)),
        _table("grants", "Grants", place, [_grant_line(one) for one in found.grants]),
        _table("later", "Grants that begin later", place, [_grant_line(one) for one in found.later]),
        _table("requests", "Requests that wait", "to asked_at asked_by reason", _requests(found)),
        _table("suspensions", "Suspensions", "what since by reason", _suspensions(found)),
        _table("revocations", "Revocations", "what at by reason", _revocations(found)),
        _table(
            "timeline", "How it came about", "at what whose where by reason", [_step(one) for one in found.timeline]
        ),
    ]


def _devices(found: Dossier) -> list[Line]:
    names = "device", "public_key", "registered", "tombstoned"
    rows = ((ref(one, one.name), one.public_key, one.created_at, one.revoked_at) for one in found.devices)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _memberships(found: Dossier) -> list[Line]:
    names = "team", "since", "until", "added_by"
    rows = ((ref(one.team), one.began_at, one.until, one.added_by) for one in found.memberships)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _requests(found: Dossier) -> list[Line]:
    names = "to", "asked_at", "asked_by", "reason"
    rows = ((str(one.environment or one.server), one.created_at, one.asked_by, one.reason) for one in found.requests)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _suspensions(found: Dossier) -> list[Line]:
    names = "what", "since", "by", "reason"
    rows = ((str(one.target), one.since, one.suspended_by, one.reason) for one in found.suspensions)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _revocations(found: Dossier) -> list[Line]:
    names = "what", "at", "by", "reason"
    rows = ((ref(one), one.created_at, one.revoked_by, one.reason) for one in found.revocations)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _grant_line(one: Grant) -> Line:
    return {
        "to": ref(one, str(one.environment or one.server) + (f" by team {one.team}" if one.team else "")),
        "networks": one.networks or ["everything"],
        "hours": one.hours,
        "from": one.begins_at,
        "until": one.until,
        "granted_by": one.granted_by,
        "reason": one.reason,
    }


def _step(one: Step) -> Line:
    return {
        **{"at": one.at, "what": one.what, "whose": ref(one.row, one.whose), "where": one.where},
        **{"by": one.by, "reason": one.reason},
    }


def answer_reach(user: object, at: dt.datetime, network: Network, *, is_now: bool) -> list[Table]:
    """What can reach a network, behind whom it is, and whose pool it is."""
    found = reach_at(at, scope_of(user), network, is_now=is_now)
    routed = [
        {
            **{"network": one.network, "device": ref(one.device), "server": ref(one.server), "since": one.began_at},
            **{"by": one.routed_by, "reason": one.reason},
        }
        for one in found.routed
    ]
    pools = [{"server": ref(one.server), "pool": one.pool, "name": one.name} for one in found.pools]
    return [
        _access_table(f"Whose tunnels carry {network}", found.access),
        _table("routed", "Routed to a device", "network device server since by reason", routed),
        _table("pools", "In a server's pools", "server pool name", pools),
    ]


def answer_traces(user: object, kind: str, what: str) -> list[Table]:
    """Where a key, an address or a name was ever seen."""
    found = traces_of(user, kind, what)
    title = f"Where {what[:60]} was seen"
    if found.is_cut:
        title += ": the oldest of each kind, ask for something narrower"
    columns = (
        "what public_key whose where first last note" if kind == "key" else "what text whose where first last note"
    )
    lines = [_trace_line(one, columns.split()[1]) for one in found.rows]
    when = [{"first": found.first, "last": found.last or "to this day", "places": len(lines)}] if lines else []
    return [_table("traces", title, columns, lines), _table("times", "First and last", "first last places", when)]


def _trace_line(one: Trace, column: str) -> Line:
    return {
        **{"what": ref(one.row, one.what), column: one.text, "whose": one.whose, "where": one.where},
        **{"first": one.first, "last": one.last, "note": one.note},
    }
