"""Asking for access, and deciding about it: two operators have to agree where the environment asks for it."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet.access import may_help, may_operate, require_helpdesk, require_operator, require_reason
from fleet.models import Environment, Server, User
from peers.granting import grant_access
from peers.models import AccessRequest, Grant, Person, Suspension
from peers.services import who_stay
from peers.settle import lock_devices

SHORTEST, LONGEST = dt.timedelta(minutes=1), dt.timedelta(days=366)


def request_access(
    *,
    actor: Actor,
    person: Person,
    reason: str,
    duration: dt.timedelta,
    environment: Environment | None = None,
    server: Server | None = None,
    networks: Sequence[str] = (),
    hours: str = "",
) -> AccessRequest:
    """Anybody asks for themselves; who helps at the place asks for others."""
    place = environment or (server.environment if server else None)
    if not is_own(actor, person):
        require_helpdesk(actor, *([place] if place else []))
    asked = AccessRequest(person=person, environment=environment, server=server, reason=reason, duration=duration)
    asked.networks, asked.hours = list(networks), hours
    asked.asked_by, asked.asker = str(actor), actor if isinstance(actor, User) else None
    with act(Verb.REQUEST_ADD, actor=actor, reason=reason) as this:
        asked.full_clean()
        if not SHORTEST <= duration <= LONGEST:
            raise ValidationError({"duration": "Give a duration from one minute to 366 days."})
        _refuse_kept_out(person)
        _refuse_asked(asked)
        asked.save(force_insert=True)
        this.on(asked, environment=asked.place.name)
    return asked


def approve_request(*, actor: Actor, request: AccessRequest, reason: str = "") -> AccessRequest:
    """The first of two approvals, or the one that grants: from now on, for as long as was asked."""
    require_operator(actor, request.place)
    _check_reason(reason)
    with act(Verb.REQUEST_APPROVE, actor=actor, reason=reason or request.reason) as this:
        asked = _lock(request)
        _refuse_approver(actor, asked)
        _refuse_kept_out(asked.person)
        if asked.place.needs_second and not _stands(asked):
            values: dict[str, Any] = {"first_approved_by": str(actor), "first_approved_at": timezone.now()}
            values["first_approver"] = actor if isinstance(actor, User) else None
            return _write(this, asked, values, "first approval")
        if asked.place.needs_second and asked.first_approver_id == actor.pk:
            raise PermissionDenied(f"{actor} approved this already: another operator has to agree.")
        _grant(actor, asked)
        return _decide(this, asked, AccessRequest.Decision.APPROVED, reason)


def _stands(asked: AccessRequest) -> bool:
    """Whether the first approval counts: who gave it and operates there no more is no second person."""
    first = asked.first_approver
    return asked.first_approved_at is not None and first is not None and may_operate(first, asked.place)


def deny_request(*, actor: Actor, request: AccessRequest, reason: str) -> AccessRequest:
    """One operator is enough, also where another one has approved."""
    require_operator(actor, request.place)
    require_reason(reason, "Say why: who asked will want to know.")
    _check_reason(reason)
    with act(Verb.REQUEST_DENY, actor=actor, reason=reason) as this:
        return _decide(this, _lock(request), AccessRequest.Decision.DENIED, reason)


def cancel_request(*, actor: Actor, request: AccessRequest, reason: str = "") -> AccessRequest:
    """By who asked, by whom it is for, or by an operator there."""
    if not may_cancel(actor, request):
        require_operator(actor, request.place)
    _check_reason(reason)
    with act(Verb.REQUEST_CANCEL, actor=actor, reason=reason) as this:
        return _decide(this, _lock(request), AccessRequest.Decision.CANCELLED, reason)


def is_own(actor: Actor, person: Person) -> bool:
    """Whether the person is the actor, by the sign-in that an administrator linked."""
    return isinstance(actor, User) and actor.is_active and person.user_id == actor.pk


def may_approve(actor: Actor, request: AccessRequest) -> bool:
    """Whether `approve_request` would take it from this actor, as things are."""
    is_first = request.place.needs_second and request.first_approver_id == actor.pk
    is_waiting = request.decided_at is None and not is_first
    return is_waiting and not _is_about(actor, request) and may_operate(actor, request.place)


def may_cancel(actor: Actor, request: AccessRequest) -> bool:
    if is_own(actor, request.person):
        return True
    has_asked = isinstance(actor, User) and request.asker_id == actor.pk
    return may_operate(actor, request.place) or (has_asked and may_help(actor, request.place))


def _is_about(actor: Actor, request: AccessRequest) -> bool:
    return isinstance(actor, User) and actor.pk in {request.asker_id, request.person.user_id}


def _check_reason(reason: str) -> None:
    try:
        AccessRequest._meta.get_field("decision_reason").clean(reason, None)
    except ValidationError as error:
        raise ValidationError({"reason": error.messages}) from None


def _lock(request: AccessRequest) -> AccessRequest:
    """The request as it is, and nobody else decides about it, changes what its environment asks for, or takes its
    person away until the transaction ends. In the order in which others lock: people first."""
    lock_devices([request.person_id])
    list(Environment.objects.select_for_update(no_key=True).filter(pk=request.place.pk).values_list("pk"))
    rows = AccessRequest.objects.select_for_update(of=("self",))
    asked = rows.select_related("person__user", "first_approver", "environment", "server__environment").get(
        pk=request.pk
    )
    if asked.decided_at is not None:
        raise ValidationError(f"This was {asked.decision} by {asked.decided_by} already: look again.", code="taken")
    return asked


def _refuse_approver(actor: Actor, asked: AccessRequest) -> None:
    if _is_about(actor, asked):
        raise PermissionDenied("Nobody approves what they asked for, or what is for themselves: ask another operator.")


def _refuse_kept_out(person: Person) -> None:
    """Locks the person. Who is to be kept out gets nothing that would let them in by another way later."""
    (person,) = who_stay([person])
    if Suspension.objects.filter(person=person, ended_at=None).exists():
        raise ValidationError({"person": f"{person} is suspended: resume them first."})
    if person.user is not None and not person.user.is_active:
        raise ValidationError({"person": f"{person}'s sign-in is disabled: enable it first."})


def _refuse_asked(asked: AccessRequest) -> None:
    places = {"environment": asked.environment, "server": asked.server}
    first = AccessRequest.objects.filter(person=asked.person, decided_at=None, **places).first()
    if first is not None:
        message = f"This was asked for already: request {first.pk} of {first.created_at:%Y-%m-%d %H:%M} waits."
        raise ValidationError({"person": ValidationError(message, code="taken")})


def _grant(actor: Actor, asked: AccessRequest) -> Grant:
    approvers = dict.fromkeys(name for name in (asked.first_approved_by, str(actor)) if name)
    return grant_access(
        actor=actor,
        person=asked.person,
        environment=asked.environment,
        server=asked.server,
        networks=asked.networks,
        hours=asked.hours,
        until=timezone.now() + asked.duration,
        reason=asked.reason,
        request=asked,
        granted_by=" and ".join(approvers)[:254],
    )


def _decide(this: Act, asked: AccessRequest, decision: AccessRequest.Decision, reason: str) -> AccessRequest:
    values = {"decision": decision, "decided_by": str(this.actor), "decided_at": timezone.now()}
    return _write(this, asked, {**values, "decision_reason": reason}, decision)


def _write(this: Act, asked: AccessRequest, values: dict[str, Any], what: str) -> AccessRequest:
    for name, value in values.items():
        setattr(asked, name, value)
    asked.clean_fields()
    asked.save(update_fields=list(values))
    this.on(asked, changes={"decision": ["", what]}, environment=asked.place.name)
    return asked
