"""Who has which address on which server. The database refuses overlap; this module finds what is free."""

import datetime as dt
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import islice

from django.core.exceptions import ValidationError
from django.utils import timezone

from fleet.models import AddressRange, Server
from fleet.pools import Network, free_addresses, gateway, to_hex


def name_gateways(server: Server) -> None:
    """The server's own addresses: the first ones of its pools. They stay, however its pools are widened."""
    server.ipv4_address, server.ipv6_address = str(gateway(server.pool4)), str(gateway(server.pool6))


def take_gateway(server: Server) -> None:
    """The server's own two addresses, so that no peer can ever be given them."""
    for address in (server.ipv4_address, server.ipv6_address):
        own = to_hex(ip_address(address))
        AddressRange.objects.create(server=server, first=own, last=own, kind=AddressRange.Kind.SERVER)


def follow_pools(before: Server, after: Server) -> None:
    """The server's own addresses move with its pools. ValidationError once others were given out of these."""
    moved = [name for name in ("ipv4_pool", "ipv6_pool") if getattr(before, name) != getattr(after, name)]
    if not moved:
        return
    taken = AddressRange.objects.filter(server=after, released_at=None)
    own = taken.filter(kind=AddressRange.Kind.SERVER)
    if taken.count() > own.count():
        message = "Peers have addresses out of this pool: add the server anew, or wait until they have rested."
        raise ValidationError(dict.fromkeys(moved, message))
    now = timezone.now()
    own.update(freed_at=now, released_at=now)
    name_gateways(after)
    after.save(update_fields=["ipv4_address", "ipv6_address"])
    take_gateway(after)


def take_addresses(server: Server, count: int) -> list[tuple[AddressRange, AddressRange]]:
    """`count` pairs of (IPv4, IPv6), lowest free first. The caller holds the server's lock. PoolExhausted if full."""
    taken = list(AddressRange.objects.filter(server=server, released_at=None).values_list("first", "last"))
    fours = _take(server, server.pool4, taken, count)
    sixes = _take(server, server.pool6, taken, count)
    return list(zip(fours, sixes, strict=True))


def _take(server: Server, pool: Network, taken: list[tuple[str, str]], count: int) -> list[AddressRange]:
    found = [to_hex(address) for address in islice(free_addresses(pool, taken), count)]
    return AddressRange.objects.bulk_create(
        AddressRange(server=server, first=address, last=address) for address in found
    )


def free_ranges(ids: Iterable[int], now: dt.datetime) -> None:
    """The rest of these ranges begins. They stay taken until `release_ranges`."""
    AddressRange.objects.filter(pk__in=list(ids), freed_at=None).update(freed_at=now)


def release_ranges(ids: Iterable[int], now: dt.datetime) -> int:
    """The rest is over: another peer may have them."""
    return AddressRange.objects.filter(pk__in=list(ids), released_at=None).update(released_at=now)
