"""The one place that reads the database for rendering. Generation and journal are read first, then the rows."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, When

from fleet.keyrings import PRESHARED_KEYS, Opener
from fleet.models import Server
from fleet.pools import from_hex
from fleet.sealing import SealBroken
from nodes.models import ReviewItem
from nodes.state import Content, Desired, InterfaceState, PeerState, Removal, Seen
from peers.models import PENDING, Peer, Receipt, Tombstone
from peers.selectors import of_line, routed_networks
from peers.suspending import kept_out, shut_by_decision


@dataclass(frozen=True)
class _Standing:
    """A peer as its row says that it should stand on its server, and the peer whose addresses it has."""

    state: PeerState
    seen: Seen
    heir_of: UUID | None


def desired_state(server_id: int) -> Desired:
    """Raises Server.DoesNotExist, and SealBroken where a preshared key was tampered with (nothing is pushed then)."""
    server = Server.objects.select_related("status").get(pk=server_id)
    shut = _shut(server.pk)
    removals = _removals(server.pk)  # before the peers: what ends in between is in neither, and no push calls it gone
    over = {one.peer_id for one in removals}
    shut = tuple(one for one in shut if one.peer_id not in over)
    out = {one.peer_id: one.may_stay for one in shut}
    live = _peers(server.pk, Peer.objects.filter(ended_at=None), lambda pk: out.get(pk, True))
    wanted = {one.state.public_key: (pk, one) for pk, one in live.items() if pk not in out}
    # A key that has a live peer there stands, or is kept out, by that one.
    taken = {*wanted, *(one.public_key for one in shut)}
    ended = _ended(server.pk, {one.peer_id for one in removals if one.may_stay and one.public_key not in taken})
    return Desired(
        server_id=server.pk,
        epoch=server.epoch,
        generation=server.generation,
        content=Content(interface_state(server), {key: one.state for key, (_, one) in wanted.items()}),
        removals=_with_states(removals, {**ended, **live}),
        shut=_with_states(shut, {**ended, **live}),
        entering={key: pk for key, (pk, one) in wanted.items() if one.seen is not Seen.IN},
        is_observe_only=server.is_observe_only,
        journal_seen=server.status.journal_seen,
    )


def _with_states(removals: Collection[Removal], standing: Mapping[UUID, _Standing]) -> tuple[Removal, ...]:
    """Those that may stay know how, and which key comes after them."""
    heirs = {one.heir_of: one.state.public_key for one in standing.values() if one.heir_of}
    return tuple(
        replace(one, stays=standing[one.peer_id].state, heir=heirs.get(one.peer_id, ""))
        if one.may_stay and one.peer_id in standing
        else one
        for one in removals
    )


def interface_state(server: Server) -> InterfaceState:
    four = f"{server.ipv4_address}/{server.pool4.prefixlen}"
    six = f"{server.ipv6_address}/{server.pool6.prefixlen}"
    return InterfaceState((four, six), server.listen_port, server.mtu, server.forward)


def _ended(server_id: int, staying: Collection[UUID]) -> dict[UUID, _Standing]:
    rows = Peer.objects.filter(gone_at=None).exclude(ended_at=None)
    return _peers(server_id, rows, lambda pk: pk in staying) if staying else {}


def _peers(server_id: int, rows: QuerySet[Peer], is_read: Callable[[UUID], bool]) -> dict[UUID, _Standing]:
    sealed_keys = Opener(PRESHARED_KEYS)
    dead = Tombstone.objects.filter(public_key=OuterRef("device__public_key"))
    rows = rows.filter(~Exists(dead), server=server_id, device__revoked_at=None)
    columns = ("id", "device", "device__public_key", "preshared_key", "ipv4__first", "ipv6__first")
    old = Case(When(replaces__ended_at=None, then=F("replaces__device__public_key")))
    more = ("status__let_in_at", "status__shut_at", "replaces", old)
    networks = routed_networks(server_id)
    found = {}
    read = rows.values_list(*columns, "expires_at", "windows", *more)
    for pk, device, key, sealed, four, six, expires_at, windows, let_in_at, shut_at, heir_of, replaces in read:
        if is_read(pk):
            psk = _preshared_key(sealed_keys, sealed, pk)
            fours = sorted([f"{from_hex(four)}/32", *networks.get((device, 4), ())])
            sixes = sorted([f"{from_hex(six)}/128", *networks.get((device, 6), ())])
            expiry = int(expires_at.timestamp()) if expires_at else None
            open_in = None if windows is None else tuple((begin, end) for begin, end in windows)
            state = PeerState(key, psk, (*fours, *sixes), expiry, replaces, open_in)
            found[pk] = _Standing(state, _seen(let_in_at, shut_at), heir_of)
    return found


def _seen(let_in_at: dt.datetime | None, shut_at: dt.datetime | None) -> Seen:
    if shut_at:
        return Seen.OUT
    return Seen.IN if let_in_at else Seen.NEVER


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
    rows = Peer.objects.filter(server=server_id, ended_at=None).annotate(is_out=_kept_otherwise(server_id))
    columns = ("pk", "device__public_key", "is_out", "status__let_in_at", "status__shut_at")
    found = []
    read = rows.filter(Q(pk__in=suspended) | Q(is_out=True))
    for pk, key, is_out, *seen in read.values_list(*columns):
        cause, is_decided = suspended.get(pk, (pk, True))
        found.append(Removal(pk, key, cause, is_decided or bool(is_out), _seen(*seen)))
    return tuple(found)


def _kept_otherwise(server_id: int) -> Q:
    """What keeps a peer out that is no suspension."""
    # Who was shut out at the machine comes in neither by a new key nor by access that ended and was given anew.
    shut = ReviewItem.objects.filter(server=server_id, decided_at=None).values("peer__device")
    return of_line(shut) | Q(waits_for__isnull=False)


def _removals(server_id: int) -> tuple[Removal, ...]:
    """Ended, and not seen gone. What keeps one of them out for itself, or kills its key, is a decision too."""
    dead = Tombstone.objects.filter(public_key=OuterRef("device__public_key"))
    is_case = Q(is_decided=True) | Q(end__in=[Peer.End.REVOKED, Peer.End.EXPIRED]) | Exists(dead)
    rows = Peer.objects.filter(server=server_id, gone_at=None).exclude(ended_at=None)
    read = rows.annotate(is_case=is_case | shut_by_decision() | _kept_otherwise(server_id))
    columns = ("pk", "device__public_key", "ended_act", "is_case", "status__let_in_at", "status__shut_at")
    return tuple(
        Removal(pk, key, cause or pk, bool(is_case), _seen(*seen))
        for pk, key, cause, is_case, *seen in read.values_list(*columns)
    )


def keys_to_kill(server_ids: Collection[int] | None = None) -> dict[int, list[dict[str, str]]]:
    """Enrolled server -> the keys of its pending receipts, as a revoke request carries them; in one query."""
    pending = Receipt.objects.filter(PENDING).exclude(server__enrolled_at=None)
    if server_ids is not None:
        pending = pending.filter(server__in=server_ids)
    found: defaultdict[int, list[dict[str, str]]] = defaultdict(list)
    for server_id, key, reason in pending.values_list("server", "public_key", "revocation__reason"):
        found[server_id].append({"public_key": key, "reason": reason})
    return dict(found)
