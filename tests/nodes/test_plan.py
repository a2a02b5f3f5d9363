"""How much one push may take away before a person is asked."""

import uuid
from collections import Counter
from dataclasses import replace

import pytest

from nodes.plan import brake_limit, hold_in, is_braked, undecided
from nodes.state import Content, Desired, InterfaceState, PeerState, Removal

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


def stands(key: str, replaces: str | None = None) -> PeerState:
    return PeerState(key, None, ("10.1.0.7/32",), None, replaces)


def removals(act: uuid.UUID, count: int, *, is_decided: bool = False) -> list[Removal]:
    """What was decided does not stay."""
    keys = [f"key {number}" for number in range(count)]
    return [Removal(uuid.uuid4(), key, act, is_decided, stays=None if is_decided else stands(key)) for key in keys]


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


WANTED = {"new": stands("new")}


def desired(removals: list[Removal], shut: list[Removal]) -> Desired:
    interface = InterfaceState(("10.1.0.1/16",), 51820, 1420, "none")
    return Desired(1, 1, 7, Content(interface, WANTED), tuple(removals), tuple(shut))


def test_what_is_held_is_put_back_and_is_going_no_more() -> None:
    of_a, of_b = removals(A, 2), [replace(one, public_key="other") for one in removals(B, 1)]
    case = replace(of_a[0], peer_id=uuid.uuid4(), public_key="case", is_decided=True, stays=None)
    held = hold_in(desired([*of_a, case], of_b), {A})
    assert (held.removals, held.shut, held.held) == ((case,), tuple(of_b), tuple(of_a))
    assert held.content.peers == {**WANTED, "key 0": stands("key 0"), "key 1": stands("key 1")}
    assert (held.epoch, held.generation, held.content.interface) == (1, 7, desired([], []).content.interface)


def test_a_new_key_waits_behind_the_old_one_that_is_held() -> None:
    [old] = removals(A, 1)
    held = hold_in(desired([replace(old, heir="new")], []), {A})
    assert held.content.peers == {"key 0": stands("key 0"), "new": stands("new", replaces="key 0")}
    assert hold_in(desired([replace(old, heir="new")], []), {B}).content.peers == WANTED
    assert hold_in(desired([replace(old, heir="key 0")], []), {A}).content.peers == {**WANTED, "key 0": stands("key 0")}
