"""Streams that never end: a session stays small, ends where it can, and keeps nobody else waiting."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab.waiting import wait_for
from tests.nodes.node.build import Json, dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(20)]
MOST = 50 * 1024
REQUESTS: list[Json] = [
    {"op": "hello"},
    {"op": "observe", "full": False},
    {"op": "journal", "after": 0},
    {"op": "apply", **make_whole(1, PEERS)},
    {"op": "apply", **make_whole(1, PEERS[:3])},
    {"op": "revoke", "keys": []},
    {"op": "nothing"},
]
SMALL = b"".join(json.dumps({"v": 1, "id": 1, **request}).encode() + b"\n" for request in REQUESTS)


class Hog:
    """A session of its own that is fed the same bytes over and over."""

    def __init__(self, machine: Machine, data: bytes) -> None:
        self.process = machine.popen("muster-node", "session", "wg0")
        assert self.process.stdin and self.process.stdout
        self.file, self.out = self.process.stdin.fileno(), self.process.stdout
        os.write(self.file, b'{"v":1,"id":1,"op":"hello"}\n')
        assert json.loads(self.out.readline())["ok"]
        os.set_blocking(self.file, False)
        self.data = self.view = memoryview(data)
        # nsenter has started the session, and waits for it.
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pid = int(wait_for(lambda: file.read_text().split(), 10, "the session")[0])

    def pour(self, seconds: float) -> int:
        """How many bytes it took in that time; it may take no more, or end."""
        count, until = 0, time.monotonic() + seconds
        with suppress(BrokenPipeError):
            while time.monotonic() < until:
                try:
                    written = os.write(self.file, self.view)
                except BlockingIOError:
                    select.select([], [self.file], [], 0.1)
                    continue
                self.view = self.view[written:] or self.data
                count += written
        return count

    def peak(self) -> int:
        """The most memory that it ever had, in KiB; 0 once it has ended."""
        with suppress(OSError):
            rows = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            return next((int(row.split()[1]) for row in rows if row.startswith("VmHWM")), 0)
        return 0

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def hog(machine: Machine, data: bytes) -> Iterator[Hog]:
    found = Hog(machine, data)
    try:
        yield found
    finally:
        found.end()
        found.out.close()
        assert found.process.stdin
        found.process.stdin.close()


def seconds_of_another(machine: Machine) -> float:
    """How long another session takes to start, to apply and to revoke."""
    began = time.monotonic()
    session = machine.session("wg0")
    assert session.ask("apply", **make_whole(2, [*PEERS, make_peer(60)]))["ok"]
    assert session.ask("revoke", keys=[dead(80)])["receipts"][0]["kernel"]
    assert make_key(60) in machine.peers()
    return time.monotonic() - began


def test_a_line_without_an_end_is_given_up_at_16_mib_and_costs_less_than_50(machine: Machine, session: Session) -> None:
    """A11: it is refused within 5 s, and its session ends."""
    with hog(machine, b'{"v":1,"id":1,"op":"hello","x":"' + b"x" * 65536) as found:
        peaks = [found.peak()]
        watcher = threading.Thread(target=lambda: peaks.extend(iter(found.peak, 0)))
        watcher.start()
        began = time.monotonic()
        written = found.pour(30)
        took = time.monotonic() - began
        reply = json.loads(found.out.readline())
        assert found.process.wait(10) == 1
        watcher.join()
    print(f"{written} bytes, {took:.1f} s, {max(peaks) - peaks[0]} KiB more")
    assert (reply["id"], reply["error"]["code"]) == (None, "bad_request")
    assert 16 << 20 < written < 18 << 20
    assert max(peaks) - peaks[0] < MOST and took < 5
    assert seconds_of_another(machine) < 5


def test_an_endless_stream_of_small_requests_costs_less_than_50_mib(machine: Machine, session: Session) -> None:
    """A11: looks, repairs, refusals; another session is served meanwhile."""
    with hog(machine, SMALL) as found:
        answers: list[bytes] = []
        reader = threading.Thread(target=lambda: answers.extend(found.out))
        reader.start()
        writer = threading.Thread(target=found.pour, args=[3])
        writer.start()
        wait_for(lambda: len(answers) >= len(REQUESTS), 10, "one answer of each kind")
        small = found.peak()
        took = seconds_of_another(machine)
        writer.join()
        grown = found.peak() - small
        found.end()
        reader.join()
    print(f"{len(answers)} answers, {grown} KiB more; another session took {took:.1f} s")
    assert len(answers) > 50
    assert grown < MOST and took < 5


def test_one_that_asks_for_ever_and_reads_nothing_waits_for_itself_alone(machine: Machine, session: Session) -> None:
    """A11: its answers fill the pipe, and it is read no further; it holds no lock meanwhile."""
    with hog(machine, SMALL) as found:
        wait_for(lambda: found.pour(0.5) == 0, 30, "it to take no more")
        assert seconds_of_another(machine) < 5
        assert 0 < found.peak() < 2 * MOST
