"""What a device has for itself on servers, when its key dies: the key that replaces it takes it over."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from fleet.addresses import free_ranges
from fleet.models import AddressRange
from peers.holders import free_left
from peers.models import Device, Peer, RoutedNetwork, StaticAddress

Row = TypeVar("Row", StaticAddress, RoutedNetwork)


def hand_on_or_end(devices: Collection[Device], now: dt.datetime) -> None:
    """Inside a revocation, after the peers ended: static addresses and routed networks of dead keys go to their heirs;
    where there is none, they end, and what they held rests."""
    ids = [device.pk for device in devices]
    statics = list(StaticAddress.objects.order_by().filter(device__in=ids, ended_at=None))
    routes = list(RoutedNetwork.objects.order_by().filter(device__in=ids, ended_at=None))
    if not (statics or routes):
        return
    heirs = dict(Device.objects.filter(replaces__in=ids, revoked_at=None).values_list("replaces", "pk"))
    StaticAddress.objects.filter(pk__in=[row.pk for row in statics]).update(ended_at=now)
    RoutedNetwork.objects.filter(pk__in=[row.pk for row in routes]).update(ended_at=now)
    StaticAddress.objects.bulk_create(_copy(row, heirs, now) for row in statics if row.device_id in heirs)
    RoutedNetwork.objects.bulk_create(_copy(row, heirs, now) for row in routes if row.device_id in heirs)
    let_go([row for row in statics if row.device_id not in heirs], now)
    free_ranges([row.range_id for row in routes if row.device_id not in heirs], now)


def _copy(row: Row, heirs: Mapping[int | None, int], now: dt.datetime) -> Row:
    new = type(row)(**{field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields})
    new.pk, new.device_id, new.began_at, new.ended_at = None, heirs[row.device_id], now, None
    return new


def let_go(rows: Sequence[StaticAddress], now: dt.datetime) -> None:
    """The addresses of static ones that ended: a live peer keeps its as ordinary ones, others begin to rest."""
    ids = {pk for row in rows for pk in (row.ipv4_id, row.ipv6_id) if pk}
    peers = Peer.objects.filter(ipv4__in=ids, ended_at=None) | Peer.objects.filter(ipv6__in=ids, ended_at=None)
    live = {pk for pair in peers.values_list("ipv4", "ipv6") for pk in pair}
    AddressRange.objects.filter(pk__in=ids & live).update(kind=AddressRange.Kind.PEER)
    free_left(ids, now)
