"""One word for each peer and grant: what holds now, and never more than is known."""

import datetime as dt
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from fleet.addresses import has_confirmed
from peers.models import Grant, Membership, Peer, Suspension
from peers.windows import is_within

OPEN_REVIEW = Q(reviews__isnull=False, reviews__decided_at=None)  # `nodes` keeps them
PEER_COLOURS = {
    **{"connected": "success", "issued": "info", "letting in": "info", "not set up there yet": "info", "gone": ""},
    **dict.fromkeys(("suspending", "suspended", "waits", "outside its hours", "leaving"), "warning"),
    "shut at its machine": "danger",
}


def with_causes(peers: QuerySet[Peer]) -> QuerySet[Peer]:
    """Peers with what keeps them out: `is_suspended`, and `is_shut_there` for what was done at their machine."""
    held = Suspension.objects.filter(ended_at=None)
    return peers.annotate(
        is_suspended=Exists(held.filter(peer=OuterRef("pk")))
        | Exists(held.filter(device=OuterRef("device")))
        | Exists(held.filter(person=OuterRef("device__person"))),
        is_shut_there=shut_there(),
    ).select_related("waits_for__server", "server__status", "status", "device")


def shut_there() -> Exists:
    """Whether somebody shut a peer at its machine, or one before it there, of this key or one that this replaces; and
    nobody has decided yet."""
    line = (
        Q(device=OuterRef("device"))
        | Q(device=OuterRef("device__replaces"))
        | Q(device=OuterRef("device__replaces__replaces"))
    )
    return Exists(Peer.objects.filter(line, OPEN_REVIEW, reviews__server=OuterRef("server")))


def peer_state(peer: Any) -> str:
    """Of a live peer `with_causes`: whether it is let in, and if not, why and whether its server has confirmed that."""
    if peer.ended_at is not None:
        return "gone" if peer.gone_at else "leaving"
    if peer.is_shut_there:
        return "shut at its machine"
    is_set_up = peer.server.enrolled_at is not None
    if peer.is_suspended and not is_set_up:
        return "suspended"
    if peer.is_suspended:
        return "suspended" if peer.status.shut_at else "suspending"
    if peer.waits_for is not None:
        return f"waits for {peer.waits_for.server.name}"
    if not is_set_up:
        return "not set up there yet"
    if not is_within(peer.windows, timezone.now()):
        return "outside its hours"
    if peer.status.shut_at:
        return "letting in"
    return "connected" if peer.status.is_connected else "issued"


def is_there(peer: Peer) -> bool:
    """Whether its server was read back with it, and nothing was seen since that says otherwise."""
    seen, key = peer.server.status, peer.device.public_key
    if any(one["public_key"] in (None, key) and one["what"] != "route" for one in seen.drift):
        return False
    if not peer.first_generation:
        return has_confirmed(peer.server)
    return (seen.confirmed_epoch, seen.confirmed_generation) >= (peer.server.epoch, peer.first_generation)


GRANT_STATES = ("open", "begins later", "over", "ended")


def grant_state(grant: Grant) -> str:
    """`over`: its time has come. `ended`: somebody ended it before."""
    now = timezone.now()
    if grant.ended_at:
        return "ended"
    if grant.until and grant.until <= now:
        return "over"
    return "open" if grant.begins_at <= now else "begins later"


def grants_in(rows: QuerySet[Grant], state: str) -> QuerySet[Grant]:
    """Grants that `grant_state` calls so."""
    if state == "ended":
        return rows.exclude(ended_at=None)
    now, rows = timezone.now(), rows.filter(ended_at=None)
    if state == "over":
        return rows.filter(until__lte=now)
    rows = rows.filter(Q(until=None) | Q(until__gt=now))
    return rows.filter(begins_at__lte=now) if state == "open" else rows.filter(begins_at__gt=now)


def membership_state(membership: Membership) -> str:
    if membership.ended_at:
        return "ended"
    return "over" if membership.until and membership.until <= timezone.now() else "open"


DORMANT = "takes hold when access comes back"


def suspension_state(suspension: Suspension) -> str:
    """`over`: what it kept out is gone for ever, and nobody needs to resume it. `went on`: with another peer."""
    if suspension.ended_at:
        return "ended" if suspension.ended_by else "went on"
    peer, target = suspension.peer, suspension.target
    kept = peer.device if peer else target
    over: tuple[dt.datetime | None, ...] = tuple(getattr(kept, name, None) for name in ("left_at", "revoked_at"))
    if any(over):
        return "over"
    return DORMANT if peer and peer.ended_at else "open"
