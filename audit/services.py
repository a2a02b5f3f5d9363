"""The only writer of Events: `act` wraps a change, and a change that names no target does not commit."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from auditlog.context import disable_auditlog
from auditlog.diff import model_instance_diff
from django.contrib.contenttypes.models import ContentType
from django.db import models, transaction

from audit.context import current_origin, in_act
from audit.models import Event
from audit.verbs import Verb

Changes = Mapping[str, list[str]]


class Actor(Protocol):
    """Who acts: a signed-in User, SYSTEM where the Console itself carries out what was decided before, or somebody
    AtMachine, who has acted already and asks for nothing."""

    @property
    def pk(self) -> object: ...


class System:
    """The Console acting by itself: expiry, receipts, the end of a rest."""

    pk = None

    def __str__(self) -> str:
        return "Console"


SYSTEM = System()


@dataclass(frozen=True)
class AtMachine:
    """Whoever acted at a server itself, by the name that its node gave. No User: no service lets one operate."""

    name: str
    pk = None

    def __str__(self) -> str:
        return self.name


class Unrecorded(Exception):
    """A service ended without saying what it changed; its transaction is rolled back."""


class Act:
    """One act in progress. `on` names its target and what changed there; exactly one Event is written."""

    def __init__(self, verb: Verb, actor: Actor, reason: str) -> None:
        self.id = uuid.uuid4()
        self.verb, self.actor, self.reason = verb, actor, reason
        self.event: Event | None = None

    def on(
        self,
        target: models.Model,
        *,
        before: models.Model | None = None,
        changes: Changes | None = None,
        environment: str = "",
        label: str = "",
    ) -> None:
        """`label` names the target where it stands for more than itself."""
        diff = dict(changes) if changes is not None else model_instance_diff(before, target)
        self.event = _event(self, target, diff or {}, environment, label or str(target))


@contextlib.contextmanager
def act(verb: Verb, *, actor: Actor, reason: str = "") -> Iterator[Act]:
    """A transaction whose change and Event commit together, or not at all."""
    this = Act(verb, actor, reason)
    with transaction.atomic(), disable_auditlog(), in_act(this.id):
        yield this
        if this.event is None:
            raise Unrecorded(f"{verb} named no target")
        this.event.save(force_insert=True)


def cut(text: str, limit: int) -> str:
    """Text that fits a column; what does not is seen to be cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def record_alone(verb: Verb, target: models.Model, *, reason: str = "", environment: str = "") -> None:
    """An Event for something that was seen rather than changed, such as drift."""
    with act(verb, actor=SYSTEM, reason=reason) as this:
        this.on(target, changes={}, environment=environment)


def _event(this: Act, target: models.Model, changes: dict[str, object], environment: str, label: str) -> Event:
    origin = current_origin()
    label = cut(label, 254)
    return Event(
        act=this.id,
        cid=str(this.id),
        verb=this.verb,
        action=_action(this.verb),
        reason=cut(this.reason, 500),
        origin=origin.kind,
        origin_detail=origin.detail[:100],
        remote_addr=origin.remote_addr,
        actor_id=this.actor.pk,
        actor_label=cut(str(this.actor), 254),
        content_type=ContentType.objects.get_for_model(target),
        object_pk=str(target.pk),
        object_id=target.pk if isinstance(target.pk, int) else None,
        object_repr=label,
        target_label=label,
        environment_label=environment[:63],
        changes=changes,
    )


def _action(verb: Verb) -> int:
    created = verb.endswith((".add", ".register", ".give"))
    return int(Event.Action.CREATE if created else Event.Action.UPDATE)
