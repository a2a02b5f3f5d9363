"""Who has which address on which server. The database refuses overlap; this module finds what is free."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import chain

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils import timezone

from fleet.models import AddressRange, Pool, Server
from fleet.pools import (
    Network,
    PoolExhausted,
    Span,
    free_addresses,
    gateway,
    holds,
    is_widened,
    span_of,
    to_hex,
    usable,
)


def name_gateways(server: Server) -> None:
    """The server's own addresses: the first ones of its pools. They stay, however its pools are widened."""
    server.ipv4_address, server.ipv6_address = str(gateway(server.pool4)), str(gateway(server.pool6))


def take_gateway(server: Server) -> None:
    """The server's own two addresses, so that no peer can ever be given them."""
    for address in (server.ipv4_address, server.ipv6_address):
        own = to_hex(ip_address(address))
        AddressRange.objects.create(server=server, first=own, last=own, kind=AddressRange.Kind.SERVER)


def follow_pools(before: Server, after: Server) -> None:
    """Inside the server's lock. A pool that is widened moves nobody; where it is another one, the server's own
    addresses move with it. ValidationError once others were given out of it."""
    moved = [name for name in ("ipv4_pool", "ipv6_pool") if getattr(before, name) != getattr(after, name)]
    if not moved:
        return
    _refuse_routed(after, moved)
    _refuse_lost_parts(after, moved)
    moved = [name for name in moved if not is_widened(getattr(before, name), getattr(after, name))]
    if not moved:
        return
    if before.enrolled_at:
        raise ValidationError({name: WIDEN_ONLY.format(getattr(before, name)) for name in moved})
    taken = AddressRange.objects.filter(server=after, released_at=None)
    own = taken.filter(kind=AddressRange.Kind.SERVER)
    if taken.count() > own.count():
        message = "Addresses out of this pool are taken: widen it, or wait until they have rested."
        raise ValidationError(dict.fromkeys(moved, message))
    now = timezone.now()
    own.update(freed_at=now, released_at=now)
    name_gateways(after)
    after.save(update_fields=["ipv4_address", "ipv6_address"])
    take_gateway(after)


WIDEN_ONLY = "An enrolled server's pool can only be widened: give a network that holds {}."


def _refuse_routed(server: Server, names: Sequence[str]) -> None:
    """What is routed to a peer is no part of a pool."""
    for name, pool in (("ipv4_pool", server.pool4), ("ipv6_pool", server.pool6)):
        routed = within(server, span_of(pool)).filter(kind=AddressRange.Kind.ROUTED)
        if name in names and (found := routed.first()):
            raise ValidationError({name: f"{found} of it is routed to a peer: end that first."})


def _refuse_lost_parts(server: Server, names: Sequence[str]) -> None:
    parts = open_pools([server.pk])[server.pk]
    for name, whole in (("ipv4", server.pool4), ("ipv6", server.pool6)):
        lost = [str(part) for part in parts if (net := part.network(name)) and not holds(whole, net)]
        if f"{name}_pool" in names and lost:
            raise ValidationError({f"{name}_pool": f"It has to hold the pool {', '.join(lost)}: end that first."})


def open_pools(server_ids: Iterable[int]) -> defaultdict[int, list[Pool]]:
    """The named pools of servers, in one query."""
    found: defaultdict[int, list[Pool]] = defaultdict(list)
    for pool in Pool.objects.filter(server__in=set(server_ids), ended_at=None).select_related("server"):
        found[pool.server_id].append(pool)
    return found


def within(server: Server, span: Span) -> QuerySet[AddressRange]:
    """What is taken, or rests, of these addresses."""
    first, last = (f"{number:032x}" for number in span)
    rows = AddressRange.objects.filter(server=server, released_at=None, first__lte=last, last__gte=first)
    return rows.order_by("first")


def take_addresses(
    server: Server, fours: Sequence[str], sixes: Sequence[str], pools: Sequence[Pool]
) -> tuple[list[AddressRange], list[AddressRange]]:
    """For each name of a pool one address out of it, the lowest free first; where none of `pools`, the server's open
    ones, has this name and family, one out of no named pool. The caller holds the server's lock. PoolExhausted if
    there is none."""
    if not (fours or sixes):
        return [], []
    rows = AddressRange.objects.filter(server=server, released_at=None).values_list("first", "last")
    taken = sorted((int(first, 16), int(last, 16)) for first, last in rows)
    parts4 = {pool.name: IPv4Network(pool.ipv4) for pool in pools if pool.ipv4}
    parts6 = {pool.name: IPv6Network(pool.ipv6) for pool in pools if pool.ipv6}
    found = _find(server, server.pool4, parts4, taken, fours), _find(server, server.pool6, parts6, taken, sixes)
    made = AddressRange.objects.bulk_create(AddressRange(server=server, first=n, last=n) for n in chain(*found))
    return made[: len(fours)], made[len(fours) :]


def _find(
    server: Server, whole: Network, parts: Mapping[str, Network], taken: list[Span], names: Sequence[str]
) -> list[str]:
    outside = sorted([*taken, *map(span_of, parts.values())])
    sources: dict[str, Iterator[int]] = {}
    found = []
    for asked in names:
        part = parts.get(asked)
        name = asked if part else ""
        if name not in sources:
            sources[name] = free_addresses(usable(whole, part), taken if part else outside)
        number = next(sources[name], None)
        if number is None:
            raise PoolExhausted(server.pk, f"{name} ({part})" if part else str(whole), server.name)
        found.append(f"{number:032x}")
    return found


def free_ranges(ids: Iterable[int], now: dt.datetime) -> None:
    """The rest of these ranges begins. They stay taken until `release_ranges`."""
    AddressRange.objects.filter(pk__in=list(ids), freed_at=None).update(freed_at=now)


def release_ranges(ids: Iterable[int], now: dt.datetime) -> int:
    """The rest is over: another peer may have them."""
    return AddressRange.objects.filter(pk__in=list(ids), released_at=None).update(released_at=now)


def has_confirmed(server: Server) -> bool:
    """Whether it was read back as it is wanted now, so that nothing is there which ended before."""
    status = server.status
    wanted, confirmed = (server.epoch, server.generation), (status.confirmed_epoch, status.confirmed_generation)
    return wanted == confirmed and not status.drift
