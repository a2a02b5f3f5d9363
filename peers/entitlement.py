"""Which Devices belong on which Servers, and on what terms. `wanted_peers` is the one place that says so; pure."""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from peers.windows import Interval, cut, intervals, merge

# A node holds windows for three weeks from Monday on, so that they change once a week and last a fortnight alone.
WINDOWS_AHEAD = dt.timedelta(weeks=3)
MOST_WINDOWS = 64
Spot = tuple[int, int]  # (device, server)


@dataclass(frozen=True)
class Right:
    """What one grant gives one person: networks (none means everything), access windows (none means always) in a
    time zone, until when, and the named pool to be addressed from."""

    networks: tuple[str, ...] = ()
    until: dt.datetime | None = None
    hours: str = ""
    zone: str = "UTC"
    pool: str = ""


@dataclass(frozen=True)
class Terms:
    """What one peer may carry and until when; no networks means everything, no end means none. `windows` are pairs of
    UTC seconds, worked out from the Monday `windows_from` on; None for always."""

    networks: tuple[str, ...]
    expires_at: dt.datetime | None
    windows: tuple[Interval, ...] | None = None
    windows_from: dt.datetime | None = None
    pool: str = ""


def wanted_peers(
    devices: Iterable[Spot], rights: Mapping[int, Mapping[int, Collection[Right]]], now: dt.datetime
) -> dict[Spot, Terms]:
    """(device, server) -> Terms, of live (device, person) pairs and each person's rights by server."""
    merged = cache(lambda held: merge_terms(held, now))
    return {
        (device, server): merged(tuple(held))
        for device, person in devices
        for server, held in rights.get(person, {}).items()
    }


def merge_terms(held: Sequence[Right], now: dt.datetime) -> Terms:
    """The widest of several rights to one place: every network, the latest end, all windows."""
    unlimited = any(not right.networks for right in held)
    networks = set() if unlimited else {network for right in held for network in right.networks}
    latest = _latest(held)
    pool = next((right.pool for right in held if right.pool), "")
    always = [right for right in held if not right.hours]
    terms = Terms(tuple(sorted(networks)), latest, pool=pool)
    if always and _latest(always) == latest:
        return terms
    begin = monday(now)
    return Terms(terms.networks, latest, _windows(held, begin), begin, pool)


def _latest(held: Sequence[Right]) -> dt.datetime | None:
    ends = [right.until for right in held]
    return None if None in ends else max(end for end in ends if end)


def _windows(held: Sequence[Right], begin: dt.datetime) -> tuple[Interval, ...]:
    found: list[Interval] = []
    for right in held:
        end = min(right.until or begin + WINDOWS_AHEAD, begin + WINDOWS_AHEAD)
        span = int(begin.timestamp()), int(end.timestamp())
        found += intervals(right.hours, right.zone, begin, end) if right.hours else cut([span], *span)
    return tuple(merge(found)[:MOST_WINDOWS])


def monday(now: dt.datetime) -> dt.datetime:
    """The start of the week in UTC."""
    day = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - dt.timedelta(days=day.weekday())
