"""A lost device: its key dies everywhere at once, and another device may take its place at once."""

from contextlib import suppress

from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import Q

from audit.services import Actor, act, cut
from audit.verbs import Verb
from fleet.models import User
from fleet.sealing import SealBroken
from peers.models import Device, Peer, Person, Revocation, Suspension
from peers.revocation import carry_out, require_revoker
from peers.services import require_registrar, save_device, who_stay
from peers.settle import Ending, lock_keys, settle_where_room
from peers.states import OPEN_REVIEW
from peers.waiting import where_waiting


def report_lost(
    *, actor: Actor, device: Device, reason: str = "", public_key: str = "", name: str = ""
) -> tuple[Revocation, Device | None]:
    """By whoever may revoke it, or by the person whose it is, without any role. With the `public_key` of another device
    that one is registered by the same transaction, and then issued at fresh addresses: those of the lost one rest."""
    new = Device(person=device.person, name=name or device.name, public_key=public_key) if public_key else None
    row = Revocation(label=str(device), person=device.person, revoked_by=str(actor))
    row.reason = cut(f"lost: {reason}", 500) if reason.strip() else "lost"
    with transaction.atomic():
        if new is not None:
            new.clean_fields()
            lock_keys([device.public_key, public_key])
            who_stay([device.person])
            if is_own(actor, device.person):
                _refuse_kept_out(device)
        if not is_own(actor, device.person):
            require_revoker(actor, [device.public_key])
        carry_out(actor, row, [device.public_key])
        if new is not None:
            _register(actor, new, device)
    if new is not None and where_waiting([new]):
        _issue(actor, new, device)
    return row, new


def _register(actor: Actor, new: Device, lost: Device) -> None:
    with act(Verb.DEVICE_REGISTER, actor=actor, reason=f"in place of the lost {lost.name}") as this:
        if not is_own(actor, new.person):
            require_registrar(actor, new.person)
        save_device(this, new)


def _issue(actor: Actor, new: Device, lost: Device) -> None:
    """The lost key is dead by now, and stays so whatever becomes of this: a full pool, a keyring that is missing, a
    server that another transaction holds. What is left to do the sweep does."""
    why = f"in place of the lost {lost.name}"
    with suppress(SealBroken, DatabaseError), act(Verb.PEER_SETTLE, actor=actor, reason=why) as this:
        done, _ = settle_where_room([new.person_id], this=this, ending=Ending())
        this.on(new, changes={"peers": [str(done.ended), str(done.issued)]})


def _refuse_kept_out(device: Device) -> None:
    """Who keeps a device out keeps out what its owner puts in its place: an operator decides about another one."""
    is_suspended = Suspension.objects.filter(Q(device=device) | Q(peer__device=device), ended_at=None).exists()
    # Also where it was shut at the machine itself, and nobody has decided yet.
    shut = Q(status__shut_at__isnull=False, waits_for=None, ended_at=None) | OPEN_REVIEW
    if is_suspended or Peer.objects.filter(shut, device=device).exists():
        message = "This device is kept out: report it lost without another key, and ask an operator for a new one."
        raise ValidationError({"public_key": message})


def is_own(actor: Actor, person: Person) -> bool:
    """Whether the actor signs in as this person, who has not left."""
    return isinstance(actor, User) and actor.is_active and person.user_id == actor.pk and person.left_at is None
