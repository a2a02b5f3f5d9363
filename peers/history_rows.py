"""What each row of "who has access to what" says: the peer that was, the grants that should be, where they differ."""

import datetime as dt
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from django.db.models import Q, QuerySet

from audit.models import Event
from audit.verbs import Verb
from fleet.models import Server
from peers.entitlement import Terms, merge_terms
from peers.models import Device, Grant, Peer, Person, Suspension
from peers.rights import Holding, holdings_of, lasted
from peers.selectors import address_of
from peers.states import is_there, peer_state, with_causes
from peers.windows import is_within


class State(StrEnum):
    """What a row says of access at its time. `pending` is never "revoked": packets may still have passed there."""

    HAS = "has it"
    SUSPENDED = "suspended"
    OUTSIDE = "outside its hours"
    WAITING = "waiting"
    PENDING = "pending"
    NO_PEER = "no peer"
    NO_DEVICE = "no device"
    NOT_SET_UP = "not set up there yet"
    # What the machines have is known of now alone.
    ISSUED = "issued"
    SUSPENDING = "suspending"
    LETTING_IN = "letting in"
    SHUT = "shut at its machine"


@dataclass(frozen=True)
class Place:
    """A server in the environment that it belonged to at that time."""

    server_id: int
    server: str
    environment_id: int
    environment: str


class Spot(NamedTuple):
    """One person's device, or the person without any, on one server."""

    person_id: int
    device_id: int | None
    server_id: int


@dataclass(frozen=True)
class AccessRow:
    """`since` is when the peer was issued, or the oldest of the grants begins where there is none; `note` says what
    is not as the grants have it."""

    state: State
    person: Person
    device: Device | None
    place: Place
    peer: Peer | None
    terms: Terms | None
    held: Sequence[Holding] = ()
    note: str = ""

    @property
    def addresses(self) -> list[str]:
        return [address_of(self.peer.ipv4), address_of(self.peer.ipv6)] if self.peer else []

    @property
    def networks(self) -> list[str]:
        """None means everything."""
        if self.terms is not None:
            return list(self.terms.networks)
        return list(self.peer.networks) if self.peer else []

    @property
    def until(self) -> dt.datetime | None:
        if self.terms is not None:
            return self.terms.expires_at
        return self.peer.expires_at if self.peer else None

    @property
    def hours(self) -> list[str]:
        """Of the grants, where none of them is for always."""
        hours = sorted({f"{one.grant.hours} {one.zone}" for one in self.held if one.grant.hours})
        return hours if len(hours) and all(one.grant.hours for one in self.held) else []

    @property
    def since(self) -> dt.datetime | None:
        begins = [one.grant.begins_at for one in self.held]
        return self.peer.issued_at if self.peer else min(begins, default=None)


def peers_at(at: dt.datetime) -> QuerySet[Peer]:
    """Issued and not seen gone by then: a peer that ended may still have passed packets until that."""
    return Peer.objects.filter(Q(gone_at=None) | Q(gone_at__gt=at), issued_at__lte=at).order_by()


def access_rows(at: dt.datetime, spots: Sequence[Spot], places: dict[int, Place], is_now: bool) -> list[AccessRow]:
    """These rows whole; as many queries for a thousand as for one. `is_now`: what the machines have counts, too."""
    people = Person.objects.in_bulk({spot.person_id for spot in spots})
    devices = Device.objects.in_bulk({spot.device_id for spot in spots if spot.device_id})
    servers = {spot.server_id for spot in spots}
    peers = _peers(at, devices, servers, is_now)
    held = _in_zones_of(at, places, holdings_of(people.keys(), at, servers))
    suspended = _suspended(at, people, devices, peers.values())
    waiting, bare = _waiting(at, peers), _not_set_up(at, servers)
    found = []
    for spot in spots:
        device = devices[spot.device_id] if spot.device_id else None
        peer = peers.get((spot.device_id or 0, spot.server_id))
        rights = held.get((spot.person_id, spot.server_id), [])
        terms = merge_terms([one.right for one in rights], at) if rights else None
        row = AccessRow(State.HAS, people[spot.person_id], device, places[spot.server_id], peer, terms, rights)
        judged = _judged(row, at, suspended, waiting)
        if spot.server_id in bare and judged.state in (State.HAS, State.OUTSIDE):
            judged = replace(judged, state=State.NOT_SET_UP, note=f"{judged.place.server} had not been set up")
        found.append(_as_there(judged, suspended) if is_now else judged)
    return found


def _not_set_up(at: dt.datetime, servers: Collection[int]) -> set[int]:
    """Servers that had not been enrolled by then. A row has its last enrolment, and the ledger each."""
    late = Q(enrolled_at=None) | Q(enrolled_at__gt=at)
    found = {str(pk): pk for pk in Server.objects.filter(late, pk__in=servers).values_list("pk", flat=True)}
    acts = Event.objects.filter(verb=Verb.SERVER_ENROLLED, object_pk__in=list(found), timestamp__lte=at)
    before = set(acts.values_list("object_pk", flat=True)) if found else set()
    return {pk for text, pk in found.items() if text not in before}


def _in_zones_of(
    at: dt.datetime, places: Mapping[int, Place], held: Mapping[tuple[int, int], list[Holding]]
) -> Mapping[tuple[int, int], list[Holding]]:
    """Hours are meant in the time zone that the environment had then: its first change since has what was before."""
    zones: dict[str, str] = {}
    later = Event.objects.filter(verb=Verb.ENVIRONMENT_CHANGE, timestamp__gt=at).order_by("pk")
    for environment, changes in later.values_list("object_pk", "changes"):
        if "time_zone" in (changes or {}):
            zones.setdefault(environment, changes["time_zone"][0])
    if not zones:
        return held
    return {
        (person, server): [one._replace(zone=zones.get(str(places[server].environment_id), one.zone)) for one in rights]
        for (person, server), rights in held.items()
    }


def _judged(row: AccessRow, at: dt.datetime, suspended: "Suspended", waiting: Mapping[uuid.UUID, Peer]) -> AccessRow:
    """The state that stands before all others, and what is not as the grants have it."""
    peer = row.peer
    if peer is None:
        return _without_peer(row)
    if peer.ended_at is not None and peer.ended_at <= at:
        gone = f"seen gone {_moment(peer.gone_at)}" if peer.gone_at else "not seen gone yet"
        again = "; the grants let it in, and no peer was issued anew" if row.held else ""
        return replace(row, state=State.PENDING, note=f"{peer.end} {_moment(peer.ended_at)}, {gone}{again}")
    if not row.held:
        note = "no grant let it in any more; it had not been ended yet, and these are the networks that it had at last"
        return replace(row, state=State.PENDING, note=note)
    if peer.pk in waiting:
        return replace(row, state=State.WAITING, note=_awaited(waiting[peer.pk]))
    if why := suspended.why(row):
        return replace(row, state=State.SUSPENDED, note=why)
    is_open = is_within(row.terms.windows if row.terms else peer.windows, at)
    return replace(row, state=State.HAS if is_open else State.OUTSIDE)


NOT_THERE = {
    State.ISSUED: "{} has not confirmed yet that it is there",
    State.NOT_SET_UP: "{} never was set up: nothing passes there",
    State.SUSPENDING: "{} has not confirmed yet that it is out",
    State.LETTING_IN: "{} has not confirmed yet that it is in again",
    State.SHUT: "somebody at {} did it: a review item waits for a decision",
}
LOOKED_AT = "the Console only looks at {} and puts nothing there"


def _awaited(old: Peer) -> str:
    return f"until it is gone from {old.server.name}, where it was before"


def _as_there(row: AccessRow, suspended: "Suspended") -> AccessRow:
    """What the peer's own page says of it, where grants and intervals alone would say more than is so."""
    peer = row.peer
    if peer is None or peer.ended_at is not None or row.state == State.PENDING:
        return row
    word = peer_state(peer)
    if word == "connected" or (word == "issued" and is_there(peer)):
        return replace(row, state=State.HAS, note="")
    if peer.waits_for is not None and word.startswith("waits for "):
        return replace(row, state=State.WAITING, note=_awaited(peer.waits_for))
    state = State(word)
    said = LOOKED_AT if state == State.ISSUED and peer.server.is_observe_only else NOT_THERE.get(state, "")
    why = suspended.why(row) if state in (State.SUSPENDED, State.SUSPENDING) else ""
    return replace(row, state=state, note="; ".join(filter(None, (why, said.format(row.place.server)))))


def _without_peer(row: AccessRow) -> AccessRow:
    if row.device is None:
        return replace(row, state=State.NO_DEVICE, note="a grant, and no device to use it with")
    return replace(row, state=State.NO_PEER, note="a grant and a device, and no peer was issued")


def _moment(at: dt.datetime | None) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else ""


def _peers(
    at: dt.datetime, devices: Iterable[int], servers: Iterable[int], is_now: bool
) -> dict[tuple[int, int], Peer]:
    """The live one where there is one, else the one that ended last."""
    rows = peers_at(at).filter(device__in=list(devices), server__in=list(servers)).defer("preshared_key")
    rows = with_causes(rows) if is_now else rows
    found = rows.select_related("ipv4", "ipv6").order_by("issued_at")
    return {(peer.device_id, peer.server_id): peer for peer in found}


@dataclass(frozen=True)
class Suspended:
    """The suspensions that were open, by whom they keep out."""

    rows: Mapping[tuple[str, object], Suspension]

    def why(self, row: AccessRow) -> str:
        """By whom, since when and why it is kept out; empty where it is not."""
        keys = [("person", row.person.pk), ("device", row.device and row.device.pk), ("peer", row.peer and row.peer.pk)]
        one = next((self.rows[key] for key in keys if key in self.rows), None)
        return f"by {one.suspended_by} since {_moment(one.since)}: {one.reason}" if one else ""


def _suspended(at: dt.datetime, people: Iterable[int], devices: Iterable[int], peers: Iterable[Peer]) -> Suspended:
    one_of = Q(person__in=list(people)) | Q(device__in=list(devices)) | Q(peer__in=[peer.pk for peer in peers])
    found = {}
    for one in Suspension.objects.filter(one_of, lasted(at)).select_related("origin"):
        kind, pk = next((name, getattr(one, f"{name}_id")) for name in KINDS if getattr(one, f"{name}_id") is not None)
        found[kind, pk] = one
    return Suspended(found)


KINDS = ("person", "device", "peer")


def _waiting(at: dt.datetime, peers: Mapping[tuple[int, int], Peer]) -> dict[uuid.UUID, Peer]:
    """Peers that came by a move and were not let in, as the old ones had not been seen gone; by the acts that ended
    these, as `waits_for` speaks of the present alone."""
    rows = peers_at(at).filter(device__in={device for device, _ in peers}, ended_at__lte=at, end=Peer.End.WITHDRAWN)
    old = {peer.pk: peer for peer in rows.select_related("server").defer("preshared_key")}
    acts = {peer.ended_act for peer in old.values()}
    moves = dict(Event.objects.filter(act__in=acts, verb=Verb.GRANT_MOVE).values_list("act", "object_pk"))
    servers = dict(Grant.objects.filter(pk__in=moves.values()).values_list("pk", "server"))
    found = {}
    for one in old.values():
        came = peers.get((one.device_id, servers.get(int(moves.get(one.ended_act, 0))) or 0))
        if came is not None and one.ended_at is not None and came.issued_at >= one.ended_at:
            found[came] = one
    anew = _issued_anew(found) | _let_in(at, found) if found else set()
    return {peer.pk: one for peer, one in found.items() if peer.pk not in anew}


def _let_in(at: dt.datetime, found: Mapping[Peer, Peer]) -> set[uuid.UUID]:
    """Peers for which nobody waited any longer."""
    keys = {str(peer.pk): peer.pk for peer in found}
    acts = Event.objects.filter(verb=Verb.PEER_LET_IN, object_pk__in=list(keys), timestamp__lte=at)
    return {keys[pk] for pk in acts.values_list("object_pk", flat=True)}


def _issued_anew(found: Mapping[Peer, Peer]) -> set[uuid.UUID]:
    """Peers that did not come by the move: that one ended, and this was issued later."""
    spots = Q(device__in=[peer.device_id for peer in found], server__in=[peer.server_id for peer in found])
    issued = list(Peer.objects.filter(spots).values_list("device", "server", "issued_at"))
    return {
        peer.pk
        for peer, old in found.items()
        for device, server, at in issued
        if (device, server) == (peer.device_id, peer.server_id) and old.ended_at and old.ended_at <= at < peer.issued_at
    }
