"""The write path for routed networks: what lies behind a peer, which its server sends there."""

from ipaddress import ip_address, ip_network

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.addresses import free_ranges
from fleet.changes import lock_servers, mark_changed
from fleet.fields import parse_network
from fleet.models import AddressRange, Server
from fleet.pools import Network, holds, meet, size_of, span_of
from peers.holders import refuse_taken, take_back
from peers.models import Device, PeerStatus, RoutedNetwork
from peers.settle import lock_devices
from peers.static import lock_live

WIDEST = {4: 8, 6: 16}
MOST = 62  # a node holds 64 networks of one peer, its two addresses among them
NEVER = [
    ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
]


def route_network(*, actor: Actor, device: Device, server: Server, network: str, reason: str) -> RoutedNetwork:
    """The server sends what is meant for the network to the device's peer, as long as there is one. Who else reaches
    it is decided by the networks of their grants."""
    require_operator(actor, server.environment)
    row = RoutedNetwork(device=device, network=network, reason=reason, routed_by=str(actor))
    with act(Verb.ROUTE_ADD, actor=actor, reason=reason) as this:
        lock_live(device)
        row.server = lock_servers([server.pk])[0]
        row.clean_fields(exclude=["server", "device", "range"])
        wanted = _parse(row.server, network)
        _refuse_ways_there(row.server, wanted)
        if RoutedNetwork.objects.filter(device=device, server=server, ended_at=None).count() >= MOST:
            raise ValidationError({"network": f"A peer has at most {MOST} networks: route a wider one."})
        take_back(row.server, span_of(wanted), device, row.began_at)
        refuse_taken(row.server, span_of(wanted), "network")
        row.range = _take(row, wanted)
        row.save(force_insert=True)
        mark_changed([server.pk])
        this.on(row, environment=server.environment.name)
    return row


def end_route(*, actor: Actor, route: RoutedNetwork, reason: str) -> RoutedNetwork:
    """The network rests until the server was read back without it, and as long as an address does."""
    require_operator(actor, route.server.environment)
    require_reason(reason, "Say why this network is routed no more.")
    with act(Verb.ROUTE_END, actor=actor, reason=reason) as this:
        lock_devices([route.device.person_id])
        lock_servers([route.server_id])
        route.ended_at = timezone.now()
        if not RoutedNetwork.objects.filter(pk=route.pk, ended_at=None).update(ended_at=route.ended_at):
            raise ValidationError("This route has ended already: look again.", code="taken")
        free_ranges([route.range_id], route.ended_at)
        mark_changed([route.server_id])
        changes = {"ended_at": ["", str(route.ended_at)]}
        this.on(route, changes=changes, environment=route.server.environment.name)
    return route


def _parse(server: Server, text: str) -> Network:
    try:
        network = parse_network(text)
    except ValidationError as error:
        raise ValidationError({"network": error.messages}) from None
    widest = WIDEST[network.version]
    if network.prefixlen < widest:
        raise ValidationError({"network": f"This is too wide for one peer: give a network of /{widest} or smaller."})
    if any(_overlap(network, never) for never in NEVER):
        raise ValidationError({"network": "Nothing behind a peer has such addresses: give the site's own network."})
    for pool in (server.pool4, server.pool6):
        if _overlap(network, pool):
            raise ValidationError({"network": f"It overlaps {pool}, out of which {server} gives addresses."})
    return network


def _refuse_ways_there(server: Server, network: Network) -> None:
    """The server would send into the tunnel what has to come to it, or to its clients, from outside."""
    hosts = [server.host, server.endpoint_host, server.bastion.host if server.bastion else ""]
    seen = PeerStatus.objects.filter(peer__server=server, peer__ended_at=None).exclude(endpoint="")
    ends = [endpoint.rpartition(":")[0].strip("[]") for endpoint in seen.values_list("endpoint", flat=True)]
    for text in (*hosts, *ends):
        try:
            outside = ip_network(ip_address(text))
        except ValueError:
            continue  # a name
        if holds(network, outside):
            what = "the server itself is reached at" if text in hosts else "a client of the server was seen at"
            raise ValidationError({"network": f"In it is {text}, which {what}: give a network without it."})


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and size_of(meet(span_of(one), span_of(other))) > 0


def _take(row: RoutedNetwork, network: Network) -> AddressRange:
    first, last = (f"{number:032x}" for number in span_of(network))
    words = {"kind": AddressRange.Kind.ROUTED, "reason": row.reason, "taken_by": row.routed_by}
    return AddressRange.objects.create(server=row.server, first=first, last=last, **words)
