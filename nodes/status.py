"""The only writer of ServerStatus, PeerStatus and receipts: what was seen, never what was hoped."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from audit.services import SYSTEM, act, record_alone
from audit.verbs import Verb
from fleet import conditions
from fleet.changes import DRAIN, hint
from fleet.conditions import Type
from fleet.models import Server, ServerStatus
from nodes.chain import Cursor
from nodes.observe import DriftSeen, NodeState, PeerSeen, ReceiptSeen
from nodes.state import Desired
from peers.models import PENDING, Device, Peer, PeerStatus, Receipt, Revocation
from peers.moving import let_moved_in
from peers.selectors import of_line

MAX_BACKOFF = 5.0
MOST_NAMED = 10_000  # peers in one statement, as databases take no more of them at will
LONGEST_GAP = dt.timedelta(days=1)
EXPOSED = (
    "Keys that were revoked since may have passed packets there until it was reached again, each to its own end,"
    " or an hour past it, at the longest."
)


@dataclass(frozen=True)
class Confirmation:
    """What one server answered to one revoke."""

    server_id: int
    state: NodeState
    receipts: Sequence[ReceiptSeen]


def confirm(group: Sequence[Confirmation]) -> int:
    """Writes a group of answers in one transaction. How many receipts became proof."""
    now = timezone.now()
    seen = {(c.server_id, r.public_key): (c, r) for c in group for r in c.receipts}
    with transaction.atomic():
        # First, as whoever writes down a push locks the status before the peers.
        _mark_reachable([c.server_id for c in group], now)
        pending = Receipt.objects.filter(
            PENDING, server__in={c.server_id for c in group}, public_key__in={key for _, key in seen}
        ).select_related("server")
        answered = [
            (row, *seen[row.server_id, row.public_key]) for row in pending if (row.server_id, row.public_key) in seen
        ]
        proven = _write_proof([(row, c.state.generation) for row, c, r in answered if r.is_proof], now)
        for row, answer, receipt in answered:
            if not receipt.is_proof:
                _write_doubt(row, answer.state.generation, receipt)
        _mark_gone(proven, now)
        _record_proof(proven)
    return len(proven)


def _write_proof(found: list[tuple[Receipt, int]], now: dt.datetime) -> list[Receipt]:
    """One statement for each generation, which most servers share: this is on the way of every revocation."""
    by_generation: defaultdict[int, list[Receipt]] = defaultdict(list)
    for row, generation in found:
        row.confirmed_at, row.generation = now, generation
        by_generation[generation].append(row)
    proof = {"is_gone_from_kernel": True, "is_gone_from_disk": True, "is_durable": True, "found": []}
    for generation, rows in by_generation.items():
        same = Receipt.objects.filter(pk__in=[row.pk for row in rows], confirmed_at=None)
        same.update(confirmed_at=now, generation=generation, **proof)
    return [row for row, _ in found]


def _write_doubt(row: Receipt, generation: int, receipt: ReceiptSeen) -> None:
    Receipt.objects.filter(pk=row.pk, confirmed_at=None).update(
        is_gone_from_kernel=receipt.kernel,
        is_gone_from_disk=receipt.disk,
        is_durable=receipt.durable,
        generation=generation,
        found=list(receipt.found),
    )


def _mark_gone(proven: list[Receipt], now: dt.datetime) -> None:
    """One statement for the keys that the same servers confirmed: one key on many, or many keys on one."""
    servers: defaultdict[str, set[int]] = defaultdict(set)
    keys: defaultdict[frozenset[int], list[str]] = defaultdict(list)
    for row in proven:
        servers[row.public_key].add(row.server_id)
    for key, places in servers.items():
        keys[frozenset(places)].append(key)
    for group, held in keys.items():
        gone = Peer.objects.filter(device__public_key__in=held, server__in=group, gone_at=None)
        gone.exclude(ended_at=None).update(gone_at=now)


def _record_proof(proven: list[Receipt]) -> None:
    by_revocation: defaultdict[Revocation, list[Receipt]] = defaultdict(list)
    revocations = Revocation.objects.in_bulk({row.revocation_id for row in proven})
    for row in proven:
        by_revocation[revocations[row.revocation_id]].append(row)
    for revocation, rows in by_revocation.items():
        changes = {
            row.server.name: ["pending", f"gone from kernel and disk at generation {row.generation}"] for row in rows
        }
        with act(Verb.REVOKE_CONFIRMED, actor=SYSTEM) as this:
            this.on(revocation, changes=changes)


def _mark_reachable(server_ids: Iterable[int], now: dt.datetime) -> None:
    """Clears a failure where there was one; most of the time that is none, and nothing is locked or written."""
    found = ServerStatus.objects.filter(server__in=list(server_ids))
    failed = [status.pk for status in found if status.failures or not _holds(status, Type.REACHABLE)]
    if failed:
        for status in found.select_for_update().filter(pk__in=failed).order_by("pk"):
            _set(status, Type.REACHABLE, status=True, reason="Answered", message="", now=now)
            status.failures, status.next_attempt_at = 0, None
            status.save(update_fields=["conditions", "failures", "next_attempt_at"])


def _holds(status: ServerStatus, type: Type) -> bool:
    condition = conditions.read(status.conditions, type)
    return condition is not None and condition.status


def _set(row: ServerStatus, type: Type, *, status: bool, reason: str, message: str, now: dt.datetime) -> None:
    row.conditions = conditions.update(row.conditions, type, status=status, reason=reason, message=message, now=now)


def record_applied(
    desired: Desired, state: NodeState, withheld: Sequence[str], drift: Sequence[DriftSeen], held: str = ""
) -> None:
    """The node took this generation and read it back. What it withheld or still sees as drift stays to be repaired;
    `held` says what waits for a person."""
    now = timezone.now()
    there = {item.public_key for item in drift}
    ending = [removal.peer_id for removal in desired.removals if removal.public_key not in there]
    shut = [removal.peer_id for removal in desired.shut if removal.public_key not in there]
    entered = [pk for key, pk in desired.entering.items() if key not in set(withheld)]
    with transaction.atomic():
        status = _lock(desired.server_id)
        status.observed_epoch, status.observed_generation = desired.epoch, desired.generation
        status.confirmed_epoch, status.confirmed_generation = desired.epoch, desired.generation
        status.observed_digest, status.observed_at = state.digest, now
        status.failures, status.next_attempt_at = 0, None
        status.drift = [asdict(item) for item in drift]
        _set(status, Type.REACHABLE, status=True, reason="Answered", message="", now=now)
        reason, message = _why_not(withheld, drift, held)
        _set(status, Type.IN_SYNC, status=not message, reason=reason, message=message, now=now)
        reason = "Brake" if held else "Pushed"
        _set(status, Type.HELD, status=bool(held), reason=reason, message=held, now=now)
        status.save()
        Peer.objects.filter(pk__in=ending, gone_at=None).update(gone_at=now)
        PeerStatus.objects.filter(peer__in=shut, shut_at=None).update(shut_at=now)
        _mark_let_in(entered, now)
    if ending:
        let_moved_in()


def _mark_let_in(peers: Sequence[uuid.UUID], now: dt.datetime) -> None:
    """The server confirmed a push that had these in it."""
    for start in range(0, len(peers), MOST_NAMED):
        named = PeerStatus.objects.filter(peer__in=peers[start : start + MOST_NAMED])
        named.update(shut_at=None, let_in_at=now)


def record_shut(server_id: int, public_key: str) -> bool:
    """Whether somebody shut there, at the machine, what ended before and may still be in: no brake keeps it in, nor the
    new key that was to follow it."""
    line = of_line(Device.objects.filter(public_key=public_key).values("pk"))
    ended = Peer.objects.filter(line, server=server_id, gone_at=None).exclude(ended_at=None)
    return bool(PeerStatus.objects.filter(peer__in=ended, shut_at=None).update(shut_at=timezone.now()))


def _why_not(withheld: Sequence[str], drift: Sequence[DriftSeen], held: str = "") -> tuple[str, str]:
    """(reason, message) of why it is not as desired; no message where it is."""
    if withheld:
        return "Tombstoned", f"The node refuses {len(withheld)} peer(s) whose keys are tombstoned there."
    if drift:
        kinds = ", ".join(sorted({item.what for item in drift}))
        return "Drifted", f"{len(drift)} difference(s) remain on the server: {kinds}."
    return ("Held", held) if held else ("InSync", "")


def _lock(server_id: int) -> ServerStatus:
    return ServerStatus.objects.select_for_update().get(server=server_id)


def record_failure(server_id: int, *, reason: str, message: str, is_reachable: bool = False) -> None:
    """A condition with reason and time, and when to try again; never later than in five seconds."""
    now = timezone.now()
    with transaction.atomic():
        status = _lock(server_id)
        status.failures += 1
        backoff = min(MAX_BACKOFF, 0.25 * 2 ** min(status.failures, 10))
        status.next_attempt_at = now + dt.timedelta(seconds=backoff)
        type = Type.IN_SYNC if is_reachable else Type.REACHABLE
        was = conditions.read(status.conditions, type)
        _set(status, type, status=False, reason=reason, message=message, now=now)
        status.save(update_fields=["failures", "next_attempt_at", "conditions"])
    if reason == "HostKeyMismatch" and (was is None or was.reason != reason):
        record_alone(Verb.IDENTITY_CHANGED, Server.objects.get(pk=server_id), reason=message)


def record_full(server_id: int, message: str) -> None:
    """A pool is too small for all who wait for an address. What else is wanted there is pushed as ever."""
    with transaction.atomic():
        status = _lock(server_id)
        _set(status, Type.IN_SYNC, status=False, reason="PoolExhausted", message=message, now=timezone.now())
        status.save(update_fields=["conditions"])


def move_journal(server_id: int, kept: Cursor, cursor: Cursor) -> bool:
    """Whether it still stood at `kept`: who reads a journal first writes it down."""
    rows = ServerStatus.objects.filter(server=server_id, journal_seen=kept.seq, journal_hash=kept.hash)
    return bool(rows.update(journal_seen=cursor.seq, journal_hash=cursor.hash))


def record_broken_journal(server: Server, message: str) -> None:
    """Inside the caller's transaction; it stays so until the machine is enrolled again."""
    status = _lock(server.pk)
    found = conditions.read(status.conditions, Type.INTACT)
    if found is None or found.reason != "SetBack":
        _mark_broken(status, "JournalBroken", f"The journal is broken: {message}")
        status.save(update_fields=["conditions"])
    record_alone(Verb.JOURNAL_BROKEN, server, reason=message, environment=server.environment.name)


def _mark_broken(status: ServerStatus, reason: str, message: str) -> None:
    advice = f"{message} Look at the machine, then enrol it again."
    _set(status, Type.INTACT, status=False, reason=reason, message=advice, now=timezone.now())


def record_set_back(server: Server, state: NodeState) -> None:
    """The node holds less than it had confirmed, as an older disk does: it gets all of it again, tombstones too."""
    with transaction.atomic():
        _set_back(_lock(server.pk), server, state)


def _set_back(status: ServerStatus, server: Server, state: NodeState) -> None:
    held, confirmed = (state.epoch, state.generation), (status.confirmed_epoch, status.confirmed_generation)
    if held >= confirmed:
        return
    numbers = "generation {}.{} and had confirmed {}.{}".format(*held, *confirmed)
    message = f"The machine holds {numbers}: it was set back, or lost its state. {EXPOSED}"
    status.observed_epoch, status.observed_generation = held
    status.confirmed_epoch, status.confirmed_generation = held
    status.tombstone_cursor = 0
    _mark_broken(status, "SetBack", message)
    status.save()
    record_alone(Verb.SERVER_SET_BACK, server, reason=message, environment=server.environment.name)
    hint(DRAIN, {server.pk})


def forget_machine(server_id: int, *, is_another: bool) -> None:
    """A machine that was set up anew holds nothing of what was confirmed before; another one has another journal."""
    status = _lock(server_id)
    status.observed_epoch = status.observed_generation = status.tombstone_cursor = 0
    status.confirmed_epoch = status.confirmed_generation = 0
    status.observed_digest = ""
    status.conditions = {name: found for name, found in status.conditions.items() if name != Type.INTACT}
    if is_another:
        status.journal_seen, status.journal_hash = 0, ""
        PeerStatus.objects.filter(peer__server=server_id, peer__gone_at=None).update(let_in_at=None)
    status.save()


def note_digest(server_id: int, digest: str) -> None:
    """What the node holds, where it took nothing."""
    ServerStatus.objects.filter(server=server_id).update(observed_digest=digest)


def record_held(server_id: int, message: str) -> None:
    now = timezone.now()
    with transaction.atomic():
        status = _lock(server_id)
        _set(status, Type.HELD, status=True, reason="Brake", message=message, now=now)
        _set(status, Type.IN_SYNC, status=False, reason="Held", message=message, now=now)
        status.save(update_fields=["conditions"])


def record_observation(
    server_id: int, state: NodeState, seen: Sequence[PeerSeen], drift: Sequence[DriftSeen], version: str
) -> None:
    """What a poll found. Any difference lowers observed_generation, so that the next sweep repairs it."""
    now = timezone.now()
    with transaction.atomic():
        status = _lock(server_id)
        _set_back(status, status.server, state)
        had_drift = bool(status.drift)
        status.observed_at, status.failures, status.next_attempt_at = now, 0, None
        status.drift = [asdict(item) for item in drift]
        status.node_version = version or status.node_version
        _set(status, Type.REACHABLE, status=True, reason="Answered", message="", now=now)
        if drift or _differs(status, state):
            status.observed_generation = min(state.generation, max(status.observed_generation - 1, 0))
            message = _why_not([], drift)[1] if drift else "The server holds another state than it confirmed last."
            _set(status, Type.IN_SYNC, status=False, reason="Drifted", message=message, now=now)
        elif _is_over(status):
            _set(status, Type.IN_SYNC, status=True, reason="InSync", message="", now=now)
        status.save()
    if drift and not had_drift:
        kinds = ", ".join(sorted({item.what for item in drift}))
        record_alone(Verb.DRIFT_SEEN, Server.objects.get(pk=server_id), reason=f"{len(drift)}: {kinds}"[:500])
    record_peers(server_id, seen, now)
    _note_asked(server_id, now)


def _note_asked(server_id: int, now: dt.datetime) -> None:
    """What it said of its peers is written down now; after a day's gap nobody knows whom it heard meanwhile."""
    row = ServerStatus.objects.filter(server=server_id)
    row.filter(Q(peers_seen_at=None) | Q(peers_seen_at__lt=now - LONGEST_GAP)).update(peers_seen_since=now)
    row.update(peers_seen_at=now)


def _differs(status: ServerStatus, state: NodeState) -> bool:
    """Whether the node holds something else than it confirmed last: restored, edited, or revoked at the box."""
    confirmed = (status.observed_epoch, status.observed_generation, status.observed_digest)
    return bool(status.observed_digest) and confirmed != (state.epoch, state.generation, state.digest)


def _is_over(status: ServerStatus) -> bool:
    """Whether a fault that no push will clear has gone: nothing newer is wanted there, or nothing ever pushed."""
    found = conditions.read(status.conditions, Type.IN_SYNC)
    if found is None or found.status or found.reason in {"Tombstoned", "Held", "PoolExhausted"}:
        return False
    settled = Q(is_observe_only=True) | Q(epoch=status.observed_epoch, generation=status.observed_generation)
    return Server.objects.filter(settled, pk=status.server_id).exists()


def record_peers(server_id: int, seen: Sequence[PeerSeen], now: dt.datetime) -> None:
    by_key = {peer.public_key: peer for peer in seen}
    rows = PeerStatus.objects.filter(
        peer__server=server_id, peer__ended_at=None, peer__device__public_key__in=list(by_key)
    ).select_related("peer__device")
    changed = list(rows)
    for row in changed:
        peer = by_key[row.peer.device.public_key]
        row.endpoint, row.observed_at = peer.endpoint, now
        row.transfer_rx, row.transfer_tx = peer.transfer_rx, peer.transfer_tx
        if peer.latest_handshake:
            row.latest_handshake_at = dt.datetime.fromtimestamp(peer.latest_handshake, dt.UTC)
    fields = ["endpoint", "observed_at", "transfer_rx", "transfer_tx", "latest_handshake_at"]
    PeerStatus.objects.bulk_update(changed, fields, batch_size=500)
