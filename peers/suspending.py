"""Suspending and resuming: reversible, and the key, the addresses and the grants stay."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import reduce
from operator import or_
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from audit.services import SYSTEM, Act, Actor, act, cut
from audit.verbs import Verb
from fleet.access import require_helpdesk, require_operator, require_reason
from fleet.changes import hold_servers, mark_changed
from fleet.models import Environment, User
from peers.models import Device, Peer, Person, Suspension
from peers.settle import lock_devices
from peers.teams import places_of

Target = Person | Device | Peer


def suspend(*, actor: Actor, targets: Sequence[Target], reason: str, is_idle: bool = False) -> list[Suspension]:
    """Keeps people, devices or peers out, everywhere that they are. Several at once obey the brake."""
    if not targets:
        raise ValidationError({"targets": "Choose at least one."})
    require_reason(reason)
    is_one = len(set(targets)) == 1
    with act(Verb.SUSPEND, actor=actor, reason=reason) as this:
        targets = list(dict.fromkeys(targets)) if is_idle else _with_heirs(targets)
        places = _lock_places(targets)
        require_helpdesk(actor, *places)
        _refuse_over(targets)
        _refuse_suspended(targets)
        found = [_new(target, this) for target in targets]
        for one in found:
            one.is_idle, one.is_decided = is_idle, is_one and not is_idle
            one.clean_fields(exclude=list(OWN_PATHS.values()))  # each of these would ask the database
        Suspension.objects.bulk_create(found)
        _mark_servers(targets)
        label = str(targets[0]) if len(targets) == 1 else f"{len(targets)} at once"
        changes = {"suspended": ["", cut("; ".join(map(str, targets)), 2000)]}
        this.on(targets[0], changes=changes, label=label, environment=_only(places))
    return found


def resume(*, actor: Actor, suspension: Suspension, reason: str) -> Suspension:
    """What was kept out is wanted again, unless something else keeps it out."""
    require_reason(reason)
    target = suspension.target
    with act(Verb.RESUME, actor=actor, reason=reason) as this:
        places = _lock_places([target])
        # Also where they have access later, or just lost it: a single peer's own server, whether it is live or not.
        elsewhere = {target.server.environment} if isinstance(target, Peer) else places_of([owner_of(target).pk])
        require_operator(actor, *places, *elsewhere)
        _refuse_disabled(target)
        suspension.ended_at, suspension.ended_by = timezone.now(), str(actor)
        values = {"ended_at": suspension.ended_at, "ended_by": suspension.ended_by}
        if not Suspension.objects.filter(pk=suspension.pk, ended_at=None).update(**values):
            raise ValidationError("This suspension has ended already: look again.", code="taken")
        _mark_servers([target])
        place = target.server.environment.name if isinstance(target, Peer) else _only(places)
        this.on(target, changes={"suspended": [suspension.reason, ""]}, environment=place)
    return suspension


def _new(target: Target, this: Act) -> Suspension:
    name = target._meta.model_name
    return Suspension(reason=this.reason, suspended_by=str(this.actor), began_act=this.id, **{str(name): target})


def _with_heirs(targets: Sequence[Target]) -> list[Target]:
    """Each once, and with a key the one that waits to take its place, where it is not kept out already: nobody gets in
    by that."""
    kept = Suspension.objects.filter(ended_at=None)
    devices = [one for one in targets if isinstance(one, Device)]
    peers = [one for one in targets if isinstance(one, Peer)]
    keys = Device.objects.filter(replaces__in=devices, revoked_at=None).exclude(suspensions__in=kept)
    heirs = Peer.objects.filter(replaces__in=peers, ended_at=None).exclude(suspensions__in=kept)
    keys, heirs = keys.select_related("person"), heirs.select_related("device__person", "server")
    return list(dict.fromkeys((*targets, *(keys if devices else ()), *(heirs if peers else ()))))


def _refuse_over(targets: Sequence[Target]) -> None:
    """Under the lock: who has left, a dead key or a peer that ended is kept out for ever."""
    people = [one.pk for one in targets if isinstance(one, Person)]
    devices = [one.pk for one in targets if isinstance(one, Device)]
    peers = [one.pk for one in targets if isinstance(one, Peer)]
    over = (
        *Person.objects.filter(pk__in=people).exclude(left_at=None),
        *Device.objects.filter(pk__in=devices).exclude(revoked_at=None).select_related("person"),
        *Peer.objects.filter(pk__in=peers).exclude(ended_at=None).select_related("device__person", "server"),
    )
    if over:
        names = ", ".join(map(str, over))
        raise ValidationError(
            {"targets": ValidationError(f"Over already: {names}. Nobody gets in by it.", code="taken")}
        )


def _refuse_suspended(targets: Sequence[Target]) -> None:
    """Under the people's locks, so nobody else suspends them now."""
    held = Suspension.objects.filter(_one_of(targets, OWN_PATHS), ended_at=None).select_related(
        "person", "device__person", "peer__device__person", "peer__server"
    )
    if held:
        names = ", ".join(str(one.target) for one in held)
        raise ValidationError({"targets": ValidationError(f"Suspended already: {names}.", code="taken")})


def _refuse_disabled(target: Target) -> None:
    user = User.objects.filter(person=target).first() if isinstance(target, Person) else None
    if user is not None and not user.is_active:
        raise ValidationError(f"The sign-in {user} is disabled: enable it first.")


def _lock_places(targets: Sequence[Target]) -> set[Environment]:
    """Where the targets have a live peer, read while nobody can issue another to these people.

    Two plain queries: PostgreSQL plans them as one badly.
    """
    lock_devices({owner_of(target).pk for target in targets})
    live = Peer.objects.filter(_one_of(targets, PATHS), ended_at=None).order_by()
    return set(Environment.objects.filter(pk__in=list(live.values_list("server__environment", flat=True).distinct())))


def _mark_servers(targets: Sequence[Target]) -> None:
    """Also those where a peer ended and is still there: a brake may hold that, and holds no decision about one person.
    Locked in the order of all: several rows that are written at once are locked as they happen to lie."""
    there = Peer.objects.filter(_one_of(targets, PATHS), gone_at=None).order_by()
    servers = set(there.values_list("server", flat=True))
    hold_servers(servers)
    mark_changed(servers)


# From a peer, and from a suspension.
PATHS: dict[type, str] = {Person: "device__person", Device: "device", Peer: "pk"}
OWN_PATHS: dict[type, str] = {Person: "person", Device: "device", Peer: "peer"}


def _one_of(targets: Sequence[Target], paths: dict[type, str]) -> Q:
    ids: defaultdict[str, list[object]] = defaultdict(list)
    for target in targets:
        ids[f"{paths[type(target)]}__in"].append(target.pk)
    return reduce(or_, (Q(**{path: found}) for path, found in ids.items()))


def owner_of(target: Target) -> Person:
    if isinstance(target, Person):
        return target
    return target.person if isinstance(target, Device) else target.device.person


def _only(places: Collection[Environment]) -> str:
    return next(iter(places)).name if len(places) == 1 else ""


def kept_out(server_id: int) -> dict[UUID, tuple[UUID, bool]]:
    """Live peers of a server that a suspension keeps out -> the act that began it, and whether it was decided for this
    one person, or is older than the peer, which then was never let in: no brake counts it. Three queries, from the few
    suspensions there are."""
    found: dict[UUID, tuple[UUID, bool]] = {}
    for path in ("peer", "device__peers", "person__devices__peers"):
        here = {f"{path}__server": server_id, f"{path}__ended_at": None}
        rows = Suspension.objects.filter(ended_at=None, **here).order_by("is_decided")
        columns = (f"{path}__pk", f"{path}__issued_at", "began_at", "began_act", "is_decided")
        for peer, issued_at, began_at, act_id, is_decided in rows.values_list(*columns):
            is_free = is_decided or began_at <= issued_at
            if is_free or peer not in found:
                found[peer] = act_id, is_free
    return found


def shut_by_decision() -> Q:
    """Peers, also ended ones, that a suspension decided for this one person keeps out."""
    held = Suspension.objects.filter(ended_at=None, is_decided=True)
    paths = {"peer": "pk", "device": "device", "person": "device__person"}
    return reduce(or_, (Q(Exists(held.filter(**{name: OuterRef(path)}))) for name, path in paths.items()))


DISABLED = "their sign-in was disabled"


def suspend_disabled() -> int:
    """Whoever may not sign in any more has no tunnel either, until they may and an operator resumes them."""
    held = Suspension.objects.filter(ended_at=None).exclude(person=None).values("person")
    people = Person.objects.filter(user__is_active=False, left_at=None).exclude(pk__in=held)
    done = 0
    for person in people:
        with suppress(ValidationError):  # somebody suspended them at this moment, or they left
            suspend(actor=SYSTEM, targets=[person], reason=DISABLED)
            done += 1
    return done
