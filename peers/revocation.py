"""Revoking: for ever, everywhere, never held up. Tombstones, receipts and hint go out in one transaction."""

from collections.abc import Iterable, Sequence

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit.services import Act, Actor, AtMachine, act
from audit.verbs import Verb
from fleet.access import may_help, require_helpdesk
from fleet.changes import DRAIN_REVOCATIONS, hint, hold_servers, raise_generation
from fleet.models import Environment, Server
from peers.inheriting import hand_on_or_end
from peers.keys import BadKey, parse_public_key
from peers.models import Device, Peer, Person, Receipt, Revocation, Tombstone
from peers.settle import Ending, end_peers, lock_keys

INSTEAD = "suspend the peers in your own environments now, and ask an administrator to revoke"


def revoke_devices(*, actor: Actor, devices: Sequence[Device], reason: str) -> Revocation:
    """Kills these keys on every server that ever held them. ValidationError where one is revoked already."""
    if not devices:
        raise ValidationError({"device": "Choose at least one device."})
    owners = {device.person_id for device in devices}
    person = devices[0].person if len(owners) == 1 else None
    many = f"{len(devices)} devices of {person or f'{len(owners)} people'}"
    label = str(devices[0]) if len(devices) == 1 else many
    return _revoke(actor, sorted({device.public_key for device in devices}), label, person, reason)


def revoke_person(*, actor: Actor, person: Person, reason: str) -> Revocation:
    """Kills every key that the person has."""
    keys = list(person.devices.filter(revoked_at=None).values_list("public_key", flat=True))
    if not keys:
        raise ValidationError({"person": f"{person} has no device that is not revoked already."})
    return _revoke(actor, keys, f"everything of {person}", person, reason)


def revoke_key(*, actor: Actor, public_key: str, reason: str) -> Revocation:
    """Kills a key, known to the Console or not: it can never be issued afterwards."""
    try:
        parse_public_key(public_key)
    except BadKey as error:
        raise ValidationError({"public_key": str(error)}) from None
    label, person = _owner(public_key)
    return _revoke(actor, [public_key], label, person, reason)


def spread_revocation(*, actor: AtMachine, server: Server, public_key: str, reason: str) -> Revocation | None:
    """What somebody revoked at one server holds everywhere; None where the key was dead already. Nobody is asked for
    a role: it is done there, and the key never comes back."""
    with transaction.atomic():
        lock_keys([public_key])
        if Tombstone.objects.filter(public_key=public_key).exists():
            return None
        label, person = _owner(public_key)
        row = Revocation(label=label, person=person, reason=reason, revoked_by=f"{actor} at {server.name}"[:254])
        return carry_out(actor, row, [public_key])


def is_replaced(public_key: str | None) -> bool:
    """Whether a new key was to take this one's place; a node's word that it did counts for no other key. It counts
    also where the new key was revoked meanwhile: the old one died when that came."""
    return Device.objects.filter(replaces__public_key=public_key, replaces__revoked_at=None).exists()


def _owner(public_key: str) -> tuple[str, Person | None]:
    device = Device.objects.filter(public_key=public_key).select_related("person").first()
    return (str(device), device.person) if device else (f"key {public_key}", None)


def may_revoke(actor: Actor, keys: Iterable[str]) -> bool:
    """Whether there is one that is not revoked yet, and the actor helps wherever these are."""
    left = Device.objects.filter(public_key__in=list(keys), revoked_at=None).values_list("public_key", flat=True)
    return bool(left) and may_help(actor, *_environments(left))


def require_revoker(actor: Actor, keys: Iterable[str]) -> None:
    """PermissionDenied unless the actor may revoke wherever these keys have a peer."""
    require_helpdesk(actor, *_environments(keys), instead=INSTEAD)


def _revoke(actor: Actor, keys: list[str], label: str, person: Person | None, reason: str) -> Revocation:
    require_revoker(actor, keys)
    row = Revocation(label=label, person=person, reason=reason, revoked_by=str(actor))
    return carry_out(actor, row, keys)


def carry_out(actor: Actor, row: Revocation, keys: list[str]) -> Revocation:
    """Whoever calls it has asked whether the actor may."""
    with act(Verb.REVOKE, actor=actor, reason=row.reason) as this:
        row.full_clean()
        lock_keys(keys)
        _refuse_revoked(keys)
        row.save(force_insert=True)
        asked, never = _kill(row, keys, this)
        changes = {"public_keys": ["", ", ".join(keys)], "servers": ["", str(len(asked))]}
        changes |= {"servers not set up yet": ["", str(len(never))]} if never else {}
        this.on(row, changes=changes)
        hint(DRAIN_REVOCATIONS, asked)
    return row


def _environments(keys: Iterable[str]) -> list[Environment]:
    """Where one of the keys has a live peer; everywhere where the Console does not know it: it may be anybody's.

    Two plain queries: PostgreSQL plans them as one badly.
    """
    keys = list(keys)
    if Device.objects.filter(public_key__in=keys).count() < len(keys):
        return list(Environment.objects.all())
    live = Peer.objects.filter(device__public_key__in=keys, ended_at=None)
    ids = live.order_by().values_list("server__environment", flat=True).distinct()
    return list(Environment.objects.filter(pk__in=list(ids)))


def _refuse_revoked(keys: list[str]) -> None:
    revoked = Tombstone.objects.filter(public_key__in=keys).values_list("public_key", flat=True)
    if revoked:
        message = f"Revoked already: {', '.join(revoked)}. See its receipts."
        raise ValidationError({"public_key": ValidationError(message, code="taken")})


def _kill(row: Revocation, keys: list[str], this: Act) -> tuple[set[int], set[int]]:
    """The servers that ever held one of the keys, or may: nobody knows where one that no device has is. And those that
    were to hold one and were never set up: they have nothing to prove."""
    now = timezone.now()
    devices = list(Device.objects.select_for_update(of=("self",)).filter(public_key__in=keys).order_by("pk"))
    Device.objects.filter(pk__in=[device.pk for device in devices]).update(revoked_at=now)
    Tombstone.objects.bulk_create(Tombstone(public_key=key, revocation=row) for key in keys)
    public = {device.pk: device.public_key for device in devices}
    peers = list(Peer.objects.filter(device__in=public).order_by().defer("preshared_key", "networks", "windows"))
    live = [peer for peer in peers if peer.ended_at is None]
    touched = {peer.server_id for peer in peers if peer.gone_at is None}  # a brake may have left one that ended
    hold_servers(touched)
    end_peers(live, this=this, ending=Ending(Peer.End.REVOKED, is_decided=True), now=now)
    hand_on_or_end(devices, now)
    held = {(peer.server_id, public[peer.device_id]) for peer in peers}
    unknown = set(keys) - set(public.values())
    if unknown:
        pushed_to = Server.objects.filter(is_observe_only=False).exclude(enrolled_at=None).values_list("pk", flat=True)
        held |= {(server, key) for server in pushed_to for key in unknown}
    never = _never_set_up({server for server, _ in held})
    Receipt.objects.bulk_create(
        Receipt(revocation=row, server_id=server, public_key=key, is_needless=server in never)
        for server, key in sorted(held)
    )
    raise_generation(touched)
    return {server for server, _ in held} - never, never


def _never_set_up(servers: set[int]) -> set[int]:
    """Read last, under the lock of those where a key is live: an enrolment that is under way sets its server up before
    that lock, and is asked, or after it, and then no push that it begins finds the key."""
    return set(Server.objects.filter(pk__in=servers, enrolled_at=None).values_list("pk", flat=True))
