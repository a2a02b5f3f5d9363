"""Where a key, an address or a name was ever seen, first and last: in rows past and present, and in Events."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from ipaddress import ip_address
from operator import or_
from typing import TypeVar

from django.core.exceptions import ValidationError
from django.db.models import CharField, Max, Min, Model, Q, QuerySet
from django.db.models.functions import Cast

from audit.models import Event
from audit.verbs import Verb
from fleet.models import AddressRange
from fleet.pools import Network, to_hex
from fleet.scope import scope_of, visible_environments, visible_servers
from peers.access import (
    visible_devices,
    visible_peers,
    visible_people,
    visible_receipts,
    visible_revocations,
    visible_teams,
)
from peers.asked import parse_asked_network
from peers.history import MOST_ROWS
from peers.models import Peer, PeerStatus, RoutedNetwork, StaticAddress, Tombstone

Row = TypeVar("Row", bound=Model)
Got = TypeVar("Got")
SHORTEST_KEY, SHORTEST_NAME = 8, 2
KEY_VERBS = (Verb.DEVICE_REGISTER, Verb.REVOKE, Verb.JOURNAL_ENTRY, Verb.REVIEW_ADD, Verb.SERVER_ENROLLED)
NAME_VERBS = (Verb.PERSON_CHANGE, Verb.SERVER_CHANGE, Verb.ENVIRONMENT_CHANGE)


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


@dataclass(frozen=True)
class Traces:
    """`is_cut` says that there are more of a kind than are told: ask for something narrower."""

    rows: list[Trace]
    is_cut: bool

    @property
    def first(self) -> dt.datetime | None:
        return min((one.first for one in self.rows if one.first), default=None)

    @property
    def last(self) -> dt.datetime | None:
        """The latest time that is known of; None where nothing was found or it is there to this day."""
        ends = [one.last for one in self.rows]
        return None if None in ends else max((end for end in ends if end), default=None)


def traces_of(user: object, kind: str, text: str) -> Traces:
    """`kind` is key, address or name. ValidationError names what is too short or none."""
    found = [list(rows) for rows in KINDS[kind](user, text.strip())]
    rows = [one for many in found for one in many[:MOST_ROWS]]
    rows.sort(key=lambda one: (one.first is None, one.first or dt.datetime.max.replace(tzinfo=dt.UTC)))
    return Traces(rows, any(len(many) > MOST_ROWS for many in found))


def _some(rows: "QuerySet[Row, Got]") -> "QuerySet[Row, Got]":
    return rows[: MOST_ROWS + 1]


def _visible_events(user: object) -> QuerySet[Event]:
    """Of the environments that the user sees; those of none only to who sees every one."""
    rows: QuerySet[Event] = Event.objects.order_by("pk")
    if scope_of(user).sees is None:
        return rows
    seen: QuerySet[Event] = rows.filter(environment_label__in=visible_environments(user).values("name"))
    return seen


def _of_event(event: Event, text: str) -> Trace:
    note = f"{event.verb} by {event.actor_label}" + (f": {event.reason}" if event.reason else "")
    at = event.timestamp
    return Trace("event", text, event.target_label, event.environment_label, at, at, note, event)


def _key_traces(user: object, text: str) -> Iterator[Iterable[Trace]]:
    if len(text) < SHORTEST_KEY:
        raise ValidationError({"what": f"Give a public key, or its first {SHORTEST_KEY} characters at least."})
    yield _devices(user, text)
    yield _key_peers(user, text)
    dead = Tombstone.objects.filter(revocation__in=visible_revocations(user)).select_related("revocation")
    yield (
        Trace(
            "tombstone", one.public_key, one.revocation.label, "everywhere", one.created_at, None, why, one.revocation
        )
        for one in _some(dead.filter(public_key__startswith=text))
        if one.public_key.startswith(text) and (why := f"by {one.revocation.revoked_by}: {one.revocation.reason}")
    )
    receipts = visible_receipts(user).filter(public_key__startswith=text).select_related("revocation", "server")
    yield (
        Trace("receipt", one.public_key, one.revocation.label, one.server.name, one.created_at, one.confirmed_at, *rest)
        for one in _some(receipts)
        if one.public_key.startswith(text)
        and (rest := ("seen gone" if one.confirmed_at else "pending", one.revocation))
    )
    yield (
        Trace("server's own key", one.public_key, "", one.name, one.enrolled_at, None, "", one)
        for one in _some(visible_servers(user).filter(public_key__startswith=text))
        if one.public_key.startswith(text)
    )
    yield _key_events(user, text)


def _devices(user: object, text: str) -> Iterator[Trace]:
    for one in _some(visible_devices(user).filter(public_key__startswith=text)):
        if one.public_key.startswith(text):
            yield Trace("device", one.public_key, str(one), "", one.created_at, one.revoked_at, "", one)


def _key_peers(user: object, text: str) -> Iterator[Trace]:
    peers = visible_peers(user).filter(device__public_key__startswith=text).defer("preshared_key")
    for one in _some(peers):
        if one.device.public_key.startswith(text):
            yield Trace("peer", one.device.public_key, str(one.device), one.server.name, *_span_of(one), row=one)


def _span_of(peer: Peer) -> tuple[dt.datetime, dt.datetime | None, str]:
    """Until it was seen gone: it may have passed packets until then."""
    if peer.ended_at is None:
        return peer.issued_at, None, f"issued by {peer.issued_by}"
    pending = "" if peer.gone_at else f", pending on {peer.server.name} since {peer.ended_at:%Y-%m-%d %H:%M}"
    return peer.issued_at, peer.gone_at, f"{peer.end}{pending}"


def _key_events(user: object, text: str) -> Iterator[Trace]:
    """Also of a key that no device ever had: what a node's journal names, what somebody revoked."""
    rows = _visible_events(user).filter(verb__in=KEY_VERBS)
    rows = rows.annotate(said=Cast("changes", CharField())).filter(
        Q(said__contains=text) | Q(target_label__contains=text)
    )
    for event in _some(rows):
        words = [word.strip(" ,") for word in _words(event)]
        for word in dict.fromkeys(word for word in words if word.startswith(text)):
            yield _of_event(event, word)


def _words(event: Event) -> list[str]:
    values = [str(value) for pair in (event.changes or {}).values() for value in pair]
    return [word for value in (*values, event.target_label) for word in value.split()]


def _address_traces(user: object, text: str) -> Iterator[Iterable[Trace]]:
    network = parse_asked_network(text, "what")
    low, high = to_hex(network[0]), to_hex(network[-1])
    ranges = scope_of(user).of(AddressRange.objects.select_related("server"), "server__environment")
    taken = _some(ranges.filter(first__lte=high, last__gte=low).order_by("taken_at", "pk"))
    yield _range_traces(user, {one.pk: one for one in taken})
    yield _endpoint_traces(user, network)
    hosts = Q(host=str(network[0])) | Q(endpoint_host=str(network[0]))
    servers = visible_servers(user).filter(hosts) if network.num_addresses == 1 else visible_servers(user).none()
    yield (Trace("server's host", str(network[0]), "", one.name, one.enrolled_at, None, "", one) for one in servers)


def _range_traces(user: object, ranges: dict[int, AddressRange]) -> Iterator[Trace]:
    """Each range with those that had it one after another; reserved ones and a server's own have nobody."""
    held: set[int] = set()
    for one in (*_range_peers(user, ranges), *_static(ranges), *_routed(ranges)):
        held.add(one[0])
        yield one[1]
    for pk, taken in ranges.items():
        if pk not in held:
            what, span = str(taken.get_kind_display()).lower(), (taken.taken_at, taken.released_at)
            yield Trace(what, str(taken), taken.taken_by, taken.server.name, *span, taken.reason)


def _range_peers(user: object, ranges: dict[int, AddressRange]) -> Iterator[tuple[int, Trace]]:
    peers = visible_peers(user).filter(Q(ipv4__in=ranges) | Q(ipv6__in=ranges)).defer("preshared_key")
    for peer in peers.order_by("issued_at"):
        for pk in {peer.ipv4_id, peer.ipv6_id} & ranges.keys():
            first, last, note = _span_of(peer)
            yield pk, Trace("peer", str(ranges[pk]), str(peer.device), peer.server.name, first, last, note, peer)


def _static(ranges: dict[int, AddressRange]) -> Iterator[tuple[int, Trace]]:
    rows = StaticAddress.objects.filter(Q(ipv4__in=ranges) | Q(ipv6__in=ranges))
    for one in rows.select_related("device__person", "server"):
        for pk in {one.ipv4_id or 0, one.ipv6_id or 0} & ranges.keys():
            note, text, device = f"by {one.assigned_by}: {one.reason}", str(ranges[pk]), one.device
            yield pk, Trace("static", text, str(device), one.server.name, one.began_at, one.ended_at, note, device)


def _routed(ranges: dict[int, AddressRange]) -> Iterator[tuple[int, Trace]]:
    rows = RoutedNetwork.objects.filter(range__in=ranges).select_related("device__person", "server")
    for one in rows:
        note, device = f"by {one.routed_by}: {one.reason}", one.device
        span = one.began_at, one.ended_at
        yield one.range_id, Trace("routed", one.network, str(device), one.server.name, *span, note, device)


def _endpoint_traces(user: object, network: Network) -> Iterator[Trace]:
    """Where a peer's packets were last seen to come from."""
    rows = PeerStatus.objects.exclude(endpoint="").filter(peer__in=visible_peers(user).values("pk"))
    if network.version == 4:
        octets = str(network.network_address).split(".")[: network.prefixlen // 8]
        rows = rows.filter(endpoint__startswith=".".join(octets) + (":" if len(octets) == 4 else "." if octets else ""))
    else:
        rows = rows.filter(endpoint__startswith="[")
    found = {pk for pk, endpoint in rows.values_list("pk", "endpoint") if _is_within(endpoint, network)}
    peers = visible_peers(user).filter(pk__in=list(found)[: MOST_ROWS + 1]).defer("preshared_key")
    for peer in peers:
        seen = peer.status
        at = seen.latest_handshake_at or seen.observed_at
        yield Trace("endpoint", seen.endpoint, str(peer.device), peer.server.name, None, at, "last handshake", peer)


def _is_within(endpoint: str, network: Network) -> bool:
    try:
        address = ip_address(endpoint.rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:
        return False
    return address.version == network.version and address in network


def _name_traces(user: object, text: str) -> Iterator[Iterable[Trace]]:
    if len(text) < SHORTEST_NAME:
        raise ValidationError({"what": f"Give a part of a name, of {SHORTEST_NAME} characters at least."})
    people = _some(visible_people(user).filter(_any_case("name", text) | _any_case("email", text)))
    yield (Trace("person", one.name, one.email, "", one.created_at, one.left_at, one.kind, one) for one in people)
    devices = _some(visible_devices(user).filter(_any_case("name", text)))
    yield (Trace("device", one.name, one.person.name, "", one.created_at, one.revoked_at, "", one) for one in devices)
    teams = _some(visible_teams(user).filter(_any_case("name", text)))
    yield (Trace("team", one.name, "", "", one.created_at, one.ended_at, one.description, one) for one in teams)
    servers = _some(visible_servers(user).filter(_any_case("name", text)))
    began = Min("placements__began_at")
    yield (
        Trace("server", one.name, "", one.environment.name, one.seen_at, None, one.host, one)
        for one in servers.annotate(seen_at=began)
    )
    yield _named_in_events(user, text)
    yield _renamed(user, text)


def _any_case(column: str, text: str) -> Q:
    """SQLite knows upper and lower case of ASCII alone, so the usual ways to write a name are looked for."""
    forms = dict.fromkeys((text, text.lower(), text.upper(), text.title()))
    return reduce(or_, (Q(**{f"{column}__icontains": form}) for form in forms))


def _named_in_events(user: object, text: str) -> Iterator[Trace]:
    """Whatever was called so, in the words of its time; it may be called otherwise now, or be gone."""
    rows = _visible_events(user).filter(_any_case("target_label", text)).order_by()
    seen = rows.values_list("content_type__model", "object_pk", "target_label", "environment_label")
    for model, _, label, place, first, last, verbs in _some(
        seen.annotate(first=Min("timestamp"), last=Max("timestamp"), verbs=Max("verb")).order_by("first")
    ):
        yield Trace(f"{model} in events", label, "", place, first, last, f"among others {verbs}")


def _renamed(user: object, text: str) -> Iterator[Trace]:
    rows = _visible_events(user).filter(verb__in=NAME_VERBS).annotate(said=Cast("changes", CharField()))
    for event in _some(rows.filter(_any_case("said", text))):
        for field in {"name", "email"} & set(event.changes or {}):
            old, new = map(str, event.changes[field])
            if text.casefold() in f"{old} {new}".casefold():
                yield _of_event(event, f"{old} became {new}")


KINDS: dict[str, Callable[[object, str], Iterator[Iterable[Trace]]]] = {
    "key": _key_traces,
    "address": _address_traces,
    "name": _name_traces,
}
