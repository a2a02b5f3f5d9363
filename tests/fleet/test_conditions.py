"""A condition remembers since when it holds, not how often it was seen."""

import datetime as dt

from fleet import conditions
from fleet.conditions import Condition, Type

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def seen(old: dict[str, object], minute: int, *, status: bool, reason: str) -> dict[str, object]:
    now = NOON + dt.timedelta(minutes=minute)
    return conditions.update(old, Type.REACHABLE, status=status, reason=reason, message=reason * 400, now=now)


def test_the_time_changes_with_the_status_and_the_reason_without_it() -> None:
    first = seen({}, 0, status=False, reason="NodeSilent")
    second = seen(first, 5, status=False, reason="Unreachable")
    third = seen(second, 9, status=True, reason="Answered")
    found = [conditions.read(rows, Type.REACHABLE) for rows in (first, second, third)]
    assert [(c.reason, c.since) for c in found if c] == [
        ("NodeSilent", NOON),
        ("Unreachable", NOON),
        ("Answered", NOON + dt.timedelta(minutes=9)),
    ]
    assert [len(c.message) for c in found if c] == [500, 500, 500]
    assert conditions.read(third, Type.HELD) is None


def test_one_condition_leaves_the_others_alone() -> None:
    both = conditions.update(
        seen({}, 0, status=True, reason="Answered"), Type.HELD, status=True, reason="Brake", message="m", now=NOON
    )
    assert conditions.read(both, Type.HELD) == Condition(Type.HELD, True, "Brake", "m", NOON.isoformat())
    assert set(both) == {"Reachable", "Held"}
