"""A Console as operators run it: `manage.py up` in a process of its own, with a data folder of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.processes import starttime
from tests.lab.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class RunningConsole:
    """Up from entering the `with` block to its end. `log` holds all that its processes said."""

    def __init__(self, folder: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
        self.environment = {**inherited, "MUSTER_DATA": str(folder), **(environment or {})}
        self.log = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Where we die without a word it stops by itself; its own session keeps Ctrl-C for us.
        dying = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        command = [*dying, sys.executable, "manage.py", "up", "--bind", f"127.0.0.1:{self.port}"]
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            self.wait_to_say("the Console is at", START_LIMIT)
            wait_for(self.is_healthy, START_LIMIT, "an answer from /healthz")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_to_say(self, pattern: str, timeout: float = 30, *, times: int = 1) -> None:
        """Wait until `pattern` was said that many times; RuntimeError with the log if it ended before."""

        def has_said() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the Console ended; it said:\n{self.said()}")
            return len(re.findall(pattern, self.said())) >= times

        wait_for(has_said, timeout, f"{pattern!r} from the Console", interval=0.05)

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def children(self) -> dict[str, int]:
        """Which part runs as which process: broker, web, worker, beat."""
        words = {"web": "gunicorn", "worker": " worker ", "beat": " beat ", "broker": "broker.sock"}
        found = {}
        for pid in _children_of(self.pid):
            line = " ".join(Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
            found.update({name: pid for name, word in words.items() if word in line})
        return found

    def manage(self, *words: str, input: str = "") -> str:
        """Another command on the same data; its stdout, or RuntimeError with what it said."""
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, check=False, input=input, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it; its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(60)


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pids: Mapping[int, int | None], timeout: float) -> None:
    """Wait until each process (pid -> its start time) has ended."""
    wait_for(lambda: all(starttime(pid) != began for pid, began in pids.items()), timeout, f"the end of {list(pids)}")


def cpu_seconds(pid: int) -> float:
    """What a process has used of a core so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
