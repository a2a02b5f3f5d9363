"""Moving access from one server to another: dead on the old one before it is alive on the new one."""

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.changes import hold_servers, mark_changed
from fleet.models import Server
from peers.granting import lock_teams
from peers.models import Grant, Peer, Suspension
from peers.rights import grants_of, holders_of
from peers.settle import Ending, lock_devices, settle
from peers.states import shut_there
from peers.staying_out import go_on


def move_grant(*, actor: Actor, grant: Grant, server: Server, reason: str) -> Grant:
    """The same right to another server. Its peers there are let in once the old ones were seen gone."""
    require_operator(actor, grant.place, server.environment)
    require_reason(reason)
    if grant.server is None or grant.server == server:
        raise ValidationError({"server": "Only a grant to one server moves, and to another one."})
    old = grant.server
    with act(Verb.GRANT_MOVE, actor=actor, reason=reason) as this:
        lock_teams([grant.team_id] if grant.team_id else [])
        people = holders_of([grant], timezone.now())
        devices = lock_devices(people)
        now = timezone.now()
        lasting = Grant.objects.filter(Q(until=None) | Q(until__gt=now), pk=grant.pk, ended_at=None)
        if not lasting.update(ended_at=now):
            raise ValidationError("This grant has ended already: look again.", code="taken")
        there = Peer.objects.filter(server=server, device__in=devices, ended_at=None)
        staying = set(there.values_list("device", flat=True))
        moved = _copy(grant, server, actor)
        moved.begins_at = max(grant.begins_at, now)  # before, nobody had a right to the other server
        moved.full_clean()
        moved.save(force_insert=True)
        _refuse_kept(people, old)
        _refuse_shut(old, [device.pk for device in devices])
        settle(people, this=this, ending=Ending(is_decided=len(people) == 1), on={old.pk, server.pk})
        _let_wait(old, server, this, staying)
        _keep_out(old, server, this, staying)
        changes = {"server": [old.name, server.name]}
        this.on(moved, changes=changes, environment=server.environment.name)
    return moved


def _copy(grant: Grant, server: Server, actor: Actor) -> Grant:
    names = ("person", "team", "networks", "hours", "pool", "begins_at", "until", "reason", "begun_at")
    return Grant(
        server=server, granted_by=str(actor), moved_from=grant, **{name: getattr(grant, name) for name in names}
    )


def _refuse_kept(people: Collection[int], old: Server) -> None:
    """Access that another grant carries would stay alive on the old server."""
    kept = grants_of(people, timezone.now())
    other = kept.filter(server=old).first() or kept.filter(environment=old.environment).first()
    if other is not None:
        raise ValidationError({"server": f"Another grant, {other}, carries access to {old} too: end that one first."})


def _refuse_shut(old: Server, devices: Collection[int]) -> None:
    """Whom somebody shut out at the machine waits for a decision there: a move is none."""
    if Peer.objects.filter(shut_there(), server=old, device__in=devices, ended_at=None).exists():
        raise ValidationError({"server": f"A peer on {old} was shut at its machine: decide its review item first."})


def _let_wait(old: Server, server: Server, this: Act, staying: Collection[int]) -> None:
    """Who had a peer on the new server before the move keeps it. A peer that itself waited was never let in: its heir
    waits for the same one, unless that is on the server they move back to. An old server that was never set up is not
    waited for."""
    ended = Peer.objects.filter(server=old, ended_act=this.id).exclude(device__in=staying).select_related("waits_for")
    awaited = {peer.device_id: peer.waits_for or peer for peer in ended if (peer.waits_for or peer).gone_at is None}
    for peer in Peer.objects.filter(server=server, device__in=awaited, ended_at=None):
        first = awaited[peer.device_id]
        Peer.objects.filter(pk=peer.pk).update(waits_for=first if first.server_id != server.pk else None)


def _keep_out(old: Server, server: Server, this: Act, staying: Collection[int]) -> None:
    """Who was suspended on the old server alone is so on the new one too: a move lets nobody in. On the old one they
    are kept out until somebody resumes them there, if they ever come back."""
    held = Suspension.objects.filter(peer__server=old, peer__ended_act=this.id, ended_at=None).select_related("peer")
    by_device = {one.peer.device_id: one for one in held.exclude(peer__device__in=staying) if one.peer}
    came = Peer.objects.filter(server=server, device__in=by_device, ended_at=None).defer("preshared_key")
    kept = Suspension.objects.filter(ended_at=None).exclude(peer=None).values("peer")  # by what held there before
    Suspension.objects.bulk_create(
        go_on(by_device[peer.device_id], peer, peer.issued_at) for peer in came.exclude(pk__in=kept)
    )


def let_in(*, actor: Actor, peer: Peer, reason: str) -> Peer:
    """For an old server that answers no more: its word is not waited for. Until its peer there ends by itself or the
    server is reached, the key may pass on both."""
    require_reason(reason)
    with act(Verb.PEER_LET_IN, actor=actor, reason=reason) as this:
        lock_devices([peer.device.person_id])
        waiting = Peer.objects.select_related("waits_for__server__environment", "server__environment")
        found = waiting.filter(pk=peer.pk, ended_at=None).exclude(waits_for=None).first()
        if found is None or found.waits_for is None:
            raise ValidationError(f"{peer} waits for no other server: look again.", code="taken")
        require_operator(actor, found.server.environment, found.waits_for.server.environment)
        same = Q(pk=peer.pk) | Q(replaces=peer, waits_for=found.waits_for)  # and the new key that waits along with it
        Peer.objects.filter(same, ended_at=None).update(waits_for=None)
        mark_changed([peer.server_id])
        changes = {"waits for": [found.waits_for.server.name, ""]}
        this.on(peer, changes=changes, environment=found.server.environment.name)
    peer.waits_for = None
    return peer


def let_moved_in() -> int:
    """Peers whose old peer was seen gone are wanted now. How many there were."""
    with transaction.atomic():
        ready = Peer.objects.filter(ended_at=None, waits_for__gone_at__isnull=False)
        found = dict(ready.values_list("pk", "server"))
        if found:
            hold_servers(found.values())  # before the peers, as whoever revokes does
            Peer.objects.filter(pk__in=found).update(waits_for=None)
            mark_changed(found.values())
    return len(found)
