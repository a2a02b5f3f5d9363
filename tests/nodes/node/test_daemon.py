"""The daemon without systemd: a plain process in the foreground that says what matters and ends when it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.waiting import wait_for
from tests.nodes.node.build import dead, make_key, make_peer
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(8)]


@contextmanager
def daemon(machine: Machine, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One that has ticked at least once; what it writes goes to the log."""
    machine.run("wg", "set", "wg0", "peer", make_key(99))
    with log.open("wb") as file:
        words = machine.words("muster-node", "daemon")
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_for(lambda: make_key(99) not in machine.peers(), 15, "the first tick")
        yield process
    finally:
        if process.poll() is None:
            os.kill(inner(process), signal.SIGKILL)
        process.wait()


def inner(process: subprocess.Popen[bytes]) -> int:
    """The daemon, which nsenter waits for and ends as."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGTERM, {0, -signal.SIGTERM}), (signal.SIGINT, {0})])
def test_it_ends_within_a_second_and_says_nothing_about_it(
    machine: Machine, session: Session, tmp_path: Path, number: signal.Signals, codes: set[int]
) -> None:
    with daemon(machine, tmp_path / "log") as process:
        began = time.monotonic()
        os.kill(inner(process), number)
        assert process.wait(5) in codes
        assert time.monotonic() - began < 1
    assert (tmp_path / "log").read_text() == ""
    assert session.ask("observe", full=True)["drift"] == []
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS}


def test_it_says_once_what_is_wrong_and_ticks_on(machine: Machine, session: Session, tmp_path: Path) -> None:
    """F15: an interface that is down is told of, once, and loaded when it is back."""
    log = tmp_path / "log"
    with daemon(machine, log):
        session.ask("revoke", keys=[dead(1)])
        machine.sh("ip link del wg0")
        wait_for(lambda: "the interface is down" in log.read_text(), 10, "the alarm")
        machine.sh("wg-quick up wg0")
        wait_for(lambda: len(machine.peers()) == 7, 10, "the peers to be back")
    lines = log.read_text().splitlines()
    assert lines == ["muster-node: wg0: the interface is down, and no unit says that it should be up"]
