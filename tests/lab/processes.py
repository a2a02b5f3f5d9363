"""Processes the lab started, recorded so that only these very ones are ever killed."""

import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path


def boot_id() -> str:
    """Name this boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def starttime(pid: int) -> int | None:
    """When `pid` started, in ticks since boot; None for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


class Processes:
    """A folder with one file per process: tag -> "pid starttime boot_id"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, tag: str, pid: int) -> None:
        """Write down a process that runs now."""
        fresh = self.folder / f".{tag}.new"
        fresh.write_text(f"{pid} {starttime(pid)} {boot_id()}\n")
        fresh.rename(self.folder / tag)

    def pid(self, tag: str) -> int | None:
        """The recorded pid if that very process still lives."""
        try:
            pid, started, boot = (self.folder / tag).read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if boot == boot_id() and str(starttime(int(pid))) == started else None

    def tags(self) -> list[str]:
        """Every tag on record, alive or not."""
        return sorted(p.name for p in self.folder.glob("[!.]*")) if self.folder.is_dir() else []

    def kill(self, tags: Iterable[str]) -> None:
        """Kill the recorded processes with SIGKILL, wait until they are gone, forget them."""
        tags = list(tags)
        victims = [pid for tag in tags if (pid := self.pid(tag))]
        handles = [handle for pid in victims if (handle := _open(pid)) is not None]
        for handle in handles:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            _wait_gone(handle)
        for tag in tags:
            (self.folder / tag).unlink(missing_ok=True)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _wait_gone(handle: int) -> None:
    """A pidfd turns readable when its process has ended, whoever its parent is."""
    try:
        if not select.select([handle], [], [], 10)[0]:
            raise TimeoutError("a process of the lab did not end within 10 s of SIGKILL")
    finally:
        os.close(handle)
