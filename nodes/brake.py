"""The Console's half of the brake: peers that many would lose for one cause stay until a person approves it, and all
else goes out meanwhile."""

import uuid
from collections import Counter
from collections.abc import Collection

from django.db import transaction

from audit.models import Event
from audit.services import SYSTEM, act, cut
from audit.verbs import Verb
from fleet.models import Server
from nodes.models import HeldPush, Hold
from nodes.plan import brake_limit, hold_in, is_braked, undecided
from nodes.state import Desired
from peers.models import Peer

UNRECORDED = "peers that the node holds and that no recorded act ended"


def approved_acts(acts: set[uuid.UUID]) -> set[uuid.UUID]:
    return set(Hold.objects.filter(act__in=acts).exclude(approved_at=None).values_list("act", flat=True))


def _weigh(desired: Desired) -> tuple[Counter[uuid.UUID], int]:
    """Undecided removals by cause, and how many peers the server may hold now."""
    going = (*desired.removals, *desired.shut)
    causes = undecided(going, approved_acts({removal.act for removal in going if removal.stays}))
    return causes, Peer.objects.filter(server=desired.server_id, gone_at=None).count()


def preview(desired: Desired) -> tuple[Desired, str]:
    """What `check` would say, without holding anything."""
    causes, held = _weigh(desired)
    if not is_braked(causes, held):
        return desired, ""
    return hold_in(desired, causes), f"{causes.total()} of {held} peers would go: {'; '.join(map(_describe, causes))}"


def preview_unrecorded(removals: int, held: int) -> str:
    """The same, for removals that only the node counts."""
    return f"{removals} of {held} peers would go: {UNRECORDED}" if removals > brake_limit(held) else ""


def check(desired: Desired) -> tuple[Desired, str]:
    """What may be pushed now; and, where that is not all, what waits and why, with a Hold for each cause that a person
    must see."""
    causes, held = _weigh(desired)
    if not is_braked(causes, held):
        return desired, ""
    message = _hold(desired.server_id, causes, held)
    return (hold_in(desired, causes), message) if message else check(desired)


def forget(server_id: int, still: Collection[uuid.UUID] = ()) -> None:
    """A push went to this server: nothing waits for it any more, but for what these acts would remove."""
    HeldPush.objects.filter(server=server_id, hold__approved_at=None).exclude(hold__act__in=still).delete()


def hold_unrecorded(server_id: int, digest: str, removals: int, held: int) -> str:
    """The node's own brake found more removals than the Console knows of. Its key is what the node holds now."""
    act_id = unrecorded_act(server_id, digest)
    # Approved at this moment, it goes with the next attempt.
    return _hold(server_id, Counter({act_id: removals}), held) or preview_unrecorded(removals, held)


def unrecorded_act(server_id: int, digest: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"muster:{server_id}:{digest}")


def _hold(server_id: int, causes: Counter[uuid.UUID], held: int) -> str:
    """Empty where somebody approved one of the causes meanwhile: it is weighed again then."""
    texts = []
    for act_id, removals in causes.items():
        cause = _describe(act_id)
        texts.append(cause)
        with transaction.atomic():
            _, is_new = Hold.objects.get_or_create(act=act_id, defaults={"cause": cut(cause, 500)})
            # Locked, as whoever approves it looks which servers wait for it.
            hold = Hold.objects.select_for_update().get(act=act_id)
            if hold.approved_at:
                return ""
            values = {"removals": removals, "held": held}
            HeldPush.objects.update_or_create(hold=hold, server_id=server_id, defaults=values)
        if is_new:
            _record(hold, server_id, removals, held)
    return f"{causes.total()} of {held} peers would go: {'; '.join(texts)}"


def _record(hold: Hold, server_id: int, removals: int, held: int) -> None:
    server = Server.objects.select_related("environment").get(pk=server_id)
    with act(Verb.PUSH_HELD, actor=SYSTEM, reason=hold.cause) as this:
        changes = {server.name: [f"{held} peers", f"{held - removals} peers"]}
        this.on(hold, changes=changes, environment=server.environment.name)


def _describe(act_id: uuid.UUID) -> str:
    event = Event.objects.filter(act=act_id).first()
    if event is None:
        return UNRECORDED
    why = f" ({event.reason})" if event.reason else ""
    return f"{event.verb} {event.target_label} by {event.actor_label} at {event.timestamp:%Y-%m-%d %H:%M} UTC{why}"
