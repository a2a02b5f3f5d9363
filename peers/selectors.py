"""Queries on people's access that more than one door asks."""

from collections import defaultdict
from typing import Any

from django.db.models import Q

from fleet.keyrings import PRESHARED_KEYS, Opener
from fleet.models import AddressRange
from fleet.pools import from_hex
from peers.client_config import ClientConfig, without_own
from peers.models import Device, Peer, RoutedNetwork


def routed_networks(server_id: int) -> defaultdict[tuple[int, int], list[str]]:
    """(device, 4 or 6) -> the networks that the server routes to it. A key that replaces another one has that one's
    too: it takes them over when it comes."""
    rows = list(RoutedNetwork.objects.filter(server=server_id, ended_at=None).values_list("device", "network"))
    new = Device.objects.filter(replaces__in={device for device, _ in rows}, revoked_at=None)
    heirs = dict(new.values_list("replaces", "pk")) if rows else {}
    found: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for device, network in rows:
        for holder in {device, heirs.get(device, device)}:
            found[holder, 6 if ":" in network else 4].append(network)
    return found


def _server_alone(peer: Peer) -> list[str]:
    """For a peer that is granted nothing but what lies behind itself; none where it is granted everything."""
    own = [f"{peer.server.ipv4_address}/32", f"{peer.server.ipv6_address}/128"]
    return own if peer.networks else []


class NotEnrolled(Exception):
    """The server has no key yet, so no tunnel file can name it."""


def address_of(row: AddressRange) -> str:
    """`10.1.0.7/32` or `fd00::7/128`."""
    address = from_hex(row.first)
    return f"{address}/{address.max_prefixlen}"


def config_of(peer: Peer) -> ClientConfig:
    """The tunnel file of a live peer. Opens the sealed preshared key; NotEnrolled where the server has no key yet."""
    server = peer.server
    routed = routed_networks(server.pk)
    own = routed[peer.device_id, 4] + routed[peer.device_id, 6]
    if not server.public_key:
        raise NotEnrolled(f"{server} is not enrolled yet: enrol it, then fetch the file.")
    return ClientConfig(
        addresses=[address_of(peer.ipv4), address_of(peer.ipv6)],
        dns=server.dns,
        mtu=server.mtu,
        server_public_key=server.public_key,
        endpoint=server.endpoint,
        allowed_ips=without_own(peer.networks, own) or _server_alone(peer),
        preshared_key=Opener(PRESHARED_KEYS).open(peer.preshared_key, peer.pk),
    )


def of_line(devices: Any) -> Q:
    """Peers of these devices (ids, or a query of them), or of keys that take their place, at first or second hand."""
    return Q(device__in=devices) | Q(device__replaces__in=devices) | Q(device__replaces__replaces__in=devices)
