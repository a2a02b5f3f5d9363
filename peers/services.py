"""The write path for people and devices. Grants, teams, suspensions and revocation have modules of their own."""

import copy
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet.access import may_operate, require_operator
from fleet.models import Environment, Server
from peers.models import Device, Grant, Membership, Person, Suspension, Tombstone
from peers.rights import grants_of
from peers.settle import Ending, lock_devices, lock_keys, settle, settle_where_room

TOMBSTONED = "This key is tombstoned: it was revoked and never comes back. Make a new key pair on the device."


def add_person(*, actor: Actor, name: str, email: str = "", kind: str = Person.Kind.EMPLOYEE) -> Person:
    require_operator(actor)
    person = Person(name=name, email=email, kind=kind)
    with act(Verb.PERSON_ADD, actor=actor) as this:
        person.full_clean()
        person.save(force_insert=True)
        this.on(person)
    return person


def change_person(*, actor: Actor, person: Person, reason: str = "", **values: Any) -> Person:
    """`values`: name, email, kind."""
    require_operator(actor)
    before = copy.copy(person)
    for name, value in values.items():
        setattr(person, name, value)
    with act(Verb.PERSON_CHANGE, actor=actor, reason=reason) as this:
        who_stay([person])
        person.full_clean()
        _check_grants_end(person)
        person.save(update_fields=list(values))
        this.on(person, before=before)
    return person


def _check_grants_end(person: Person) -> None:
    if person.kind != Person.Kind.CONTRACTOR:
        return
    if Grant.objects.filter(person=person, ended_at=None, until=None).exists():
        raise ValidationError({"kind": "A contractor's access needs an end date: end the grants that have none first."})
    if Membership.objects.filter(person=person, ended_at=None, until=None).exists():
        raise ValidationError({"kind": "A contractor's membership needs an end date: end those that have none first."})


def register_device(
    *, actor: Actor, person: Person, name: str, public_key: str, replaces: Device | None = None
) -> Device:
    """A new key of a person, issued at once wherever their grants say: the actor operates all of these.

    One that `replaces` another has its addresses; the old key lives on until the new one first connects somewhere.
    """
    device = Device(person=person, name=name, public_key=public_key, replaces=replaces)
    with act(Verb.DEVICE_REGISTER, actor=actor) as this:
        device.clean_fields()
        lock_keys([public_key])  # keys before people, as whoever revokes does
        who_stay([person])
        require_registrar(actor, person)
        save_device(this, device)
        # A new key stands where the old one does: a pool that is full elsewhere is no reason to keep the old one.
        issue = settle if replaces is None else settle_where_room
        issue([person.pk], this=this, ending=Ending())
    return device


def may_register(actor: Actor, person: Person) -> bool:
    """Whether `register_device` would let them."""
    return may_operate(actor, *_places_of(person))


def _places_of(person: Person) -> set[Environment]:
    held = grants_of([person.pk], timezone.now()).select_related("environment", "server__environment")
    return {grant.place for grant in held}


def require_registrar(actor: Actor, person: Person) -> None:
    """Under the person's lock: a key of theirs is issued wherever their grants say."""
    require_operator(actor, *_places_of(person))


def save_device(this: Act, device: Device) -> None:
    """Whoever calls it has locked its key and its person, has asked whether the actor may, and issues it."""
    _refuse_taken_key(device.public_key)
    _check_replaced(device)
    device.full_clean()
    device.save(force_insert=True)
    this.on(device)


def who_stay(people: Iterable[Person]) -> list[Person]:
    """As they are now, locked until the transaction ends; ValidationError where somebody has left."""
    ids = {person.pk for person in people}
    found = list(Person.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk"))
    for person in found:
        if person.left_at is not None:
            raise ValidationError({"person": f"{person} has left: add them anew, with new keys."})
    return found


def _check_replaced(device: Device) -> None:
    """Inside the transaction, on what is locked: a revocation may have won meanwhile."""
    if device.replaces is None:
        return
    if device.replaces.person_id != device.person_id:
        _refuse_replaced("Choose a device of the same person.")
    old = next((one for one in lock_devices([device.person_id]) if one.pk == device.replaces_id), None)
    if old is None:
        _refuse_replaced("This device is revoked already: register the new key without it.")
    elif other := old.replacements.filter(revoked_at=None).first():
        _refuse_replaced(f"{other} replaces it already, by the key {other.public_key}: revoke that one first.")
    elif held := Suspension.objects.filter(Q(device=old) | Q(peer__device=old), ended_at=None).first():
        # Who replaces the key may not see a server that it has no access to now.
        away = "suspension of it on a server that it has no access to now"
        is_away = held.peer is not None and held.peer.ended_at is not None
        _refuse_replaced(f"There is a {away if is_away else held}: resume it first, or revoke this key.")
    elif is_waiting(old):
        _refuse_replaced("This key has not connected yet and replaces another one: revoke it, then replace that one.")


def is_waiting(device: Device) -> bool:
    """Whether it replaces a key that is alive: it has not connected yet."""
    return device.replaces is not None and device.replaces.revoked_at is None


def _refuse_replaced(message: str) -> None:
    raise ValidationError({"replaces": message})


def _refuse_taken_key(public_key: str) -> None:
    if Tombstone.objects.filter(public_key=public_key).exists():
        _refuse_key(TOMBSTONED)
    if Server.objects.filter(public_key=public_key).exists():
        _refuse_key("This is a server's own key: give the key of the device.")
    if Device.objects.filter(public_key=public_key).exists():
        _refuse_key("Another device has this key: make a key pair for each device.")


def _refuse_key(message: str) -> None:
    raise ValidationError({"public_key": ValidationError(message, code="taken")})
