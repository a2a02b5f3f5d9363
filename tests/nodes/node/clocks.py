"""The clocks of a machine as the script sees them: wall clock, boot clock and boots, each moved by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.lab.waiting import wait_for
from tests.nodes.node.build import make_key
from tests.nodes.node.machine import PYTHON, Machine

LIBRARY = str(next(Path("/usr").glob("lib*/**/faketime/libfaketime.so.1")))
WALL, ALARMS, BOOT_ID = "/run/wall", "/run/alarms", "/proc/sys/kernel/random/boot_id"
FAKETIME = ["env", f"LD_PRELOAD={LIBRARY}", f"FAKETIME_TIMESTAMP_FILE={WALL}", "FAKETIME_NO_CACHE=1"]
STEPS_ONLY = ["NO_FAKE_STAT=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
# With steps only, libfaketime 0.9.10 makes of every sleep one until 1970; here each takes a tenth of a second.
SLEEP = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=clock_nanosleep:retval=0:delay_exit=100000"]
BOOT_NUMBERS = count(1)
CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC)
READ = f"import time; print(*map(time.clock_gettime, {tuple(map(int, CLOCKS))}))"
STRANGER = make_key(999)


class Clocks:
    """libfaketime moves the wall clock, of what runs too; a time namespace the boot clock, of what begins later.

    A file bound over the kernel's names the boot.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.wall = self.boot = self.number = 0
        machine.sh("mount -t tmpfs tmpfs /dev/shm")
        self._name_boot()
        machine.sh(f"mount --bind /run/boot_id {BOOT_ID}")
        self._move(0, 0)

    def close(self) -> None:
        self.machine.around = []
        self.machine.sh(f"umount {BOOT_ID}; umount -l /dev/shm")

    def _name_boot(self) -> None:
        self.machine.sh(f"echo boot-{next(BOOT_NUMBERS)} > /run/boot_id")

    def now(self) -> int:
        """What the wall clock shows."""
        return int(time.time()) + self.wall

    def step(self, seconds: int) -> None:
        """Somebody sets the wall clock."""
        self._move(seconds, 0)

    def go_by(self, seconds: int) -> None:
        """So much time passes."""
        self._move(seconds, seconds)

    def reboot(self, *, off: int = 0, step: int = 0) -> None:
        """Off for so many seconds; then the boot clock begins anew, and the wall clock is by `step` seconds wrong."""
        self.machine.sh("ip link del wg0; rm -rf /run/muster")
        self._name_boot()
        self._move(off + step, 10 - self.boot - int(time.clock_gettime(time.CLOCK_BOOTTIME)))
        self.machine.run("wg-quick", "up", "wg0")
        self.machine.run("muster-node", "load", "wg0")

    def _move(self, wall: int, boot: int) -> None:
        self.wall, self.boot = self.wall + wall, self.boot + boot
        self.machine.sh(f"echo {self.wall:+d} > {WALL}.new; mv {WALL}.new {WALL}")
        namespace = ["unshare", "--time", "--fork", "--kill-child", "--boottime", str(self.boot)]
        self.machine.around = [*namespace, *SLEEP, *FAKETIME, *STEPS_ONLY]
        shown = map(float, self.machine.run(*self.machine.around, PYTHON, "-IS", "-c", READ).split())
        meant = zip(CLOCKS, (self.wall, self.boot, 0), shown, strict=True)
        differences = [abs(time.clock_gettime(clock) + moved - seen) for clock, moved, seen in meant]
        assert max(differences) < 10, differences

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """The daemon runs, and is killed."""
        words = [*self.machine.words("muster-node", "daemon")[len(self.machine.enter) :]]
        at = len(self.machine.around)
        told = ["sh", "-c", f'echo $$; exec "$0" "$@" 2>{ALARMS}']
        process = self.machine.popen(*words[:at], *told, *words[at:])
        assert process.stdout
        self.number = int(process.stdout.readline())
        try:
            yield
        finally:
            self.machine.sh(f"kill {self.number}")
            process.communicate()

    def rest(self) -> None:
        """The running daemon looks about five times: each of its system calls is two of strace's waits."""
        began = self._waits()
        wait_for(lambda: self._waits() > began + 2000, 20, "the daemon to look")

    def _waits(self) -> int:
        return int(self.machine.sh(f"awk '/^vol/ {{print $2}}' /proc/{self.number}/status"))

    def turn(self) -> set[str]:
        """The daemon begins, does at least once what it does every 5 s, and is killed: the keys that run then."""
        with self.daemon():
            return self.look()

    def look(self) -> set[str]:
        """The keys that run once a running daemon has looked.

        That it did shows on a stranger among the peers, whom it takes out and writes down.
        """
        before = self._strangers()
        self.machine.run("wg", "set", "wg0", "peer", STRANGER)
        wait_for(lambda: self._strangers() > before, 20, "a tick of the daemon")
        return set(self.machine.peers())

    def _strangers(self) -> int:
        files = "/var/lib/muster/wg0/journal /run/muster/wg0.journal"
        return self.machine.sh(f"cat {files} 2>/dev/null || true").count('"what":"unknown"')

    def alarms(self) -> str:
        """What the last daemon said."""
        return self.machine.sh(f"cat {ALARMS}")

    def is_held(self) -> bool:
        """Whether the script wrote down that it holds a jump."""
        return json.loads(self.machine.sh("cat /run/muster/clock"))[3] is not None
