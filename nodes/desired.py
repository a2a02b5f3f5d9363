"""The one place that reads the database for rendering. Generation and journal are read first, then the rows."""

from collections import defaultdict
from collections.abc import Collection
from uuid import UUID

from django.db.models import Case, Exists, F, OuterRef, Q, When

from fleet.keyrings import PRESHARED_KEYS, Opener
from fleet.models import Server
from fleet.pools import from_hex
from fleet.sealing import SealBroken
from nodes.models import ReviewItem
from nodes.state import Content, Desired, InterfaceState, PeerState, Removal
from peers.models import PENDING, Peer, Receipt, Tombstone
from peers.selectors import routed_networks
from peers.suspending import kept_out


def desired_state(server_id: int) -> Desired:
    """Raises Server.DoesNotExist, and SealBroken where a preshared key was tampered with (nothing is pushed then)."""
    server = Server.objects.select_related("status").get(pk=server_id)
    shut = _shut(server.pk)
    removals = _removals(server.pk)  # before the peers: what ends in between is in neither, and no push calls it gone
    return Desired(
        server_id=server.pk,
        epoch=server.epoch,
        generation=server.generation,
        content=Content(interface_state(server), _peers(server.pk, {one.peer_id for one in shut})),
        removals=removals,
        shut=shut,
        is_observe_only=server.is_observe_only,
        journal_seen=server.status.journal_seen,
    )


def interface_state(server: Server) -> InterfaceState:
    four = f"{server.ipv4_address}/{server.pool4.prefixlen}"
    six = f"{server.ipv6_address}/{server.pool6.prefixlen}"
    return InterfaceState((four, six), server.listen_port, server.mtu, server.forward)


def _peers(server_id: int, shut: Collection[UUID]) -> dict[str, PeerState]:
    sealed_keys = Opener(PRESHARED_KEYS)
    dead = Tombstone.objects.filter(public_key=OuterRef("device__public_key"))
    rows = Peer.objects.filter(~Exists(dead), server=server_id, ended_at=None, device__revoked_at=None)
    old = Case(When(replaces__ended_at=None, then=F("replaces__device__public_key")))
    columns = ("id", "device", "device__public_key", "preshared_key", "ipv4__first", "ipv6__first")
    networks = routed_networks(server_id)
    found = {}
    read = rows.values_list(*columns, "expires_at", "windows", old)
    for pk, device, key, sealed, four, six, expires_at, windows, replaces in read:
        if pk not in shut:
            psk = _preshared_key(sealed_keys, sealed, pk)
            fours = sorted([f"{from_hex(four)}/32", *networks.get((device, 4), ())])
            sixes = sorted([f"{from_hex(six)}/128", *networks.get((device, 6), ())])
            expiry = int(expires_at.timestamp()) if expires_at else None
            open_in = None if windows is None else tuple((begin, end) for begin, end in windows)
            found[key] = PeerState(key, psk, (*fours, *sixes), expiry, replaces, open_in)
    return found


def _preshared_key(keys: Opener, sealed: str, pk: UUID) -> str:
    try:
        return keys.open(sealed, pk)
    except SealBroken as error:
        peer = Peer.objects.select_related("device__person").get(pk=pk)
        mend = f"put the row back as it was, or revoke {peer.device}; until then nothing but revocations is sent here"
        raise type(error)(f"The preshared key of {peer.device} does not open ({error}): {mend}.") from None


def _shut(server_id: int) -> tuple[Removal, ...]:
    """Live peers that are kept out: suspended, shut at the machine and not decided on yet, or not moved in yet."""
    suspended = kept_out(server_id)
    # Who was shut out at the machine comes in neither by a new key nor by access that ended and was given anew.
    shut = ReviewItem.objects.filter(server=server_id, decided_at=None).values("peer__device")
    line = Q(device__in=shut) | Q(device__replaces__in=shut) | Q(device__replaces__replaces__in=shut)
    others = line | Q(waits_for__isnull=False)
    rows = Peer.objects.filter(Q(pk__in=suspended) | others, server=server_id, ended_at=None)
    found = []
    for pk, key, shut_at in rows.values_list("pk", "device__public_key", "status__shut_at"):
        cause, is_decided = suspended.get(pk, (pk, True))
        found.append(Removal(pk, key, cause, is_decided, shut_at is not None))
    return tuple(found)


def _removals(server_id: int) -> tuple[Removal, ...]:
    rows = Peer.objects.filter(server=server_id, gone_at=None).exclude(ended_at=None)
    return tuple(
        Removal(peer.pk, peer.device.public_key, peer.ended_act or peer.pk, _is_decided(peer))
        for peer in rows.select_related("device")
    )


def _is_decided(peer: Peer) -> bool:
    return peer.is_decided or peer.end in {Peer.End.REVOKED, Peer.End.EXPIRED}


def keys_to_kill(server_ids: Collection[int] | None = None) -> dict[int, list[dict[str, str]]]:
    """Enrolled server -> the keys of its pending receipts, as a revoke request carries them; in one query."""
    pending = Receipt.objects.filter(PENDING).exclude(server__enrolled_at=None)
    if server_ids is not None:
        pending = pending.filter(server__in=server_ids)
    found: defaultdict[int, list[dict[str, str]]] = defaultdict(list)
    for server_id, key, reason in pending.values_list("server", "public_key", "revocation__reason"):
        found[server_id].append({"public_key": key, "reason": reason})
    return dict(found)
