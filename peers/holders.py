"""Who has which addresses, or had them, and why nobody else gets them: in words, for pages, API and refusals."""

import datetime as dt
from collections.abc import Collection
from ipaddress import ip_network
from itertools import chain

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet
from django.utils import timezone

from fleet.addresses import free_ranges, has_confirmed, release_ranges, within
from fleet.models import AddressRange, Server
from fleet.pools import Span, span_of
from peers.models import Device, Peer, RoutedNetwork, StaticAddress

Kind = AddressRange.Kind
NAMED = 3  # of what is in the way


def lies_in(text: str) -> Q:
    """Ranges that hold an address, or meet a network; ValueError where it is neither."""
    network = ip_network(text)
    first, last = (f"{number:032x}" for number in span_of(network))
    return Q(first__lte=last, last__gte=first)


STATES = {
    "taken": Q(freed_at=None),
    "resting": Q(freed_at__isnull=False, released_at=None),
    "released": Q(released_at__isnull=False),
}


def with_holders(rows: QuerySet[AddressRange]) -> QuerySet[AddressRange]:
    """Reads along what `state_of` and `why` tell of, in as many queries however many rows there are."""
    peers = Peer.objects.select_related("device__person").defer("preshared_key").order_by("issued_at")
    owners = [Prefetch(name, StaticAddress.objects.select_related("device__person")) for name in ("static4", "static6")]
    routed = Prefetch("routed", RoutedNetwork.objects.select_related("device__person"))
    rows = rows.select_related("server__environment", "server__status")
    return rows.prefetch_related(Prefetch("peers4", peers), Prefetch("peers6", peers), *owners, routed)


def state_of(row: AddressRange) -> str:
    """`taken`, `resting` or `released`."""
    if row.released_at:
        return "released"
    return "resting" if row.freed_at else "taken"


def why(row: AddressRange) -> str:
    """One plain sentence without its dot: who has it, or why nobody may have it now."""
    if row.released_at:
        return f"free since {_clock(row.released_at)}; {_last_word(row)}"
    if row.freed_at:
        return _why_it_rests(row, row.freed_at)
    if row.kind == Kind.SERVER:
        return "the server's own"
    if row.kind == Kind.RESERVED:
        return f"reserved by {row.taken_by} on {_clock(row.taken_at)}: {row.reason}"
    owners = [one.device for one in row.routed.all() if one.ended_at is None]
    owners += [one.device for one in _statics(row) if one.ended_at is None]
    live = [f"in use by {peer.device} since {_clock(peer.issued_at)}" for peer in _peers(row) if not peer.ended_at]
    word = "routed to" if row.kind == Kind.ROUTED else "static of"
    return ", ".join([*(f"{word} {device}" for device in owners), *live]) or "taken"


def _why_it_rests(row: AddressRange, freed_at: dt.datetime) -> str:
    there = [str(peer.device) for peer in _peers(row) if peer.gone_at is None]
    if there:
        return f"rests, as {row.server} has not confirmed that {' and '.join(there)} is gone; {_last_word(row)}"
    if row.kind == Kind.ROUTED and not has_confirmed(row.server):
        return f"rests, as {row.server} has not confirmed that it is routed no more; {_last_word(row)}"
    return f"rests until {_clock(freed_at + row.server.environment.address_rest)}; {_last_word(row)}"


def _last_word(row: AddressRange) -> str:
    """What it was last."""
    ends = [(peer.ended_at, f"{peer.device} was {peer.end}") for peer in _peers(row) if peer.ended_at]
    ends += [(one.ended_at, f"the static address of {one.device} ended") for one in _statics(row) if one.ended_at]
    ends += [(one.ended_at, f"the route to {one.device} ended") for one in row.routed.all() if one.ended_at]
    if row.kind == Kind.RESERVED:
        return f"it was reserved: {row.reason}"
    if not ends:
        return "it was the server's own" if row.kind == Kind.SERVER else "nobody had it"
    at, what = max(ends)
    return f"{what} {_clock(at)}"


def _peers(row: AddressRange) -> list[Peer]:
    return [*row.peers4.all(), *row.peers6.all()]


def _statics(row: AddressRange) -> list[StaticAddress]:
    return [*row.static4.all(), *row.static6.all()]


def _clock(moment: dt.datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


def free_left(ids: Collection[int], now: dt.datetime) -> None:
    """The rest of these ranges begins, but for those on which a live peer stands or which a device has for itself."""
    live = Q(ipv4__in=ids) | Q(ipv6__in=ids), Q(ended_at=None)
    pairs = (rows.objects.order_by().filter(*live).values_list("ipv4", "ipv6") for rows in (Peer, StaticAddress))
    held = {pk for pair in chain(*pairs) for pk in pair}
    free_ranges(set(ids) - held, now)


def refuse_taken(server: Server, span: Span, field: str, *, own: Collection[int] = ()) -> None:
    """ValidationError names what is in the way, but for the ranges `own`."""
    rows = with_holders(within(server, span).exclude(pk__in=own))
    found = [f"{row} ({why(row)})" for row in rows[: NAMED + 1]]
    if found:
        more = f", and {rows.count() - NAMED} more" if len(found) > NAMED else ""
        message = f"This is in the way: {', '.join(found[:NAMED])}{more}."
        raise ValidationError({field: ValidationError(message, code="taken")})


def take_back(server: Server, span: Span, device: Device, now: dt.datetime) -> None:
    """What rests as this device, and nobody else, had it last need not rest for it."""
    first, last = (f"{number:032x}" for number in span)
    rows = within(server, span).filter(first=first, last=last, freed_at__isnull=False)
    for holder in (Peer, StaticAddress):
        others = holder.objects.exclude(device=device).filter(Q(ipv4=OuterRef("pk")) | Q(ipv6=OuterRef("pk")))
        rows = rows.exclude(Exists(others))
    routes = RoutedNetwork.objects.exclude(device=device).filter(range=OuterRef("pk"))
    rows = rows.exclude(Exists(routes)).exclude(kind__in=(Kind.SERVER, Kind.RESERVED))
    release_ranges(rows.values_list("pk", flat=True), now)
