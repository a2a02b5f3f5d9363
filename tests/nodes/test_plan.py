"""How much one push may take away before a person is asked."""

import uuid
from collections import Counter

import pytest

from nodes.plan import brake_limit, is_braked, undecided
from nodes.state import Removal

A, B = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.mark.parametrize(
    ("held", "limit"), [(0, 5), (1, 5), (50, 5), (59, 5), (60, 6), (100, 10), (109, 10), (200, 20), (10_000, 1000)]
)
def test_the_limit_is_five_or_a_tenth(held: int, limit: int) -> None:
    assert brake_limit(held) == limit
    assert [is_braked(Counter({A: n}), held) for n in (limit, limit + 1)] == [False, True]


def test_causes_are_weighed_together() -> None:
    assert not is_braked(Counter({A: 3, B: 2}), 50)
    assert is_braked(Counter({A: 3, B: 3}), 50)


def removals(act: uuid.UUID, count: int, *, is_decided: bool = False) -> list[Removal]:
    return [Removal(uuid.uuid4(), f"key {number}", act, is_decided) for number in range(count)]


@pytest.mark.parametrize(
    ("found", "approved", "counted"),
    [
        ([], set(), {}),
        (removals(A, 12), set(), {A: 12}),
        (removals(A, 12, is_decided=True), set(), {}),
        (removals(A, 12) + removals(B, 7), {A}, {B: 7}),
        (removals(A, 12) + removals(A, 3, is_decided=True), {B}, {A: 12}),
    ],
)
def test_decided_and_approved_removals_do_not_count(
    found: list[Removal], approved: set[uuid.UUID], counted: dict[uuid.UUID, int]
) -> None:
    assert undecided(found, approved) == Counter(counted)
