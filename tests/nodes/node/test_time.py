"""By which time peers expire: never backward by itself, forward only as far as it can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from nodes.script.muster_node import HELD, JUMP, Trust, judge_time

YEAR = 365 * 86400
NOON = 1_800_000_000
HERE = Trust(NOON, 5000, "a")


class Step(NamedTuple):
    """The boot clock went on by `ran` seconds while the wall clock went on by `wall`; across a boot or not."""

    ran: int
    wall: int
    boots: bool = False


@pytest.mark.parametrize(
    ("steps", "passed", "is_held"),
    [
        ([Step(10, 10)], 10, False),
        ([Step(10, -YEAR)], 10, False),
        ([Step(10, -YEAR), Step(100, 100)], 110, False),
        ([Step(10, 10 + JUMP)], 10 + JUMP, False),
        ([Step(10, 11 + JUMP)], 10, True),
        ([Step(10, YEAR)], 10, True),
        ([Step(10, YEAR), Step(HELD - 1, HELD - 1)], 10 + HELD - 1, True),
        ([Step(10, YEAR), Step(HELD, HELD)], YEAR + HELD, False),
        ([Step(10, YEAR), Step(100, 100 - YEAR)], 110, False),
        ([Step(50, 50, boots=True)], 50, False),
        ([Step(50, 86400, boots=True)], 50, True),
        ([Step(50, -86400, boots=True)], 50, False),
        ([Step(10, YEAR), Step(HELD // 2, 1800, boots=True), Step(HELD // 2, 1800, boots=True)], YEAR + 3600, False),
        ([Step(10, YEAR), Step(10, -2 * YEAR), Step(10, YEAR)], 30, False),
        ([Step(5, 5 + 50), Step(5, 5 - 50)], 60, False),
        ([Step(5, 5 + 59)] * 2, 5 + 59 + 5, True),
        ([Step(5, 5 + 20)] * 3, 3 * 25, False),
        ([Step(5, 5 + 59)] * 700, 59 + 3500, True),
        ([Step(5, 5 + 59)] * 723, 59 + 723 * 5, True),
        ([Step(5, 66), Step(3590, 3590 + YEAR), Step(10, 10)], 3605, True),
        ([Step(5, 66), Step(3590, 3590 + YEAR), Step(HELD, HELD)], 66 + 3590 + YEAR + HELD, False),
        ([Step(5, 66), Step(3590, 3590 + 30), Step(10, 10)], 66 + 3590 + 30 + 10, False),
        ([Step(5, 5 + 59), Step(50, 50 + 59, boots=True)], 5 + 59 + 50 + 59, False),
    ],
)
def test_what_time_is_trusted_after_these_steps(steps: list[Step], passed: int, is_held: bool) -> None:
    """F12."""
    trust, wall, boot, boot_id = HERE, NOON, HERE.boot, "a"
    for step in steps:
        wall, boot = wall + step.wall, step.ran if step.boots else boot + step.ran
        boot_id += "b" if step.boots else ""
        trust = judge_time(trust, Trust(wall, boot, boot_id))
    assert (trust.time - NOON, trust.held is not None) == (passed, is_held)
