"""What can reach a network, now or at any time before: whose tunnels carried it, and behind whom and where it is."""

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from django.db.models import Q

from fleet.models import Pool, Server
from fleet.pools import Network
from fleet.scope import Scope
from peers.asked import refuse_future
from peers.history import (
    Answer,
    entitled_at,
    had_at,
    holders_at,
    in_order,
    owners_of,
    people_at,
    places_at,
)
from peers.history_rows import AccessRow, Spot, access_rows, peers_at
from peers.models import RoutedNetwork
from peers.rights import lasted, open_grants


@dataclass(frozen=True)
class PoolFound:
    """A server whose peers get addresses out of this pool."""

    server: Server
    pool: str
    name: str = ""


@dataclass(frozen=True)
class Reach:
    access: Answer[Spot, AccessRow]
    routed: list[RoutedNetwork]
    pools: list[PoolFound]


def reach_at(at: dt.datetime, scope: Scope, network: Network, *, is_now: bool = False) -> Reach:
    """Peers that carried it at that time, also those that were suspended or pending then: their rows say so."""
    refuse_future(at)
    places, people = places_at(at, scope), people_at(at)
    grants, carrying = holders_at(at), _carrying(at, network)
    everybody = entitled_at(at, places, grants.values())
    reaching = entitled_at(at, places, (grants[pk] for pk in carrying & grants.keys()))
    owners = owners_of(people)
    had = {Spot(owners[device], device, server) for device, server in had_at(at, places, owners)}
    found = {spot for spot in had if spot.person_id in reaching[spot.server_id]}
    found |= _unexplained(at, {spot for spot in had if spot.person_id not in everybody[spot.server_id]}, network)
    spots = in_order(found, places, people)
    access = Answer(spots, lambda chosen: access_rows(at, chosen, places, is_now))
    return Reach(access, _routed(at, places, network), _pools(at, places, network))


def overlaps(networks: Iterable[str], network: Network) -> bool:
    """No networks means everything."""
    found = [ip_network(text) for text in networks]
    return not found or any(one.version == network.version and one.overlaps(network) for one in found)


def _carrying(at: dt.datetime, network: Network) -> set[int]:
    known: dict[tuple[str, ...], bool] = {}
    found = set()
    for pk, networks in open_grants(at).order_by().values_list("pk", "networks"):
        key = tuple(networks)
        if key not in known:
            known[key] = overlaps(key, network)
        if known[key]:
            found.add(pk)
    return found


def _unexplained(at: dt.datetime, spots: Collection[Spot], network: Network) -> set[Spot]:
    """Of peers that no grant lets in any more, those that carried it at last."""
    by_pair = {(spot.device_id, spot.server_id): spot for spot in spots}
    devices, servers = {spot.device_id for spot in spots}, {spot.server_id for spot in spots}
    rows = peers_at(at).filter(server__in=servers)
    rows = rows.filter(device__in=devices) if len(devices) < 1000 else rows
    pairs = rows.values_list("device", "server", "networks")
    return {by_pair[one[:2]] for one in pairs if one[:2] in by_pair and overlaps(one[2], network)}


def _routed(at: dt.datetime, places: Collection[int], network: Network) -> list[RoutedNetwork]:
    rows = RoutedNetwork.objects.filter(lasted(at)).select_related("device__person", "server")
    return [row for row in rows if row.server_id in places and overlaps([row.network], network)]


def _pools(at: dt.datetime, places: Collection[int], network: Network) -> list[PoolFound]:
    """A server's own pools are those of today: they are only ever widened."""
    servers = {server.pk: server for server in Server.objects.all() if server.pk in places}
    whole = [(server, pool, "") for server in servers.values() for pool in (server.ipv4_pool, server.ipv6_pool)]
    rows = Pool.objects.filter(Q(ended_at=None) | Q(ended_at__gt=at), created_at__lte=at)
    named = [
        (servers[row.server_id], pool, row.name)
        for row in rows
        if row.server_id in servers
        for pool in (row.ipv4, row.ipv6)
    ]
    return [PoolFound(*one) for one in (*whole, *named) if one[1] and overlaps([one[1]], network)]
