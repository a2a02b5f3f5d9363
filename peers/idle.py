"""Peers that nothing was heard of for long: who they are, and their suspension where the environment says so."""

import datetime as dt
from collections import defaultdict
from functools import reduce
from operator import or_
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server
from peers.models import Peer, Suspension
from peers.suspending import suspend
from peers.windows import is_within, merge

RECENT = dt.timedelta(hours=1)
DAY, WEEK = 24 * 3600, 7 * 24 * 3600
SERVERS_AT_ONCE = 5
NEVER = Q(pk__in=[])
SUBJECTS = {"peer": "pk", "device": "device", "person": "device__person"}


def is_idle(now: dt.datetime, among: Q | None = None) -> Q:
    """Live peers that could have shaken hands for as long as their environment waits for it, and did not. Only where
    the server has been asked all that time: a Console that was off makes nobody idle. Two queries."""
    quiet = _quiet(now)
    if quiet is None:
        return NEVER
    rows = Peer.objects.filter(quiet, among or Q(), windows__isnull=False, windows_from__isnull=False)
    columns = ("pk", "windows", "issued_at", "status__latest_handshake_at", "status__let_in_at")
    missed = [
        pk
        for pk, windows, *heard in rows.values_list(*columns)
        if is_within(windows, now) and _missed_one(windows, max(at for at in heard if at), now)
    ]
    return quiet & (Q(windows__isnull=True) | Q(pk__in=missed))


def _quiet(now: dt.datetime) -> Q | None:
    """None where no environment asks for it."""
    places: defaultdict[dt.timedelta, list[int]] = defaultdict(list)
    for pk, after in Environment.objects.exclude(idle_after=None).values_list("pk", "idle_after"):
        assert after is not None  # excluded above
        places[after].append(pk)
    if not places:
        return None
    silent = reduce(or_, (_silent_since(now - after, ids) for after, ids in places.items()))
    is_asked = Q(server__status__peers_seen_at__gt=now - RECENT)
    return Q(silent, is_asked, ended_at=None, waits_for=None, status__shut_at=None)


def _silent_since(cutoff: dt.datetime, environments: list[int]) -> Q:
    kept = Suspension.objects.filter(Q(ended_at=None) | Q(ended_at__gt=cutoff))
    return Q(
        # Whole lists of the few there are: asked row by row, they cost more than all the rest.
        *(~Q(**{f"{path}__in": _targets(kept, name)}) for name, path in SUBJECTS.items()),
        Q(status__latest_handshake_at=None) | Q(status__latest_handshake_at__lte=cutoff),
        Q(status__let_in_at=None) | Q(status__let_in_at__lte=cutoff),
        server__environment__in=environments,
        server__status__peers_seen_since__lte=cutoff,
        issued_at__lte=cutoff,
    )


def _targets(kept: QuerySet[Suspension], name: str) -> QuerySet[Suspension, Any]:
    found: QuerySet[Suspension, Any] = kept.filter(**{f"{name}__isnull": False}).values(name)
    return found


def _missed_one(windows: Any, since: dt.datetime, now: dt.datetime) -> bool:
    """Whether a whole window went by unused, or a day of one: on Monday morning nobody is idle for the weekend. A week
    is like the one before, which is not written down any more."""
    pairs = [(begin, end) for begin, end in windows]
    pairs = merge([*pairs, *((begin - WEEK, end - WEEK) for begin, end in pairs)])
    low, high = since.timestamp(), now.timestamp()
    return any(min(end, high) - max(begin, low) >= min(end - begin, DAY) for begin, end in pairs)


def suspend_idle() -> int:
    """Where environments say so. Each call looks at a few servers, at two hundred of them within ten minutes; several
    peers of one server are one act, which the brake holds until a person has seen it. How many were suspended."""
    now = timezone.now()
    places = Server.objects.filter(environment__suspends_idle=True, is_observe_only=False)
    servers = list(places.exclude(environment__idle_after=None).order_by("pk").values_list("pk", flat=True))
    if not servers:
        return 0
    parts = (len(servers) - 1) // SERVERS_AT_ONCE + 1
    here = Q(server__in=servers[int(now.timestamp()) // 15 % parts :: parts])
    found: defaultdict[int, list[Peer]] = defaultdict(list)
    rows = Peer.objects.filter(is_idle(now, here), here).defer("preshared_key").order_by("pk")
    for peer in rows.select_related("device__person", "server__environment"):
        found[peer.server_id].append(peer)
    return sum(_suspend(peers, now) for peers in found.values())


def _suspend(peers: list[Peer], now: dt.datetime) -> int:
    after = peers[0].server.environment.idle_after
    assert after is not None  # else nothing is idle there
    reason = f"idle: nothing heard since {now - after:%Y-%m-%d %H:%M} UTC ({_days(after)})"
    try:
        return len(suspend(actor=SYSTEM, targets=peers, reason=reason, is_idle=True))
    except ValidationError:
        return 0  # somebody else suspended one of them at this moment: the next round looks again


def _days(time: dt.timedelta) -> str:
    return f"{time.days} day{'' if time.days == 1 else 's'}"
