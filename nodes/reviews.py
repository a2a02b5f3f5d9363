"""Peers that were shut at their machine: they stay out until a person decides."""

import datetime as dt
from collections.abc import Sequence

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from audit.services import SYSTEM, Actor, AtMachine, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.changes import mark_changed
from fleet.models import Server
from nodes.models import ReviewItem
from nodes.observe import Entry
from peers.models import Peer
from peers.revocation import revoke_devices
from peers.selectors import of_line

# What waits for a person; a peer that ended needs none any more.
OPEN = Q(decided_at=None, peer__ended_at=None)


def open_review(*, actor: AtMachine, server: Server, entry: Entry, reason: str) -> ReviewItem | None:
    """None where the key has no live peer there, one waits already, or this entry was read before."""
    live = Peer.objects.filter(server=server, ended_at=None)
    heirs = live.filter(replaces__device__public_key=entry.public_key)
    peer = live.filter(device__public_key=entry.public_key).first() or heirs.first()
    known = ReviewItem.objects.filter(Q(peer=peer, decided_at=None) | Q(server=server, entry=entry.hash))
    if peer is None or known.exists():
        return None
    item = ReviewItem(server=server, peer=peer, entry=entry.hash, what=entry.what, detail=reason, by=str(actor))
    item.at = dt.datetime.fromtimestamp(entry.at, dt.UTC)
    with act(Verb.REVIEW_ADD, actor=actor, reason=reason) as this:
        item.save(force_insert=True)
        this.on(item, changes={entry.what: ["", str(peer)]}, environment=server.environment.name)
        mark_changed([server.pk])
    return item


def hand_on_reviews(actor: Actor = SYSTEM) -> None:
    """What waited for a person about a peer that ended waits about the one that came after it there: of the same
    device, whose access came back, or of the key that replaced it."""
    rows = ReviewItem.objects.filter(decided_at=None).exclude(peer__ended_at=None)
    waiting = list(rows.select_related("peer__device__person", "peer__server", "server__environment"))
    after = _after([item.peer for item in waiting])
    # A new peer that waits for a person by itself is told of already.
    told = set(ReviewItem.objects.filter(decided_at=None, peer__in=after.values()).values_list("peer", flat=True))
    for item in waiting:
        heir = after.get((item.peer.server_id, item.peer.device_id))
        if heir is not None and heir.pk not in told:
            told.add(heir.pk)
            why = "its access came back" if heir.device_id == item.peer.device_id else "its key was replaced"
            with act(Verb.REVIEW_ADD, actor=actor, reason=why) as this:
                ReviewItem.objects.filter(pk=item.pk, decided_at=None).update(peer=heir)
                changes = {item.what: [str(item.peer), str(heir)]}
                this.on(item, changes=changes, environment=item.server.environment.name)


def _after(peers: Sequence[Peer]) -> dict[tuple[int, int | None], Peer]:
    """(server, device) -> the live peer in the place of that which ended: a device comes before its heir."""
    live = Peer.objects.filter(of_line([peer.device_id for peer in peers]), ended_at=None).order_by("device")
    found: dict[tuple[int, int | None], Peer] = {}
    for peer in live.select_related("device__person", "device__replaces", "server"):
        old = peer.device.replaces
        for device in (peer.device_id, peer.device.replaces_id, old.replaces_id if old else None):
            found.setdefault((peer.server_id, device), peer)
    return found


def decide_review(*, actor: Actor, item: ReviewItem, decision: str, reason: str) -> ReviewItem:
    """`resume`: the peer is wanted again. `revoke`: its key is dead, everywhere and for ever."""
    require_operator(actor, item.server.environment)
    if decision not in ReviewItem.Decision.values:
        raise ValidationError({"decision": "Decide to resume or to revoke."})
    require_reason(reason)
    with act(Verb.REVIEW_DECIDE, actor=actor, reason=reason) as this:
        values = {"decided_at": timezone.now(), "decided_by": str(actor), "decision": decision, "reason": reason}
        for name, value in values.items():
            setattr(item, name, value)
        item.clean_fields()
        if not ReviewItem.objects.filter(OPEN, pk=item.pk).update(**values):
            raise ValidationError("Somebody decided this already, or the peer ended.", code="taken")
        this.on(item, changes={"decision": ["", decision]}, environment=item.server.environment.name)
        if decision == ReviewItem.Decision.REVOKE:
            revoke_devices(actor=actor, devices=[item.peer.device], reason=reason)
        else:
            mark_changed([item.server_id])
    return item
