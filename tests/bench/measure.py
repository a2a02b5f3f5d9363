"""Trials on a noisy machine: wait until it is idle, repeat, quote medians."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.waiting import wait_for

Figures = dict[str, float]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cpu_times() -> tuple[int, int]:
    """(all, idle) jiffies of the machine since boot."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]


def idle_share(seconds: float = 0.4) -> float:
    """The share of both cores that was idle over the next moment."""
    all_before, idle_before = cpu_times()
    time.sleep(seconds)
    all_after, idle_after = cpu_times()
    return (idle_after - idle_before) / max(1, all_after - all_before)


def settle_down(share: float = 0.85) -> None:
    """Wait until the machine is as good as idle; a trial on a busy one measures the neighbours."""
    wait_for(lambda: idle_share() >= share, 120, f"{share:.0%} of the machine to be idle")


def trials(count: int, one: Callable[[], float]) -> float:
    """The median of `count` trials in seconds, each begun on an idle machine."""
    found = []
    for _ in range(count):
        settle_down()
        found.append(one())
    return statistics.median(found)


def seconds(job: Callable[[], object]) -> float:
    began = time.monotonic()
    job()
    return time.monotonic() - began


def rests(cpu: Callable[[], float], seconds: float = 0.3) -> bool:
    """Whether what `cpu` counts stands still over the next moment."""
    before = cpu()
    time.sleep(seconds)
    return cpu() == before
