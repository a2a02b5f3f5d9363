"""Asking packets what is true: single pings and steady streams, with the time of every packet."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import REPOSITORY, LabError
from tests.lab.waiting import wait_for

GRACE = 1.0


@dataclass(frozen=True)
class PingResult:
    """How many echo requests were sent, answered and not answered."""

    sent: int
    received: int

    @property
    def lost(self) -> int:
        return self.sent - self.received


@dataclass(frozen=True)
class Packet:
    """One echo request; times are time.monotonic() of this machine, in seconds."""

    number: int
    sent_at: float
    received_at: float | None


def realtime(moment: float) -> float:
    """The same moment on time.time()."""
    return moment + time.time() - time.monotonic()


def pinger_command(pid: int, address: str, interval: float, count: int, interface: str) -> list[str]:
    """The command that pings from inside the namespaces of `pid`, and dies with them."""
    program = [sys.executable, "-S", "-m", "tests.lab.pinger", address, str(interval), str(count), interface]
    return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--pid=/proc/{pid}/ns/pid", "--", *program]


class Stream:
    """A steady stream of echo requests from a node, in the background until `stop()`."""

    def __init__(self, pid: int, address: str, *, rate: float = 100, interface: str = "", count: int = 0) -> None:
        self.address = address
        handle, path = tempfile.mkstemp(prefix="muster-lab-stream-")
        self._path = Path(path)
        self._process = subprocess.Popen(
            pinger_command(pid, address, 1 / rate, count, interface),
            stdin=subprocess.PIPE,
            stdout=handle,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        os.close(handle)
        self._file = self._path.open()
        self._path.unlink()
        try:
            wait_for(self._has_begun, 10, f"the first packet to {address}")
        except BaseException:
            self.close()
            raise

    def _has_begun(self) -> bool:
        if os.fstat(self._file.fileno()).st_size > 0:
            return True
        if self._process.poll() is not None:
            raise LabError(f"no stream to {self.address}: {self.stop()}")
        return False

    def packets(self) -> list[Packet]:
        """Every packet so far, in the order of sending."""
        self._file.seek(0)
        # All at once: a line that was half written when it was read would come as two.
        lines = [line.split() for line in self._file.read().split("\n")[:-1]]
        replies: dict[str, float] = {}
        for kind, number, moment in lines:
            if kind == "R":
                replies.setdefault(number, float(moment))
        return [Packet(int(n), float(at), replies.get(n)) for kind, n, at in lines if kind == "S"]

    def last_reply_at(self) -> float | None:
        """When the last reply came, by time.monotonic(); None if none ever came."""
        return max((p.received_at for p in self.packets() if p.received_at is not None), default=None)

    def last_answered_at(self) -> float | None:
        """When the last request that was answered had been sent, by time.monotonic()."""
        return max((p.sent_at for p in self.packets() if p.received_at is not None), default=None)

    def unanswered(self, *, since: float = 0, until: float | None = None) -> Sequence[Packet]:
        """Packets sent in [since, until] without a reply; by default up to a grace of 1 s before now."""
        end = time.monotonic() - GRACE if until is None else until
        return [p for p in self.packets() if p.received_at is None and since <= p.sent_at <= end]

    def lost(self, *, since: float = 0, until: float | None = None) -> int:
        """How many packets `unanswered()` has."""
        return len(self.unanswered(since=since, until=until))

    def wait_for_reply(self, timeout: float = 10, *, after: float = 0) -> float:
        """Wait for a reply to a packet sent after that moment; returns when it came."""
        return wait_for(lambda: self._reply_after(after), timeout, f"a reply from {self.address}")

    def _reply_after(self, after: float) -> float | None:
        replies = [p.received_at for p in self.packets() if p.received_at is not None and p.sent_at > after]
        return replies[0] if replies else None

    def result(self) -> PingResult:
        """The sum of it so far."""
        packets = self.packets()
        return PingResult(len(packets), sum(p.received_at is not None for p in packets))

    def wait(self, timeout: float) -> None:
        """Wait until a stream with a count has ended by itself."""
        self._process.wait(timeout)

    def stop(self) -> str:
        """End the stream; what came stays readable. Returns what the pinger complained about."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(10)
        if not self._process.stderr or self._process.stderr.closed:
            return ""
        complaint = self._process.stderr.read()
        self._process.stderr.close()
        return complaint

    def close(self) -> None:
        """Stop and forget."""
        self.stop()
        self._file.close()


def ping(pid: int, address: str, *, count: int, interval: float, interface: str) -> PingResult:
    """Send `count` echo requests from the namespaces of `pid`; waits at most 1 s for the last reply."""
    stream = Stream(pid, address, rate=1 / interval, interface=interface, count=count)
    try:
        stream.wait(count * interval + 15)
        return stream.result()
    finally:
        stream.close()
