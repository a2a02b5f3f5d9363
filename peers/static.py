"""The write path for static addresses: a device has them on a server, whether it has a peer there or not."""

import copy
import uuid

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.changes import lock_servers, mark_changed
from fleet.models import AddressRange, Server
from fleet.pools import BadRange, from_hex, meet, parse_range, usable
from peers.holders import free_left, refuse_taken, take_back
from peers.inheriting import let_go
from peers.issuing import save_peers
from peers.models import Device, Peer, StaticAddress
from peers.services import is_waiting
from peers.settle import Ending, lock_devices, mark_ended

FAMILIES = ("ipv4", "ipv6")


def assign_address(
    *, actor: Actor, device: Device, server: Server, reason: str, ipv4: str = "", ipv6: str = ""
) -> StaticAddress:
    """Of either family or both. A live peer with other addresses ends, and a new one takes its place in the same act:
    its tunnel file is another one then (`is_reissued`)."""
    require_operator(actor, server.environment)
    row = StaticAddress(device=device, reason=reason, assigned_by=str(actor))
    asked = {name: text for name, text in zip(FAMILIES, (ipv4, ipv6), strict=True) if text}
    with act(Verb.STATIC_ADD, actor=actor, reason=reason) as this:
        if not asked:
            raise ValidationError({"ipv4": "Give an IPv4 address, an IPv6 address, or both."})
        lock_live(device)
        row.server = lock_servers([server.pk])[0]
        row.clean_fields(exclude=["server", "device", *FAMILIES])
        _refuse_second(row)
        live = Peer.objects.filter(device=device, server=server, ended_at=None).first()
        for name, text in asked.items():
            setattr(row, name, _take(row, name, text, live))
        row.save(force_insert=True)
        changes = {"addresses": ["", ", ".join(str(getattr(row, name)) for name in asked)]}
        if live and any(getattr(row, f"{name}_id") != getattr(live, f"{name}_id") for name in asked):
            _reissue(live, row, this)
            changes["tunnel file"] = ["", "another one from now on"]
        this.on(row, changes=changes, environment=server.environment.name)
    return row


def is_reissued(row: StaticAddress) -> bool:
    """Whether a peer was given other addresses by it: its tunnel file has to be handed out anew."""
    since = Peer.objects.filter(device=row.device_id, server=row.server_id, replaces__ended_at=row.began_at)
    return since.exists()


def lock_live(device: Device) -> None:
    """ValidationError for a key that is dead, or has not taken another one's place yet."""
    found = [one for one in lock_devices([device.person_id]) if one.pk == device.pk]
    if not found:
        raise ValidationError({"device": f"{device} is revoked: its key is dead for ever."})
    if is_waiting(found[0]):
        message = f"This key has not connected yet: give it to the one that it replaces, {found[0].replaces}."
        raise ValidationError({"device": message})


def _refuse_second(row: StaticAddress) -> None:
    there = StaticAddress.objects.filter(device=row.device, server=row.server, ended_at=None).first()
    if there:
        found = " and ".join(str(getattr(there, name)) for name in FAMILIES if getattr(there, name))
        message = f"{row.device} has {found} for itself on {row.server} already: end that first."
        raise ValidationError({"device": ValidationError(message, code="taken")})


def _take(row: StaticAddress, name: str, text: str, live: Peer | None) -> AddressRange:
    """A range of its own, or the one that its peer has."""
    pool = row.server.pool4 if name == "ipv4" else row.server.pool6
    try:
        span = parse_range(text)
    except BadRange:
        raise ValidationError({name: f"{text!r} is not an address: give one of {pool}."}) from None
    if str(from_hex(f"{span[0]:032x}")) != text or meet(span, usable(pool)) != span:
        raise ValidationError({name: f"Give an address that a peer may have out of {pool}, such as {pool[2]}."})
    own = getattr(live, name) if live else None
    if own and own.span == span:
        AddressRange.objects.filter(pk=own.pk).update(kind=AddressRange.Kind.STATIC)
        return own  # type: ignore[no-any-return]
    take_back(row.server, span, row.device, row.began_at)
    refuse_taken(row.server, span, name)
    first, last = (f"{number:032x}" for number in span)
    words = {"kind": AddressRange.Kind.STATIC, "reason": row.reason, "taken_by": row.assigned_by}
    return AddressRange.objects.create(server=row.server, first=first, last=last, **words)


def _reissue(old: Peer, row: StaticAddress, this: Act) -> None:
    """A new peer in the place of the old one, of which it keeps all but the addresses and the preshared key."""
    _refuse_unsettled(old)
    new = copy.copy(old)
    new.pk, new._state = uuid.uuid4(), type(old._state)()
    new.replaces, new.issued_at, new.issued_by = old, row.began_at, str(this.actor)
    new.first_generation = row.server.generation + 1
    for name in FAMILIES:
        if getattr(row, name):
            setattr(new, name, getattr(row, name))
    mark_ended([old], this=this, ending=Ending(is_decided=True), now=row.began_at)
    save_peers([new])
    free_left([old.ipv4_id, old.ipv6_id], row.began_at)
    mark_changed([row.server_id])


def _refuse_unsettled(peer: Peer) -> None:
    """The new key would wait for the place of a peer that is gone."""
    if peer.device.replacements.filter(revoked_at=None).exists():
        message = "A new key is to take this one's place: wait until it has connected, or revoke it."
        raise ValidationError({"device": message})


def end_static_address(*, actor: Actor, static: StaticAddress, reason: str) -> StaticAddress:
    """A live peer keeps the addresses as ordinary ones; where there is none they rest."""
    require_operator(actor, static.server.environment)
    require_reason(reason, "Say why this address is the device's own no more.")
    with act(Verb.STATIC_END, actor=actor, reason=reason) as this:
        lock_devices([static.device.person_id])
        lock_servers([static.server_id])
        static.ended_at = timezone.now()
        if not StaticAddress.objects.filter(pk=static.pk, ended_at=None).update(ended_at=static.ended_at):
            raise ValidationError("This static address has ended already: look again.", code="taken")
        let_go([static], static.ended_at)
        changes = {"ended_at": ["", str(static.ended_at)]}
        this.on(static, changes=changes, environment=static.server.environment.name)
    return static
