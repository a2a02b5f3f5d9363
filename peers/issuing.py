"""New Peers: which addresses they get, and their preshared keys."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from fleet.addresses import open_pools, take_addresses
from fleet.keyrings import PRESHARED_KEYS, sealer
from fleet.models import Server
from peers.entitlement import Spot, Terms
from peers.keys import new_preshared_key
from peers.models import Device, Peer, PeerStatus, StaticAddress
from peers.staying_out import keep_out


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
    pools: dict[UUID, str] = {}
    for (device_id, server_id), terms in sorted(wanted.items(), key=lambda item: item[0]):
        peer = Peer(device_id=device_id, server_id=server_id, issued_by=issued_by, **values_of(terms))
        peer.first_generation = servers[server_id].generation + 1
        peer.replaces = there.get((replaced[device_id] or 0, server_id))
        if peer.replaces:
            peer.waits_for_id = peer.replaces.waits_for_id  # nobody gets in by a new key before the old one may
        there[device_id, server_id] = peer
        by_server[server_id].append(peer)
        pools[peer.pk] = terms.pool
    _address(by_server, servers, pools)
    save_peers([peer for peers in by_server.values() for peer in peers])


def values_of(terms: Terms) -> dict[str, Any]:
    """The columns of a Peer that follow from its terms."""
    windows = None if terms.windows is None else [list(pair) for pair in terms.windows]
    return {
        "networks": list(terms.networks),
        "expires_at": terms.expires_at,
        "windows": windows,
        "windows_from": terms.windows_from,
    }


def _address(by_server: Mapping[int, Sequence[Peer]], servers: Mapping[int, Server], pools: Mapping[UUID, str]) -> None:
    """A device's own addresses where it has some, the replaced peer's where there is one, else free ones."""
    named = open_pools(by_server)
    own = _own_addresses(by_server)
    for server_id, peers in by_server.items():
        new = [peer for peer in peers if peer.replaces is None]
        for peer in new:
            peer.ipv4_id, peer.ipv6_id = own.get((peer.device_id, server_id), (None, None))  # type: ignore[assignment]
        fours = [peer for peer in new if peer.ipv4_id is None]
        sixes = [peer for peer in new if peer.ipv6_id is None]
        asked = [pools[peer.pk] for peer in fours], [pools[peer.pk] for peer in sixes]
        found4, found6 = take_addresses(servers[server_id], *asked, named[server_id])
        for peer, row in zip(fours, found4, strict=True):
            peer.ipv4 = row
        for peer, row in zip(sixes, found6, strict=True):
            peer.ipv6 = row
        for peer in peers:
            if peer.replaces:
                peer.ipv4_id, peer.ipv6_id = peer.replaces.ipv4_id, peer.replaces.ipv6_id


def _own_addresses(by_server: Mapping[int, Sequence[Peer]]) -> dict[Spot, tuple[int | None, int | None]]:
    """(IPv4, IPv6) ranges of those devices that have some there."""
    devices = {peer.device_id for peers in by_server.values() for peer in peers}
    rows = StaticAddress.objects.order_by().filter(device__in=devices, server__in=by_server, ended_at=None)
    found = rows.values_list("device", "server", "ipv4", "ipv6")
    return {(device, server): (four, six) for device, server, four, six in found}


def save_peers(peers: Sequence[Peer]) -> None:
    """With a new preshared key each; whom somebody keeps out there stays out."""
    if not peers:
        return
    sealing = sealer(PRESHARED_KEYS)
    for peer in peers:
        peer.preshared_key = sealing.seal(new_preshared_key(), peer.pk)
    Peer.objects.bulk_create(peers)
    PeerStatus.objects.bulk_create(PeerStatus(peer=peer) for peer in peers)
    keep_out(peers)
