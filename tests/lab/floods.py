"""A flood: one key that begins a handshake a hundred times a second and pings at once on each that is answered."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.commands import REPOSITORY
from tests.lab.tunnels import KeyPair
from tests.lab.waiting import wait_for

PORT = 51820


class Flood:
    """In the background until `close()`, from inside the network of `pid`."""

    def __init__(
        self, pid: int, pair: KeyPair, endpoint: str, server_key: str, ends: tuple[str, str], rate: float = 100
    ) -> None:
        self.public_key = pair.public_key
        handle, path = tempfile.mkstemp(prefix="muster-lab-flood-")
        words = [endpoint, str(PORT), server_key, *ends, str(rate)]
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "--", sys.executable, "-m", "tests.lab.flooder", *words],
            stdin=subprocess.PIPE,
            stdout=handle,
            cwd=REPOSITORY,
        )
        os.close(handle)
        self._file = open(path)  # noqa: SIM115
        Path(path).unlink()
        self._seen: dict[str, list[float]] = {"S": [], "H": [], "R": []}
        self._torn = ""
        assert self._process.stdin
        self._process.stdin.write(pair.private_key.encode() + b"\n")
        self._process.stdin.flush()
        wait_for(lambda: self.begun(0), 10, f"the first handshake begun with {endpoint}")

    def begun(self, since: float) -> list[float]:
        """When handshakes were begun, by time.monotonic()."""
        return self._times("S", since)

    def answered(self, since: float) -> list[float]:
        """When the server answered a handshake."""
        return self._times("H", since)

    def replies(self, since: float) -> list[float]:
        """When a packet came back through the tunnel."""
        return self._times("R", since)

    def _times(self, kind: str, since: float) -> list[float]:
        *lines, self._torn = (self._torn + self._file.read()).split("\n")
        for what, _, moment in map(str.split, lines):
            self._seen[what].append(float(moment))
        return [moment for moment in self._seen[kind] if moment >= since]

    def wait_for_reply(self, after: float, timeout: float = 10) -> float:
        """The moment of the first packet that came back after that moment."""
        return wait_for(lambda: self.replies(after), timeout, "a packet through the tunnel")[0]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)
        self._file.close()
