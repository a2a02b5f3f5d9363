"""Where a node can be killed: the calls at which a step becomes lasting or leaves for somebody else.

At a named point the node is a fork of this process: the script, the disk and the kernel are the real ones, and
SIGKILL comes from within, right before or right after one call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from nodes.script import muster_node as node

Met = Callable[[str, bool], None]
NAMES = {"wg0.seen.new": "seen"} | {f"{name}.new": name for name in ("tombstones", "state", "clock", "journal")}


class Point(NamedTuple):
    """Before or after the call that is this step's `number`th."""

    step: str
    number: int
    is_after: bool


def name_of_fsync(descriptor: int) -> str:
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    name = path.rpartition("/")[2]
    return f"fsync {NAMES.get(name, name if os.path.isfile(path) else 'folder')}"


def name_of_run(argv: list[str], *_rest: Any, **_ways: Any) -> str:
    if argv[0] == "wg":
        return "read-back" if argv[1] == "show" else "kernel"
    return argv[0]


class Wrapped:
    """The calls at which a step becomes lasting, or leaves for another program or for the Console."""

    def __init__(self, met: Met) -> None:
        self.met = met

    def install(self) -> None:
        os.fsync = self.around(os.fsync, name_of_fsync)
        os.replace = self.around(os.replace, lambda _, to: "rename " + to.rpartition("/")[2])
        node.run = self.around(node.run, name_of_run)
        node.send = self.around(node.send, lambda _: "answer")

    def around(self, call: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def wrapped(*words: Any, **ways: Any) -> Any:
            step = name(*words, **ways)
            self.met(step, False)
            value = call(*words, **ways)
            self.met(step, True)
            return value

        return wrapped


def killed_at(point: Point) -> Met:
    counts: Counter[tuple[str, bool]] = Counter()

    def met(step: str, is_after: bool) -> None:
        counts[step, is_after] += 1
        if counts[step, is_after] == point.number and (step, is_after) == (point.step, point.is_after):
            os.kill(os.getpid(), signal.SIGKILL)

    return met


def in_a_fork(work: Callable[[], object], met: Met) -> int:
    """Runs it in a process of its own that tells of its steps: the signal that ended it, 0 for none."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        live(work, met)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live(work: Callable[[], object], met: Met) -> NoReturn:
    code = 1
    try:
        nothing = os.open("/dev/null", os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        Wrapped(met).install()
        work()
        code = 0
    finally:
        os._exit(code)


def steps_of(work: Callable[[], object], into: Path) -> Counter[str]:
    """The steps of one run that nobody kills, and how often each comes."""

    def met(step: str, is_after: bool) -> None:
        with into.open("a") as file:
            file.write("" if is_after else step + "\n")

    into.unlink(missing_ok=True)
    assert in_a_fork(work, met) == 0
    return Counter(into.read_text().splitlines())


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """A failure says at which kill it came."""
    try:
        yield
    except Exception as error:
        raise AssertionError(where) from error


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return 1.3 * (time.monotonic() - began)
