"""Access windows: `mon-fri 08:00-18:00, sat 22:00-06:00` in a time zone, worked out as intervals in UTC; pure."""

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PART = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? (\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)
MOST_A_DAY = 9  # so that a week of them fits into what a node holds
DAY = dt.timedelta(days=1)
Interval = tuple[int, int]


class BadHours(ValueError):
    """The text says no access windows; the message says how they are written."""


@dataclass(frozen=True)
class Span:
    """On these weekdays (0 is Monday), from and until minutes after midnight; `until` may be on the next day."""

    days: frozenset[int]
    begin: int
    end: int


@cache
def parse_hours(text: str) -> tuple[Span, ...]:
    """The windows of a text; none for an empty one, which stands for always. BadHours with the mend."""
    spans = tuple(_span(part) for part in text.split(", ")) if text else ()
    if any(sum(day in span.days for span in spans) > MOST_A_DAY for day in range(7)):
        raise BadHours(f"A day has {MOST_A_DAY} access windows at most.")
    return spans


def _span(part: str) -> Span:
    found = PART.fullmatch(part)
    if not found or not {found[1], found[2] or found[1]} <= set(DAYS):
        raise BadHours(f"{part!r} is no access window: write them as mon-fri 08:00-18:00, sat 10:00-14:00.")
    begin, end = _minutes(found[3], found[4]), _minutes(found[5], found[6])
    if begin == end or begin == 24 * 60:
        raise BadHours(f"{part!r} has no length: give another end, or 00:00-24:00 for the whole day.")
    first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
    days = {(first + n) % 7 for n in range((last - first) % 7 + 1)}
    return Span(frozenset(days), begin, end if end > begin else end + 24 * 60)


def _minutes(hours: str, minutes: str) -> int:
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > 24 * 60:
        raise BadHours(f"{hours}:{minutes} is no time of a day: use 00:00 to 24:00.")
    return total


def intervals(text: str, zone: str, begin: dt.datetime, end: dt.datetime) -> list[Interval]:
    """The windows between two times as pairs of UTC seconds, rising and apart. Where a clock is put forward or back
    a window begins and ends at what the clock on the wall says."""
    spans, tz = parse_hours(text), ZoneInfo(zone)
    found = (pair for span in spans for pair in _of_span(span, tz, begin, end))
    return merge(cut(found, int(begin.timestamp()), int(end.timestamp())))


def _of_span(span: Span, tz: ZoneInfo, begin: dt.datetime, end: dt.datetime) -> Iterator[Interval]:
    day = begin.astimezone(tz).date() - DAY
    while day <= end.astimezone(tz).date():
        if day.weekday() in span.days:
            yield _at(day, span.begin, tz), _at(day, span.end, tz)
        day += DAY


def _at(day: dt.date, minutes: int, tz: ZoneInfo) -> int:
    day += DAY * (minutes // (24 * 60))
    clock = dt.datetime.combine(day, dt.time(minutes % (24 * 60) // 60, minutes % 60), tz)
    moment, before = int(clock.timestamp()), int(clock.replace(fold=1).timestamp())
    return _leap(tz, before, moment) if before < moment else moment


def _leap(tz: ZoneInfo, low: int, high: int) -> int:
    """When the clock is put forward between two moments: it shows no time that it leaps over."""
    late = dt.datetime.fromtimestamp(high, tz).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if dt.datetime.fromtimestamp(middle, tz).utcoffset() == late:
            high = middle
        else:
            low = middle
    return high


def cut(found: Iterable[Interval], low: int, high: int) -> list[Interval]:
    clipped = ((max(begin, low), min(end, high)) for begin, end in found)
    return [(begin, end) for begin, end in clipped if begin < end]


def merge(found: Iterable[Interval]) -> list[Interval]:
    """Sorted, and those that touch made one."""
    merged: list[Interval] = []
    for begin, end in sorted(found):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    assert all(one[1] < other[0] for one, other in pairwise(merged))
    return merged


def is_within(windows: Iterable[Iterable[int]] | None, at: dt.datetime) -> bool:
    """Whether a peer with these windows is open at a time; without any it always is."""
    moment = at.timestamp()
    return windows is None or any(begin <= moment < end for begin, end in windows)
