"""Due servers of a shard: revocations first, to all at once, written down in groups as the answers come."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager

from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from fleet import conditions
from fleet.conditions import Type
from fleet.models import Server
from nodes import journal, observe, status
from nodes.crew import Crew
from nodes.desired import keys_to_kill
from nodes.faults import TransportError
from nodes.lanes import Answer, Lane, collect_groups
from nodes.observe import Nonsense
from nodes.pool import Session
from nodes.reconcile import Outcome, reconcile, record_fault, session_to, told
from nodes.status import Confirmation
from nodes.tombstones import due_tombstones

REVOKE_TIMEOUT = 2.0
# The others wait while one server takes its request in.
SEND_TIMEOUT = 0.5
OBSERVE_TIMEOUT = 10.0
LINGER = 0.05
Kills = list[dict[str, str]]


def of_shard(shard: int) -> QuerySet[Server]:
    ids = [pk for pk in Server.objects.values_list("pk", flat=True) if pk % settings.SHARDS == shard]
    return Server.objects.filter(pk__in=ids).exclude(enrolled_at=None)


def drain_revocations(shard: int, crew: Crew) -> "list[Future[None]]":
    """Sends every pending revocation of the shard to its servers. Returns the jobs of servers without a session."""
    due = {pk: keys for pk, keys in keys_to_kill().items() if pk % settings.SHARDS == shard}
    ours = crew.revoking.take(due)
    sessions = _sessions(ours, crew)
    with _freeing(set(ours), crew) as held:
        silent = _silent(ours - set(sessions))
        jobs = [_open_and_revoke(pk, due[pk], crew) for pk in sorted(ours - set(sessions) - silent)]
        held -= ours - set(sessions) - silent
        _revoke_all(sessions, due, crew, held)
    return jobs


def _sessions(server_ids: set[int], crew: Crew) -> dict[int, Session]:
    """Those that are open to the machine that is the server now: the one that it was before can prove nothing."""
    open_now = {pk: session for pk in server_ids if (session := crew.pool.get(pk)) is not None}
    pinned = dict(Server.objects.filter(pk__in=open_now).values_list("pk", "host_key"))
    return {pk: session for pk, session in open_now.items() if session.connection.host_key == pinned[pk]}


@contextmanager
def _freeing(held: set[int], crew: Crew) -> Iterator[set[int]]:
    """Whatever happens, servers that are still in `held` at the end may be asked by others again."""
    try:
        yield held
    finally:
        for pk in held:
            _free(pk, crew)


def _free(server_id: int, crew: Crew) -> None:
    """A revocation that came while its server was being asked goes out now, not with the next sweep."""
    if crew.revoking.give_back(server_id):
        crew.work(lambda: drain_revocations(server_id % settings.SHARDS, crew))


def _silent(server_ids: set[int]) -> set[int]:
    """Those that did not answer just now: they are tried again after a backoff, which is five seconds at most. One
    that answers, and gets no push for a broken seal or a full pool, is asked at once."""
    rows = Server.objects.filter(pk__in=server_ids, status__next_attempt_at__gt=timezone.now())
    seen = {pk: conditions.read(found, Type.REACHABLE) for pk, found in rows.values_list("pk", "status__conditions")}
    return {pk for pk, reachable in seen.items() if reachable is not None and not reachable.status}


def _revoke_all(sessions: dict[int, Session], due: dict[int, Kills], crew: Crew, held: set[int]) -> None:
    """Sends to all, then collects in the order of arrival; each server is free again once it is written down."""
    asked: dict[Lane, int] = {}
    owner = {session.revoke: pk for pk, session in sessions.items()}
    for lane, pk in owner.items():
        try:
            asked[lane] = lane.send("revoke", progress_timeout=SEND_TIMEOUT, keys=due[pk])
        except TransportError as error:
            _give_up(pk, error, crew)
    # In groups, as a transaction for each would cost more than the answers; a silent server holds up no receipt.
    for group in collect_groups(asked, timeout=REVOKE_TIMEOUT, size=max(1, len(asked) // 2), linger=LINGER):
        answers = {owner[lane]: outcome for lane, outcome in group}
        _write_down(answers, due, crew)
        held -= set(answers)
        for pk in answers:
            _free(pk, crew)


def _write_down(answers: Mapping[int, Answer | TransportError], due: dict[int, Kills], crew: Crew) -> None:
    confirmations = []
    for pk, outcome in answers.items():
        if isinstance(outcome, TransportError):
            _give_up(pk, outcome, crew)
            continue
        found = _confirmation(pk, outcome, due[pk])
        if found is not None:
            confirmations.append(found)
    status.confirm(confirmations)


def _confirmation(server_id: int, answer: Answer, keys: Kills) -> Confirmation | None:
    try:
        seen = observe.receipts(answer.body, {key["public_key"] for key in keys})
        return Confirmation(server_id, observe.node_state(answer.body), seen)
    except Nonsense as error:
        status.record_failure(server_id, reason="Nonsense", message=str(error), is_reachable=True)
        return None


def _give_up(server_id: int, error: TransportError, crew: Crew) -> None:
    """This server stays pending, with the reason on its page; a new connection is tried when it is due."""
    crew.pool.drop(server_id)
    record_fault(server_id, error)


def _open_and_revoke(server_id: int, keys: Kills, crew: Crew) -> "Future[None]":
    def attempt() -> Outcome:
        session = session_to(server_id, crew.pool)
        answer = session.revoke.call("revoke", timeout=REVOKE_TIMEOUT, keys=keys)
        found = _confirmation(server_id, answer, keys)
        status.confirm([found] if found else [])
        return Outcome("revoked")

    def job() -> None:
        try:
            outcome = told(server_id, attempt)
        finally:
            _free(server_id, crew)
        if outcome.result == "revoked":
            _reconcile_soon(server_id, crew)

    return crew.open(job)


def drain(shard: int, crew: Crew) -> "list[Future[None]]":
    """Revocations, then every server of the shard whose desired state is newer than what was observed."""
    jobs = drain_revocations(shard, crew)
    return jobs + [job for pk in due_servers(shard) for job in _reconcile_soon(pk, crew)]


def due_servers(shard: int) -> list[int]:
    behind = Q(status__observed_epoch__lt=F("epoch")) | Q(status__observed_generation__lt=F("generation"))
    ready = Q(status__next_attempt_at=None) | Q(status__next_attempt_at__lte=timezone.now())
    found = of_shard(shard).filter(behind, ready, is_observe_only=False)
    return list(found.values_list("pk", flat=True))


def _reconcile_soon(server_id: int, crew: Crew) -> "list[Future[None]]":
    return _begin(server_id, crew, lambda: reconcile(server_id, crew.pool))


def _begin(server_id: int, crew: Crew, task: Callable[[], object]) -> "list[Future[None]]":
    """The job, unless one on this server waits or runs: that one then looks again at its end. So a server has one
    job at most, and dead ones cannot fill the lane with theirs."""
    if not crew.working.take([server_id]):
        return []
    lane = crew.work if crew.pool.get(server_id) else crew.open
    return [lane(lambda: _end(server_id, crew, task))]


def _end(server_id: int, crew: Crew, task: Callable[[], object]) -> None:
    try:
        task()
    finally:
        is_asked_again = crew.working.give_back(server_id)
    if is_asked_again and server_id in due_servers(server_id % settings.SHARDS):
        _reconcile_soon(server_id, crew)


def poll(shard: int, crew: Crew) -> "list[Future[None]]":
    """Ask every server of the shard what it holds, and hand it tombstones that it has not had."""
    return [job for pk in of_shard(shard).values_list("pk", flat=True) for job in _poll_soon(pk, crew)]


def _poll_soon(server_id: int, crew: Crew) -> "list[Future[None]]":
    return _begin(server_id, crew, lambda: told(server_id, lambda: _observe(server_id, crew)))


def _observe(server_id: int, crew: Crew) -> Outcome:
    session = session_to(server_id, crew.pool)
    try:
        return _look(server_id, session, crew)
    except TransportError:
        crew.pool.drop(server_id)
        raise


def _look(server_id: int, session: Session, crew: Crew) -> Outcome:
    _hand_over_tombstones(server_id, session, crew)
    _tell_time(server_id, session)
    answer = session.ask("observe", timeout=OBSERVE_TIMEOUT, full=False)
    seen = observe.peers(answer.body, 100_000)
    state = observe.node_state(answer.body)
    status.record_observation(server_id, state, seen, observe.drift(answer.body), observe.node_version(session.about))
    if state.journal != journal.head_seen(server_id):
        journal.catch_up(server_id, session)
    return Outcome("observed", f"{len(seen)} peers changed")


def _tell_time(server_id: int, session: Session) -> None:
    """A node whose clock jumped waits for this; one that is only looked at takes no word of ours."""
    if not Server.objects.get(pk=server_id).is_observe_only:
        session.ask("time", timeout=OBSERVE_TIMEOUT, now=int(time.time()))


def _hand_over_tombstones(server_id: int, session: Session, crew: Crew) -> None:
    """Keys that this server never held: it must refuse them too, so that no import or restore brings one in."""
    due = due_tombstones(server_id)
    if not due.keys:
        return
    with _freeing(crew.revoking.take([server_id]), crew) as held:
        if held:
            answer = session.revoke.call("revoke", timeout=REVOKE_TIMEOUT, keys=due.keys)
            receipts = observe.receipts(answer.body, {key["public_key"] for key in due.keys})
            if all(receipt.durable for receipt in receipts):
                due.was_taken(server_id)


def finish(jobs: "Sequence[Future[None]]") -> None:
    """Waits for jobs; for the command line and tests, which want to see the end."""
    wait(jobs)
    for job in jobs:
        job.result()
