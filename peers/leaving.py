"""Offboarding: one act ends everything that people have, on every server, with one Revocation and its receipts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet.access import may_operate, require_operator
from fleet.models import ApiToken, Role, User
from fleet.services import disable_user
from peers.models import AccessRequest, Device, Grant, Membership, Peer, Person, Revocation, Suspension
from peers.revocation import INSTEAD, carry_out
from peers.settle import lock_devices, lock_keys
from peers.teams import places_of


@dataclass(frozen=True)
class Held:
    """How much would be revoked, on how many servers, and on how many that are not set up yet."""

    keys: int
    servers: int
    never: int = 0

    def __str__(self) -> str:
        counts = (self.keys, "key"), (self.servers, "server")
        keys, servers = (f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
        never = f", and on {self.never} that {'is' if self.never == 1 else 'are'} not set up yet" if self.never else ""
        return f"{keys} on {servers}{never}"


def held_by(people: Collection[Person]) -> Held:
    """What an offboarding of these people would revoke now, wherever it is or ever was."""
    keys = Device.objects.filter(person__in=people, revoked_at=None)
    peers = Peer.objects.filter(device__in=keys.values("pk")).order_by()
    places = list(peers.values_list("server", "server__enrolled_at").distinct())
    never = sum(enrolled_at is None for _, enrolled_at in places)
    return Held(keys.count(), len(places) - never, never)


def offboard(*, actor: Actor, people: Sequence[Person], reason: str) -> Revocation:
    """Their keys are revoked for ever; grants, memberships and requests end; their sign-ins are disabled and their API
    tokens revoked."""
    people = list({person.pk: person for person in people}.values())
    if not people:
        raise ValidationError({"people": "Choose at least one person."})
    label = str(people[0]) if len(people) == 1 else f"{len(people)} people"
    with act(Verb.PERSON_LEAVE, actor=actor, reason=reason) as this:
        ids = [person.pk for person in people]
        # Keys before people and devices, as whoever revokes one of them does.
        lock_keys(Device.objects.filter(person__in=ids, revoked_at=None).values_list("public_key", flat=True))
        keys = [device.public_key for device in lock_devices(ids)]
        require_operator(actor, *places_of(ids), instead=INSTEAD)
        _refuse_gone(ids)
        row = Revocation(label=f"everything of {label}", reason=reason, revoked_by=str(actor))
        row.person = people[0] if len(people) == 1 else None
        carry_out(actor, row, keys)
        _end_all(ids, this)
        tokens = _shut_sign_ins(ids, actor, reason)
        changes = {f"person {person.pk}": ["", f"{person} left"] for person in people}
        changes |= {"API tokens": [str(tokens), "0"]} if tokens else {}
        this.on(people[0], changes=changes, label=label)
    return row


def may_offboard(actor: Actor, person: Person) -> bool:
    """Whether `offboard` would let them, as far as servers are concerned."""
    return may_operate(actor, *places_of([person.pk]))


def _refuse_gone(people: Collection[int]) -> None:
    gone = Person.objects.filter(pk__in=people).exclude(left_at=None)
    if gone:
        message = f"Left already: {', '.join(map(str, gone))}."
        raise ValidationError({"people": ValidationError(message, code="taken")})


def _end_all(people: Collection[int], this: Act) -> None:
    now = timezone.now()
    Person.objects.filter(pk__in=people).update(left_at=now)
    devices = Device.objects.filter(person__in=people).values("pk")
    for rows in (Grant.objects.filter(person__in=people), Membership.objects.filter(person__in=people)):
        rows.filter(ended_at=None).update(ended_at=now)
    theirs = Q(person__in=people) | Q(device__in=devices) | Q(peer__device__in=devices)
    Suspension.objects.filter(theirs, ended_at=None).update(ended_at=now, ended_by=str(this.actor))
    cancelled = {"decision": AccessRequest.Decision.CANCELLED, "decided_at": now, "decided_by": str(this.actor)}
    AccessRequest.objects.filter(person__in=people, decided_at=None).update(**cancelled)


def _shut_sign_ins(people: Collection[int], actor: Actor, reason: str) -> int:
    """A user who is enabled again one day has neither the roles nor the tokens of before. How many tokens ended."""
    users, now = User.objects.filter(person__in=people), timezone.now()
    for user in users.filter(is_active=True):
        disable_user(actor=actor, user=user, reason=reason)
    Role.objects.filter(user__in=users, ended_at=None).update(ended_at=now)
    return ApiToken.objects.filter(user__in=users, revoked_at=None).update(revoked_at=now)
