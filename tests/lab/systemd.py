"""A real systemd as the first process of a lab machine's services, in place of our systemctl.

It boots what is enabled in /etc/systemd/system, in namespaces nested in the machine's: its network, disk and /run are
the machine's, its processes and cgroups are its own. The vendor's units are there, but none is started by itself.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

from tests.lab.commands import NODE_ENVIRONMENT, Completed, LabError, run
from tests.lab.machines import Machine
from tests.lab.waiting import wait_for

REAL, LOG = "/usr/local/lib/lab-systemctl", "/run/lab-systemd.log"
# Outside: a cgroup for it, taken away when it is gone. No /proc is mounted here that knows us.
OUTSIDE = """
exec 2>/run/lab-systemd.log
set -e
mount --make-rprivate /
mount -t cgroup2 none /mnt
mkdir "/mnt/$1"
sh -c 'echo 0 >"/mnt/$1/cgroup.procs" && exec unshare --cgroup --pid --mount --fork --kill-child sh -ec "$2"' \
    sh "$1" "$2" || true
for try in 1 2 3 4 5 6 7 8 9 10; do
    find "/mnt/$1" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
    sleep 0.1
done
"""
# Inside: what belongs to this machine as a whole is read-only, as in any container.
INSIDE = """
mount -t proc proc /proc
umount /mnt
for folder in fs kernel vm; do
    mount --bind /proc/sys/$folder /proc/sys/$folder
    mount -o remount,bind,ro /proc/sys/$folder
done
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in /usr/lib/systemd/system/*.wants; do mount -t tmpfs tmpfs $folder; done
[ ! -e /etc/fstab ] || mount --bind /dev/null /etc/fstab
mount --bind /usr/local/lib/lab-systemctl /usr/bin/systemctl
export container=lab
exec setpriv --bounding-set=-sys_time,-sys_module,-sys_boot /lib/systemd/systemd --system --unit=multi-user.target \
    --log-target=null --show-status=no </dev/null
"""


class Systemd:
    """Runs from `with` to its end; `boot` and `cut` are the power of this part alone."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._outside: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shutil.copy("/usr/bin/systemctl", self.machine.root / REAL.lstrip("/"))
        return self

    def __exit__(self, *_error: object) -> None:
        self.cut()

    def boot(self) -> None:
        """Returns when all that is enabled was started."""
        enter = ["nsenter", "-t", str(self.machine.pid), "-m", "-n", "-u", "-i", "--"]
        words = ["unshare", "--mount", "sh", "-c", OUTSIDE, "sh", f"{self.machine.name}-{os.getpid()}", INSIDE]
        self._outside = subprocess.Popen([*enter, *words], stdin=subprocess.DEVNULL, env=NODE_ENVIRONMENT)
        wait_for(self._is_up, 30, "systemd to have booted")

    def _is_up(self) -> bool:
        assert self._outside
        if self._outside.poll() is not None:
            raise LabError(f"systemd does not run: {self.machine.read(LOG)}")
        return bool(self._first()) and self.systemctl("is-active", "multi-user.target", check=False).returncode == 0

    def _first(self) -> int:
        """Its first process, as this machine numbers it; 0 while there is none."""
        assert self._outside
        pid = self._outside.pid
        for _ in range(2):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children:
                return 0
            pid = int(children[-1])
        return pid if Path(f"/proc/{pid}/comm").read_text() == "systemd\n" else 0

    def run(self, *words: str, check: bool = True) -> Completed:
        """A command beside its services."""
        enter = ["nsenter", "-t", str(self._first()), "-m", "-n", "-p", "-C", "--"]
        return run([*enter, *words], check=check, environment=NODE_ENVIRONMENT)

    def systemctl(self, *words: str, check: bool = True) -> Completed:
        return self.run("systemctl", *words, check=check)

    def show(self, unit: str, setting: str) -> str:
        return self.systemctl("show", "--value", "-p", setting, unit).stdout.strip()

    def cut(self) -> None:
        """Kills all of it at once; what it left in /run and in the kernel stays."""
        if self._outside is None:
            return
        if self._outside.poll() is None and (first := self._first()):
            os.kill(first, signal.SIGKILL)
        self._outside.wait(20)
        self._outside = None
