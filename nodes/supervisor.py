"""Keeps the processes of a small Console running: started in order, restarted when they die, stopped in reverse."""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

BACKOFF_MAX = 10.0
STEADY_AFTER = 30.0
STOP_LIMIT = 10.0
LOOK_EVERY = 0.1


@dataclass(frozen=True)
class Part:
    """One process: its name in the log, its command, and what it waits for before the next one starts."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_ready: Callable[[], bool] = lambda: True


class Child:
    """A Part that runs. Its death is told, and it is started again after 0.5 s, 1 s, ... 10 s at most."""

    def __init__(self, part: Part, say: Callable[[str, str], None]) -> None:
        self.part, self._say = part, say
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._started_at, self._next_start, self._backoff = 0.0, 0.0, 0.5

    def start(self) -> None:
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(
            [*_dying_with_us(), *self.part.command],
            env={**os.environ, **self.part.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is for us alone: we stop them in order
        )
        self._reader = threading.Thread(target=self._read, args=[self._process], daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        for line in process.stdout or ():
            self._say(self.part.name, line.rstrip("\n"))

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look_after(self) -> None:
        """Tell of a death, and start it again once its pause is over."""
        if self.is_running():
            return
        if self._process is not None:
            self._mourn(self._process)
        if time.monotonic() >= self._next_start:
            self.start()

    def _mourn(self, process: "subprocess.Popen[str]") -> None:
        if time.monotonic() - self._started_at > STEADY_AFTER:
            self._backoff = 0.5
        self._say("up", f"{self.part.name} ended ({_how(process.returncode)}); again in {self._backoff:g} s")
        self._next_start = time.monotonic() + self._backoff
        self._backoff = min(2 * self._backoff, BACKOFF_MAX)
        self._process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is still there after 10 s."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._say("up", f"{self.part.name} did not end within {STOP_LIMIT:g} s and is killed")
            self._process.kill()
            self._process.wait()
        if self._reader:
            self._reader.join(1)


class Supervisor:
    """Runs parts until SIGINT or SIGTERM. `say(name, line)` gets every line of every part."""

    def __init__(self, parts: Sequence[Part], say: Callable[[str, str], None]) -> None:
        self._children = [Child(part, say) for part in parts]
        # Not an Event: set by a signal that comes while it is waited for, that never returns. A SimpleQueue may be.
        self._asked_to_stop: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._is_stopping = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """Returns when all have stopped; `on_ready` is called once all have started."""
        with self._signals():
            try:
                for child in self._children:
                    child.start()
                    self._wait_until_ready(child)
                if not self._is_stopping:
                    on_ready()
                while not self._must_stop_after(LOOK_EVERY):
                    self._look_after_all()
            finally:
                for child in reversed(self._children):
                    child.stop()

    def _must_stop_after(self, seconds: float) -> bool:
        if not self._is_stopping:
            with contextlib.suppress(queue.Empty):
                self._asked_to_stop.get(timeout=seconds)
                self._is_stopping = True
        return self._is_stopping

    def _wait_until_ready(self, child: Child) -> None:
        while not child.part.is_ready() and not self._must_stop_after(LOOK_EVERY):
            self._look_after_all(until=child)

    def _look_after_all(self, until: Child | None = None) -> None:
        for child in self._children:
            child.look_after()
            if child is until:
                return

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda number, _: self._asked_to_stop.put(number)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _dying_with_us() -> list[str]:
    """So that nothing is left behind where this process is killed without a word."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    return [found, "--pdeathsig", "TERM", "--"] if found else []


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
