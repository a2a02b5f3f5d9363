"""The write path for people, devices and grants. Revocation has a module of its own."""

import copy
import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator
from fleet.models import Environment, Server
from peers.entitlement import open_grants
from peers.models import Device, Grant, Person, Tombstone
from peers.settle import Ending, lock_devices, lock_keys, people_of, settle

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
        person.full_clean()
        _check_grants_end(person)
        person.save(update_fields=list(values))
        this.on(person, before=before)
    return person


def _check_grants_end(person: Person) -> None:
    endless = open_grants(timezone.now()).filter(person=person, until=None)
    if person.kind == Person.Kind.CONTRACTOR and endless.exists():
        raise ValidationError({"kind": "A contractor's access needs an end date: end the grants that have none first."})


def register_device(
    *, actor: Actor, person: Person, name: str, public_key: str, replaces: Device | None = None
) -> Device:
    """A new key of a person, issued at once wherever their grants say: the actor operates all of these.

    One that `replaces` another has its addresses; the old key lives on until the new one first connects somewhere.
    """
    held = open_grants(timezone.now()).filter(person=person).select_related("environment", "server__environment")
    require_operator(actor, *{grant.place for grant in held})
    device = Device(person=person, name=name, public_key=public_key, replaces=replaces)
    with act(Verb.DEVICE_REGISTER, actor=actor) as this:
        device.clean_fields()
        lock_keys([public_key])
        _refuse_taken_key(public_key)
        _check_replaced(device)
        device.full_clean()
        device.save(force_insert=True)
        settle([person.pk], this=this, ending=Ending())
        this.on(device)
    return device


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


def grant_access(
    *,
    actor: Actor,
    person: Person,
    reason: str,
    environment: Environment | None = None,
    server: Server | None = None,
    networks: Sequence[str] = (),
    until: dt.datetime | None = None,
) -> Grant:
    """A right, and the peers that follow from it, in one transaction."""
    place = environment or (server.environment if server else None)
    require_operator(actor, *([place] if place else []))
    grant = Grant(person=person, environment=environment, server=server, reason=reason, until=until)
    grant.networks, grant.granted_by = list(networks), str(actor)
    with act(Verb.GRANT_ADD, actor=actor, reason=reason) as this:
        grant.full_clean()
        _check_end(grant)
        grant.save(force_insert=True)
        settle([person.pk], this=this, ending=Ending())
        this.on(grant, environment=place.name if place else "")
    return grant


def _check_end(grant: Grant) -> None:
    if grant.until is not None and grant.until <= timezone.now():
        raise ValidationError({"until": "Give an end in the future."})
    if grant.until is None and grant.person.kind == Person.Kind.CONTRACTOR:
        raise ValidationError({"until": "A contractor's access needs an end date."})


def end_grants(*, actor: Actor, grants: Sequence[Grant], reason: str) -> None:
    """One act. Keys live on elsewhere; where no grant is left, peers are withdrawn. Several at once obey the brake."""
    if not grants:
        raise ValidationError({"grants": "Choose at least one grant."})
    if not reason.strip():
        raise ValidationError({"reason": "Say why this access ends."})
    require_operator(actor, *(grant.place for grant in grants))
    with act(Verb.GRANT_END, actor=actor, reason=reason) as this:
        ids = [grant.pk for grant in grants]
        ended = Grant.objects.filter(pk__in=ids, ended_at=None).update(ended_at=timezone.now())
        if ended != len(ids):
            raise ValidationError("One of these grants has ended already: look again.", code="taken")
        is_decided = len(people_of(grants)) == 1
        settle(people_of(grants), this=this, ending=Ending(is_decided=is_decided), issue_on=())
        changes = {f"grant {grant.pk}": [str(grant), "ended"] for grant in grants}
        this.on(grants[0], changes=changes, environment=_only_environment(grants), label=_name(grants))


def _name(grants: Sequence[Grant]) -> str:
    """One by its own name, several by how many they are and of whom."""
    if len(grants) == 1:
        return str(grants[0])
    people = {grant.person for grant in grants}
    return f"{len(grants)} grants of {people.pop() if len(people) == 1 else f'{len(people)} people'}"


def _only_environment(grants: Sequence[Grant]) -> str:
    names = {grant.place.name for grant in grants}
    return names.pop() if len(names) == 1 else ""
