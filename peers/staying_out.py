"""Who is suspended on one server is so until somebody resumes them there, by whatever peer they come back."""

import datetime as dt
from collections.abc import Sequence

from peers.entitlement import Spot
from peers.models import Peer, Suspension

# What stays the same: who decided what, why, and what it is to the brake.
DECISION = ("reason", "began_act", "suspended_by", "is_decided", "is_idle")


def keep_out(peers: Sequence[Peer]) -> None:
    """New peers, a key before its heir, under the locks of their people. A suspension of the last peer of the same
    device on the same server ends and goes on with the new one. An heir is kept out along with the key that it
    replaces, but not for idleness: it may be the one that is used."""
    held = _held(peers)
    if not held:
        return
    at = min(peer.issued_at for peer in peers)
    ended, begun = [], []
    for peer in peers:
        spot = (peer.device_id, peer.server_id)
        own, old = held.get(spot), held.get((peer.replaces.device_id, peer.server_id)) if peer.replaces else None
        cause = own or (old if old and not old.is_idle else None)
        if own:
            ended.append(own.pk)
        if cause:
            held[spot] = go_on(cause, peer, at)
            begun.append(held[spot])
    Suspension.objects.filter(pk__in=ended).update(ended_at=at)  # and by nobody: it goes on
    Suspension.objects.bulk_create(begun)


def go_on(suspension: Suspension, peer: Peer, at: dt.datetime) -> Suspension:
    """The same decision about another peer, not saved yet."""
    same = {name: getattr(suspension, name) for name in DECISION}
    return Suspension(peer=peer, began_at=at, origin_id=suspension.origin_id or suspension.pk, **same)


def _held(peers: Sequence[Peer]) -> dict[Spot, Suspension]:
    """What is suspended of these devices, and of those that they replace, on these servers."""
    devices = {one.device_id for peer in peers for one in (peer, peer.replaces) if one}
    there = Suspension.objects.filter(peer__device__in=devices, peer__server__in={peer.server_id for peer in peers})
    rows = there.filter(ended_at=None).select_related("peer").defer("peer__preshared_key", "peer__windows")
    return {(one.peer.device_id, one.peer.server_id): one for one in rows if one.peer}
