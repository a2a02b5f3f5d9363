"""What was done at a server without the Console: read, checked and merged before anything is pushed there."""

import datetime as dt

from django.db import transaction

from audit.context import acting_from
from audit.services import AtMachine, act
from audit.verbs import Verb
from fleet.changes import mark_changed
from fleet.models import Server, ServerStatus
from nodes import chain, observe, status
from nodes.chain import Cursor
from nodes.observe import Entry, Nonsense
from nodes.pool import Session
from nodes.reviews import hand_on_reviews, open_review
from peers.revocation import is_replaced, spread_revocation

TIMEOUT = 5.0
# Requests of one attempt: a node that invents entries without end costs this much, and its push waits.
BATCHES = 4
SET_BACK = "it ends at entry {head}, and entry {seq} was read: the machine was set back, or lost its journal."
UNREAD = "its journal goes to entry {head} and was read up to entry {seq}; the next attempt reads on"


class Overtaken(Exception):
    """Somebody else reads the same journal."""


def catch_up(server_id: int, session: Session) -> bool:
    """Reads what nobody has read yet, to its end. Whether there was anything: what is wanted may be another now."""
    try:
        return _read(server_id, session)
    except Overtaken:
        return True


def head_seen(server_id: int) -> int:
    return ServerStatus.objects.values_list("journal_seen", flat=True).get(server=server_id)


def _read(server_id: int, session: Session) -> bool:
    server = Server.objects.select_related("environment", "status").get(pk=server_id)
    began = cursor = Cursor(server.status.journal_seen, server.status.journal_hash)
    for _ in range(BATCHES):
        body = session.ask("journal", timeout=TIMEOUT, after=cursor.seq).body
        head, entries = observe.node_state(body).journal, observe.journal(body)
        if head < cursor.seq:
            cursor = _start_over(server, cursor, head)
            continue
        for entry in entries:
            cursor = _take(server, cursor, entry)
        if head <= cursor.seq:
            session.has_caught_up = True
            return cursor != began
    raise Nonsense(UNREAD.format(head=head, seq=cursor.seq))


def _start_over(server: Server, kept: Cursor, head: int) -> Cursor:
    """All that the node has is read again: nobody knows which of it is new, and what it revoked must win."""
    with transaction.atomic():
        _move(server, kept, Cursor())
        status.record_broken_journal(server, SET_BACK.format(head=head, seq=kept.seq))
    return Cursor()


def _take(server: Server, kept: Cursor, entry: Entry) -> Cursor:
    """One entry and the cursor, in one transaction: so keys, devices and servers are locked in the order of all."""
    cursor, trouble = chain.after(kept, entry), chain.fault(kept, entry)
    with transaction.atomic():
        _move(server, kept, cursor)
        if trouble:
            status.record_broken_journal(server, trouble)
        with acting_from("node", server.name):
            _merge(server, entry)
    return cursor


def _move(server: Server, kept: Cursor, cursor: Cursor) -> None:
    if not status.move_journal(server.pk, kept, cursor):
        raise Overtaken


def _merge(server: Server, entry: Entry) -> None:
    """Exactly one Event, by whom the node names."""
    actor, key = AtMachine(entry.by.strip() or "node"), entry.public_key
    reason = entry.detail.strip() or f"{entry.what} at {server.name}"
    is_dead = entry.what == "revoked" or (entry.what == "rotated" and is_replaced(key))
    if key and is_dead and spread_revocation(actor=actor, server=server, public_key=key, reason=reason):
        hand_on_reviews(actor)
        return
    if key and entry.what == "suspended" and open_review(actor=actor, server=server, entry=entry, reason=reason):
        return
    if key and entry.what == "suspended" and status.record_shut(server.pk, key):
        mark_changed([server.pk])
    at = dt.datetime.fromtimestamp(entry.at, dt.UTC)
    with act(Verb.JOURNAL_ENTRY, actor=actor, reason=reason) as this:
        changes = {"what": ["", entry.what], "public_key": ["", key or ""], "at": ["", f"{at:%Y-%m-%d %H:%M:%S} UTC"]}
        this.on(server, changes=changes, environment=server.environment.name)
