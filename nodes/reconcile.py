"""One reconcile for button, drain, sweep and command line: read desired, check the brake, push, write down."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fleet.changes import outgrow
from fleet.models import Server, ServerStatus
from fleet.sealing import SealBroken
from nodes import brake, journal, observe, render, status
from nodes.desired import desired_state
from nodes.faults import NodeRefused, TransportError
from nodes.lanes import Answer
from nodes.lease import lease
from nodes.models import Run
from nodes.observe import NodeState, Nonsense
from nodes.pool import Base, Session, SessionPool
from nodes.state import Desired, Plan, Seen
from nodes.targets import NotReady, target_of
from nodes.tombstones import Batch, due_tombstones

DELTA_TIMEOUT = 2.0
WHOLE_TIMEOUT = 12.0
CHANGES = ("added", "removed", "updated")
NO_PLAN = Plan()
AGAIN = "again"


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended; `result` is a value of Run.Outcome, "busy" where another has the server, "watched",
    or "again" where its journal had to be read first, or it took something else at this generation."""

    result: str
    detail: str = ""
    plan: Plan = NO_PLAN


def reconcile(server_id: int, pool: SessionPool) -> Outcome:
    """Bring one server to what is desired now. Faults become conditions on the server; nothing is raised for them."""
    with lease(server_id) as is_ours:
        if not is_ours:
            return Outcome("busy", "another worker has this server")
        outcome = _attempt(server_id, pool)
        # What was in the journal before this session, and what came into it under the push.
        for _ in range(2):
            outcome = _attempt(server_id, pool) if outcome.result == AGAIN else outcome
    return outcome


def _attempt(server_id: int, pool: SessionPool) -> Outcome:
    began = time.monotonic()
    try:
        desired = desired_state(server_id)
    except SealBroken as error:
        return record_fault(server_id, error)
    if desired.is_observe_only:
        return Outcome("watched", "the Console looks at this server and changes nothing there")
    outcome = told(server_id, lambda: _push(desired, pool))
    if outcome.result != AGAIN:
        _write_run(desired, outcome, time.monotonic() - began)
    return outcome


def session_to(server_id: int, pool: SessionPool) -> Session:
    """One that is opened for this has told, first of all, whether the machine was set back."""
    is_open = pool.get(server_id) is not None
    server = Server.objects.select_related("bastion", "status", "environment").get(pk=server_id)
    session = pool.open(server.pk, target_of(server), server.interface)
    state, seen = observe.node_state(session.about), server.status
    if not is_open and (state.epoch, state.generation) < (seen.confirmed_epoch, seen.confirmed_generation):
        status.record_set_back(server, state)
    return session


def told(server_id: int, attempt: Callable[[], Outcome]) -> Outcome:
    """What goes wrong in an attempt becomes a condition on the server."""
    try:
        return attempt()
    except (TransportError, NotReady, SealBroken, Nonsense) as error:
        return record_fault(server_id, error)


def record_fault(server_id: int, error: Exception) -> Outcome:
    """The one place that says which condition a fault is: a node that refused was reached."""
    reason = error.code if isinstance(error, NodeRefused) else type(error).__name__
    is_reachable = isinstance(error, NodeRefused) or not isinstance(error, TransportError)
    status.record_failure(server_id, reason=reason, message=str(error), is_reachable=is_reachable)
    return Outcome(Run.Outcome.FAILED, str(error))


def _push(desired: Desired, pool: SessionPool) -> Outcome:
    desired, held = brake.check(desired)
    if held:
        status.record_held(desired.server_id, held)
    session = session_to(desired.server_id, pool)
    try:
        if _is_behind(desired, session) and journal.catch_up(desired.server_id, session):
            return Outcome(AGAIN)
        answer = _apply(desired, session)
    except NodeRefused as error:
        if error.code == "brake":
            return _held_by_node(desired, error)
        if error.code == "conflict" and journal.catch_up(desired.server_id, session):
            return Outcome(AGAIN)
        if error.code == "stale" and _is_outgrown(desired, error):
            return Outcome(AGAIN)
        raise
    except TransportError:
        pool.drop(desired.server_id)
        raise
    return _applied(desired, session, answer, held)


def _is_outgrown(desired: Desired, error: NodeRefused) -> bool:
    """Whether the node took another content at this very generation, as where the brake weighs otherwise now: what is
    wanted gets a generation of its own."""
    state = observe.node_state(error.body)
    is_same = (state.epoch, state.generation) == (desired.epoch, desired.generation)
    if is_same:
        outgrow(desired.server_id, desired.generation)
    return is_same


def _is_behind(desired: Desired, session: Session) -> bool:
    """Before a session's first push: whether its journal goes on, or was set back, behind what was read of it."""
    return not session.has_caught_up and observe.node_state(session.about).journal != desired.journal_seen


def _apply(desired: Desired, session: Session) -> Answer:
    """A delta where we know what the node holds; the whole where we do not, where it holds something else, or where
    the interface is to be another one."""
    tombstones = due_tombstones(desired.server_id)
    envelope = _envelope(desired, tombstones)
    answer = _send(desired, session, envelope)
    tombstones.was_taken(desired.server_id)
    return answer


def _send(desired: Desired, session: Session, envelope: dict[str, object]) -> Answer:
    base = session.base
    if base is not None and base.interface == desired.content.interface:
        try:
            body = render.delta(desired.content, base.digest, base.lines)
            return session.ask("apply", timeout=DELTA_TIMEOUT, **envelope, **body)
        except NodeRefused as error:
            if error.code != "base":
                raise
            session.base = None
    return session.ask("apply", timeout=WHOLE_TIMEOUT, **envelope, **render.whole(desired.content))


def _envelope(desired: Desired, tombstones: Batch) -> dict[str, object]:
    """Removals that reach this point were decided or approved, or are few: the node is told their keys, so that its
    brake, which knows neither people nor causes, lets these and no others pass. What we never saw let in it judges."""
    going = (*desired.removals, *desired.shut)
    told = {one.public_key for one in going if one.is_decided or one.stays or one.seen is Seen.OUT}
    return {
        "epoch": desired.epoch,
        "generation": desired.generation,
        "digest": render.digest(desired.content),
        "tombstones": tombstones.keys,
        "decided": sorted(told - set(desired.content.peers)),
        "approved": _is_approved_by_hand(desired),
        "journal_seen": desired.journal_seen,
    }


def _is_approved_by_hand(desired: Desired) -> bool:
    """Whether somebody approved that peers of no recorded cause go, given what the node held when it was asked."""
    seen = ServerStatus.objects.values_list("observed_digest", flat=True).get(server=desired.server_id)
    return bool(brake.approved_acts({brake.unrecorded_act(desired.server_id, seen)}))


def _held_by_node(desired: Desired, error: NodeRefused) -> Outcome:
    state = observe.node_state(error.body)
    removals = observe.number(error.body, "removals", 1_000_000)
    held = observe.number(observe.mapping(error.body["state"]), "peers", 1_000_000)
    status.note_digest(desired.server_id, state.digest)
    message = brake.hold_unrecorded(desired.server_id, state.digest, removals, held)
    status.record_held(desired.server_id, message)
    return Outcome(Run.Outcome.HELD, message)


def _applied(desired: Desired, session: Session, answer: Answer, held: str) -> Outcome:
    state = observe.node_state(answer.body)
    result = _checked_result(desired, state, answer)
    withheld = [observe.text(key, 44) for key in observe.rows(answer.body, "withheld", 100_000)]
    drift = observe.drift(answer.body)
    is_exact = state.digest == render.digest(desired.content)
    content = desired.content
    session.base = Base(state.digest, render.fingerprints(content), content.interface) if is_exact else None
    status.record_applied(desired, state, withheld, drift, held)
    brake.forget(desired.server_id, {one.act for one in desired.held})
    changed = observe.mapping(answer.body.get("changed", {}))
    detail = ", ".join(f"{name} {observe.number(changed, name)}" for name in CHANGES if name in changed)
    return Outcome(Run.Outcome.HELD, "; ".join(filter(None, (detail, held)))) if held else Outcome(result, detail)


def _checked_result(desired: Desired, state: NodeState, answer: Answer) -> str:
    """A node that took a push holds it, or a newer one of ours; whatever else it says is not believed."""
    newest = Server.objects.values_list("epoch", "generation").get(pk=desired.server_id)
    if not (desired.epoch, desired.generation) <= (state.epoch, state.generation) <= newest:
        raise Nonsense(f"the node says it took generation {desired.generation} and holds {state.generation}")
    result = observe.text(answer.body.get("result"), 8)
    if result not in {Run.Outcome.APPLIED, Run.Outcome.ALREADY}:
        raise Nonsense("the node does not say what came of the push")
    return result


def _write_run(desired: Desired, outcome: Outcome, seconds: float) -> None:
    Run.objects.create(
        server_id=desired.server_id,
        epoch=desired.epoch,
        generation=desired.generation,
        outcome=outcome.result,
        detail=outcome.detail[:500],
        seconds=round(seconds, 4),
    )


def plan(server_id: int, pool: SessionPool) -> Outcome:
    """The dry run: the node says what this push would change, and changes nothing."""
    desired, braked = brake.preview(desired_state(server_id))
    session = session_to(server_id, pool)
    body = {**_envelope(desired, Batch([], 0)), **render.whole(desired.content), "dry_run": True}
    answer = session.ask("apply", timeout=WHOLE_TIMEOUT, **body)
    would = observe.mapping(answer.body.get("would"))
    lists = {name: observe.rows(would, name, 1_000_000) for name in ("add", "remove", "update")}
    found = Plan(**{name: tuple(observe.text(key, 44) for key in keys) for name, keys in lists.items()})
    counted = observe.number(answer.body, "removals", 1_000_000)
    held = observe.number(observe.mapping(answer.body.get("state")), "peers", 1_000_000)
    told = filter(None, (braked, brake.preview_unrecorded(counted, held)))
    return Outcome("planned", "; ".join(told), found)
