"""Offboarding: one act ends everything that people have, on every server, with one Revocation and its receipts."""

from collections.abc import Collection, Sequence

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator
from fleet.models import Environment
from fleet.services import disable_user
from peers.models import AccessRequest, Device, Grant, Membership, Peer, Person, Revocation, Suspension
from peers.revocation import INSTEAD, carry_out
from peers.settle import lock_devices
from peers.teams import environments_of


def offboard(*, actor: Actor, people: Sequence[Person], reason: str) -> Revocation:
    """Their keys are revoked for ever; grants, memberships and requests end; their sign-ins are disabled."""
    if not people:
        raise ValidationError({"people": "Choose at least one person."})
    label = f"everything of {people[0] if len(people) == 1 else f'{len(people)} people'}"
    with act(Verb.PERSON_LEAVE, actor=actor, reason=reason) as this:
        ids = [person.pk for person in people]
        keys = [device.public_key for device in lock_devices(ids)]
        require_operator(actor, *_environments(ids), instead=INSTEAD)
        _refuse_gone(ids)
        row = Revocation(label=label, reason=reason, revoked_by=str(actor))
        row.person = people[0] if len(people) == 1 else None
        carry_out(actor, row, keys)
        _end_all(ids, actor)
        for person in people:
            if person.user is not None and person.user.is_active:
                disable_user(actor=actor, user=person.user, reason=reason)
        changes = {person.name: ["", f"left, person {person.pk}"] for person in people}
        this.on(people[0], changes=changes, label=str(people[0]) if len(people) == 1 else f"{len(people)} people")
    return row


def _environments(people: Collection[int]) -> set[Environment]:
    """Wherever they have or may get access."""
    grants = Grant.objects.filter(person__in=people, ended_at=None).select_related("environment", "server__environment")
    memberships = Membership.objects.filter(person__in=people, ended_at=None).select_related("team")
    live = Peer.objects.filter(device__person__in=people, ended_at=None).select_related("server__environment")
    by_team = {place for team in {one.team for one in memberships} for place in environments_of(team)}
    return {grant.place for grant in grants} | by_team | {peer.server.environment for peer in live}


def _refuse_gone(people: Collection[int]) -> None:
    gone = Person.objects.filter(pk__in=people).exclude(left_at=None).first()
    if gone is not None:
        raise ValidationError({"people": ValidationError(f"{gone} has left already.", code="taken")})


def _end_all(people: Collection[int], actor: Actor) -> None:
    now = timezone.now()
    Person.objects.filter(pk__in=people).update(left_at=now)
    devices = Device.objects.filter(person__in=people).values("pk")
    for rows in (
        Grant.objects.filter(person__in=people),
        Membership.objects.filter(person__in=people),
        Suspension.objects.filter(Q(person__in=people) | Q(device__in=devices) | Q(peer__device__in=devices)),
    ):
        rows.filter(ended_at=None).update(ended_at=now)
    cancelled = {"decision": AccessRequest.Decision.CANCELLED, "decided_at": now, "decided_by": str(actor)}
    AccessRequest.objects.filter(person__in=people, decided_at=None).update(**cancelled)
