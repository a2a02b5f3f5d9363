"""SIGKILL at every step of a revoke, of an apply and of a tick: the old or the new, never between.

What judges is in world.py, what kills in killer.py, ticks.py and failpoints.py; both run inside the machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.nodes.node.machine import Machine

ROOT = Path(__file__).resolve().parents[3]
REQUESTS = ("revoke", "whole", "delta")
STEPS = ("fsync tombstones", "fsync state", "rename state", "kernel", "read-back", "answer")
TICKED = ("fsync clock", "rename clock", "fsync tombstones", "fsync journal", "fsync seen", "rename wg0.seen")
# The longest first, as two machines share them.
JOBS = [
    *((f"points {request} 25") for request in ("whole", "delta", "revoke")),
    "ticks daemon 13",
    "calls whole 1",
    *((f"random {request} 25") for request in REQUESTS),
    "random-ticks daemon 25",
    "calls revoke 1",
]
Kills = Callable[[str], dict[str, int]]


def kill(job: str) -> dict[str, int]:
    """How often the node was killed, by point; every one of them was judged."""
    machine = Machine()
    try:
        machine.make_interface()
        words = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.nodes.node.killer", *job.split())
        told = json.loads(machine.run(*words, seconds=280))
    finally:
        machine.end()
    print(job, sum(told["kills"].values()), "kills in", told["seconds"], "s:", told["kills"])
    found: dict[str, int] = told["kills"]
    return found


@pytest.fixture(scope="module")
def kills() -> Iterator[Kills]:
    """Two machines do all of it, side by side; each test waits for its part."""
    with ThreadPoolExecutor(2) as pool:
        jobs: dict[str, Future[dict[str, int]]] = {job: pool.submit(kill, job) for job in JOBS}
        yield lambda job: jobs[job].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("request_", ("whole", "delta", "revoke"))
def test_killed_25_times_before_and_after_each_step_it_is_at_the_old_or_the_new(kills: Kills, request_: str) -> None:
    """E1, F2: tombstones are in force; a boot, a tick, the same again or a newer push bring it to its end."""
    found = kills(f"points {request_} 25")
    assert [found[f"{side} {step}"] for step in STEPS for side in ("before", "after")] == [25] * 12
    # The other steps three times each; of a delta and a whole they are the same.
    assert set(found.values()) <= {25, 3}


def test_the_daemon_killed_at_each_step_of_a_tick_lets_nothing_come_back(kills: Kills) -> None:
    """E1: over a new interface, lost tombstones, a waiting journal, peers put in and taken out by hand."""
    found = kills("ticks daemon 13")
    steps = (*TICKED, "kernel", "read-back")
    assert found == {f"{side} {step}": 13 for step in steps for side in ("before", "after")}


@pytest.mark.parametrize("request_", ("whole", "revoke"))
def test_killed_at_any_system_call_that_makes_something_last_it_is_at_the_old_or_the_new(
    kills: Kills, request_: str
) -> None:
    """E1, F2: the program as it is installed, once at each call."""
    found = kills(f"calls {request_} 1")
    assert {"fsync", "rename", "link", "unlink", "vfork", "wait4", "write"} <= {call for call in found if found[call]}
    assert sum(found.values()) >= 12


@pytest.mark.parametrize("request_", REQUESTS)
def test_killed_at_any_moment_it_is_at_the_old_or_the_new(kills: Kills, request_: str) -> None:
    """E1, F2: the program as it is installed."""
    found = kills(f"random {request_} 25")
    assert found["before"] >= 5, found
    assert sum(found.values()) == 26


def test_the_daemon_killed_at_any_moment_of_a_tick_lets_nothing_come_back(kills: Kills) -> None:
    """E1."""
    assert kills("random-ticks daemon 25") == {"daemon": 25}
