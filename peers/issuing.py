"""New Peers: which addresses they get, and their preshared keys."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from fleet.addresses import take_addresses
from fleet.keyrings import PRESHARED_KEYS, sealer
from fleet.models import Server
from fleet.pools import PoolExhausted
from peers.entitlement import Spot, Terms
from peers.keys import new_preshared_key
from peers.models import Device, Peer, PeerStatus


def issue_peers(
    wanted: Mapping[Spot, Terms],
    *,
    devices: Iterable[Device],
    live: Mapping[Spot, Peer],
    servers: Mapping[int, Server],
    issued_by: str,
) -> None:
    """The caller holds the servers' locks. A device that replaces another one stands where that stands: it is made
    after it, and has its addresses."""
    by_server: defaultdict[int, list[Peer]] = defaultdict(list)
    replaced = {device.pk: device.replaces_id for device in devices}
    there = dict(live)
    for (device_id, server_id), terms in sorted(wanted.items(), key=lambda item: item[0]):
        peer = Peer(device_id=device_id, server_id=server_id, issued_by=issued_by, **values_of(terms))
        peer.replaces = there.get((replaced[device_id] or 0, server_id))
        there[device_id, server_id] = peer
        by_server[server_id].append(peer)
    for server_id, peers in by_server.items():
        _address(servers[server_id], peers)
    _save([peer for peers in by_server.values() for peer in peers])


def values_of(terms: Terms) -> dict[str, Any]:
    """The columns of a Peer that follow from its terms."""
    windows = None if terms.windows is None else [list(pair) for pair in terms.windows]
    return {
        "networks": list(terms.networks),
        "expires_at": terms.expires_at,
        "windows": windows,
        "windows_from": terms.windows_from,
    }


def _address(server: Server, peers: list[Peer]) -> None:
    try:
        fresh = iter(take_addresses(server, sum(peer.replaces is None for peer in peers)))
    except PoolExhausted as error:
        error.server_id = server.pk
        raise
    for peer in peers:
        if peer.replaces:
            peer.ipv4_id, peer.ipv6_id = peer.replaces.ipv4_id, peer.replaces.ipv6_id
        else:
            peer.ipv4, peer.ipv6 = next(fresh)


def _save(peers: list[Peer]) -> None:
    if not peers:
        return
    sealing = sealer(PRESHARED_KEYS)
    for peer in peers:
        peer.preshared_key = sealing.seal(new_preshared_key(), peer.pk)
    Peer.objects.bulk_create(peers)
    PeerStatus.objects.bulk_create(PeerStatus(peer=peer) for peer in peers)
