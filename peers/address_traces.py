"""Who ever had an address or a network, and where packets were seen to come from."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from django.db.models import Q

from fleet.models import AddressRange
from fleet.pools import Network, to_hex
from fleet.scope import scope_of, visible_servers
from peers.access import visible_peers
from peers.asked import parse_asked_network
from peers.history import MOST_ROWS
from peers.models import PeerStatus, RoutedNetwork, StaticAddress
from peers.trace import Trace, some, span_of


def address_traces(user: object, text: str) -> Iterator[Iterable[Trace]]:
    network = parse_asked_network(text, "what")
    low, high = to_hex(network[0]), to_hex(network[-1])
    ranges = scope_of(user).of(AddressRange.objects.select_related("server"), "server__environment")
    taken = some(ranges.filter(first__lte=high, last__gte=low).order_by("taken_at", "pk"))
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
            first, last, note = span_of(peer)
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
