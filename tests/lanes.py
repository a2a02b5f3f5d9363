"""A plugin for pytest processes that share the suite, called lanes: each takes module after module, until none is left.

A test marked `alone` keeps to a bar of wall-clock time: it is run at the end, while no other lane runs any. Tests that
only compute give way to those of machines and sockets, which wait most of their time and look at the clock: of these
only one lane of a database runs any at a time, as more of them would lose each other's packets.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import pytest

# What takes longest is begun first, so that the lanes end together.
LONGEST = (
    "tests/nodes/lab/test_fail_static.py",
    "tests/nodes/lab/test_node_alone.py",
    "tests/nodes/test_up.py",
    "tests/nodes/lab/test_races.py",
    "tests/nodes/lab/test_cut_lines.py",
    "tests/nodes/lab/test_enrolment.py",
)
COMPUTE = ("tests/audit/", "tests/fleet/", "tests/peers/", "tests/test_")
GIVE_WAY = 10


class Share(NamedTuple):
    """What one lane runs in one go: a module's tests, those marked `alone` apart from the others."""

    alone: bool
    path: str
    items: list[pytest.Item]

    @property
    def computes(self) -> bool:
        return self.path.startswith(COMPUTE) and not self.alone

    def rank(self) -> tuple[bool, int, str]:
        known = LONGEST.index(self.path) if self.path in LONGEST else len(LONGEST)
        return self.computes, known, self.path


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lanes")
    group.addoption("--lane", default="", help="this lane's name")
    group.addoption("--lanes-of", type=Path, help="a folder that all lanes of one database share")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if session.testsfailed or session.config.option.collectonly:
        return None  # pytest's own loop says what is to be said
    folder: Path = session.config.option.lanes_of
    found = sorted(shares(session.items), key=Share.rank)
    # One lane of a database begins with what computes, so that the cores have work while the others wait.
    if session.config.option.lane.endswith(" 1"):
        found.sort(key=lambda share: not share.computes)
    for share in sorted(found, key=lambda share: share.alone):
        if claim(folder, share):
            with turn(folder, share), priority(GIVE_WAY if share.computes else 0):
                run(session, share)
    return True


def shares(items: list[pytest.Item]) -> list[Share]:
    found: dict[tuple[bool, str], Share] = {}
    for item in items:
        key = item.get_closest_marker("alone") is not None, item.nodeid.partition("::")[0]
        found.setdefault(key, Share(*key, [])).items.append(item)
    return list(found.values())


def claim(folder: Path, share: Share) -> bool:
    """Whether this lane is the one to run it: the first that asks is."""
    name = share.path.replace("/", ".") + (".alone" if share.alone else "")
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@contextmanager
def turn(folder: Path, share: Share) -> Iterator[None]:
    """Beside the shares of other lanes, or with the machine to itself; `folder` is that of one database."""
    with ExitStack() as held:
        held.enter_context(locked(folder.parent / "turn", fcntl.LOCK_EX if share.alone else fcntl.LOCK_SH))
        if not (share.computes or share.alone):
            held.enter_context(locked(folder / "machines", fcntl.LOCK_EX))
        yield


@contextmanager
def locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield


@contextmanager
def priority(nice: int) -> Iterator[None]:
    """As `nice` says within; whoever is not root could not go back, and stays as it is."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, before + nice)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            os.setpriority(os.PRIO_PROCESS, 0, before)


def run(session: pytest.Session, share: Share) -> None:
    began, failed = time.monotonic(), session.testsfailed
    # As the item that follows, the session itself: which module is next is not known yet, its fixtures are kept.
    following = [*share.items[1:], cast(pytest.Item, session)]
    for item, after in zip(share.items, following, strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
    say(session, share, time.monotonic() - began, session.testsfailed - failed)


def say(session: pytest.Session, share: Share, seconds: float, failed: int) -> None:
    """One line to the person who waits, past what pytest captures."""
    verdict = f"{failed} FAILED of {len(share.items)}" if failed else f"{len(share.items)} passed"
    line = f"{session.config.option.lane:12} {seconds:6.1f} s  {share.path}: {verdict}"
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(line, file=sys.stderr, flush=True)
