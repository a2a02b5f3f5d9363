"""The ground the machines stand on: starts their first process, lays their wires, boots them, kills them."""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.lab import disk, wires
from tests.lab.commands import NODE_ENVIRONMENT, Completed, LabError, link_exists, run
from tests.lab.processes import Processes
from tests.lab.slots import Slot
from tests.lab.state import Fault, Node, State, Wire

WORKERS = 4
ENABLED = "etc/systemd/system/multi-user.target.wants"
BOOT = """\
mkdir -p /run/sshd /run/wireguard /run/lock /run/lab-units
[ ! -e /etc/ssh/sshd_config ] || /usr/sbin/sshd -E /run/sshd.log || exit 1
[ "$1" = plain ] || systemctl default
"""


def forget(family: str, table: str) -> str:
    """nft's words to delete a table that may not be there."""
    return f"add table {family} {table}\ndelete table {family} {table}\n"


class Grounds:
    """One lab's machines by name: who lives, who is wired to whom, what is on record."""

    def __init__(self, slot: Slot, state: State) -> None:
        self.slot = slot
        self.state = state
        self.processes = Processes(slot.pids)

    def save(self) -> None:
        """Put on record what there is."""
        self.state.save(self.slot.state_file)

    def set_up(self) -> None:
        """Make the state folder, the disks' tmpfs and the bridge."""
        self.slot.pids.mkdir(parents=True)
        self.save()
        self.slot.disks.mkdir()
        run(["mount", "-t", "tmpfs", "-o", "mode=755,size=8g", "muster-lab", str(self.slot.disks)])
        run(["mount", "--make-private", str(self.slot.disks)])
        wires.raise_bridge(self.slot)

    def disk(self, name: str) -> Path:
        """The folder that holds a node's own disk."""
        return self.slot.disks / name

    def pid(self, name: str) -> int | None:
        """The pid of a node's first process, None while it is off."""
        return self.processes.pid(name)

    def live_pid(self, name: str) -> int:
        """The same, where off is an error."""
        pid = self.pid(name)
        if pid is None:
            raise LabError(f"{name} is switched off")
        return pid

    def inside(self, name: str) -> list[str]:
        """The start of a command line that runs in a node."""
        return ["nsenter", "-t", str(self.live_pid(name)), "-m", "-n", "-p", "-u", "-i", "--"]

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> Completed:
        """Run a command in a node."""
        line = [*self.inside(name), *command]
        return run(line, input=input, check=check, timeout=timeout, environment=NODE_ENVIRONMENT)

    def add(self, nodes: Sequence[Node], new_wires: Sequence[Wire], authorized_keys: str) -> None:
        """Make new nodes: on record first, so that a crash from here on can be swept."""
        for node in nodes:
            if node.name in self.state.nodes:
                raise LabError(f"there is a {node.name} already")
        self.state.nodes.update({node.name: node for node in nodes})
        self.state.wires.extend(new_wires)
        self.save()
        with ThreadPoolExecutor(WORKERS) as pool:
            keys = pool.map(lambda node: disk.make_disk(self.disk(node.name), node, authorized_keys), nodes)
            for node, key in zip(nodes, keys, strict=True):
                self.state.nodes[node.name] = replace(node, host_key=key)
        self.save()
        self.start([node.name for node in nodes])

    def start(self, names: Sequence[str]) -> None:
        """Switch nodes on: first process, wires, addresses, boot."""
        self._spawn(names)
        touched = [w for w in self.state.wires if any(end.node in names for end in w.ends())]
        wires.plug(self.slot.bridge, touched, self.pid)
        neighbours = {end.node for wire in touched for end in wire.ends() if self.pid(end.node)} - set(names)
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(self._configure, neighbours))
            list(pool.map(self._boot, names))

    def _spawn(self, names: Sequence[str]) -> None:
        request = {
            "pids": str(self.slot.pids),
            "nodes": [
                {"name": name, "disk": str(self.disk(name)), "lower": self.state.nodes[name].lower} for name in names
            ],
        }
        answer = run([sys.executable, "-S", "-m", "tests.lab.node_init"], input=json.dumps(request))
        if errors := json.loads(answer.stdout):
            raise LabError(f"{len(errors)} of {len(names)} nodes have no life in them: {errors}")

    def _configure(self, name: str) -> None:
        ends = [end for wire in self.state.wires for end in wire.ends() if end.node == name]
        pid = self.live_pid(name)
        wires.configure(pid, [end for end in ends if self._is_laid(end.node, end.interface)])

    def _is_laid(self, name: str, interface: str) -> bool:
        """A wire whose other end is off is not there."""
        wire = next(w for w in self.state.wires for e in w.ends() if (e.node, e.interface) == (name, interface))
        return all(self.pid(end.node) for end in wire.ends())

    def _boot(self, name: str) -> None:
        self._configure(name)
        has_units = self._has_units(name)
        done = self.run(name, ["/bin/sh", "-s", "units" if has_units else "plain"], input=BOOT, check=False)
        (self.slot.folder / f"{name}.boot.log").write_text(done.stdout + done.stderr)
        if done.returncode != 0 and not has_units:
            raise LabError(f"{name} did not boot: {done.stderr or done.stdout}")

    def _has_units(self, name: str) -> bool:
        upper = self.disk(name) / "upper"
        return any(
            (upper / folder).is_dir() and any((upper / folder).iterdir()) for folder in (ENABLED, "etc/sysctl.d")
        )

    def kill(self, names: Sequence[str]) -> None:
        """Switch nodes off: all their processes die at once, and all that RAM held with them."""
        for name in names:
            self.live_pid(name)
        wires.unplug([w for w in self.state.wires if w.near is None and w.far.node in names])
        between = [w for w in self.state.wires if w.near and {w.near.node, w.far.node} & set(names)]
        wires.unplug_between(between, self.pid)
        self.processes.kill(names)

    def fault(self, name: str) -> Fault:
        """What is wrong with a node's cable."""
        return self.state.faults.get(name, Fault())

    def tear_down(self) -> None:
        """Take away everything on record; works on what a crash left half made, too."""
        from_record = list(self.state.nodes.values())
        run(["nft", "-f", "-"], input="".join(forget("bridge", self.slot.table(n.index)) for n in from_record))
        self.processes.kill(self.processes.tags())
        wires.unplug(self.state.wires)
        extra = [f"{self.slot.port(node.index)}d" for node in from_record]
        for link in [*extra, self.slot.bridge]:
            if link_exists(link):
                run(["ip", "link", "del", link], check=False)
        self._unmount()
        if self.slot.folder.exists():
            shutil.rmtree(self.slot.folder)

    def _unmount(self) -> None:
        """The last node's overlay may take a moment to let go of the disks."""
        deadline = time.monotonic() + 10
        while os.path.ismount(self.slot.disks):
            done = run(["umount", str(self.slot.disks)], check=False)
            if done.returncode != 0 and time.monotonic() > deadline:
                raise LabError(f"cannot unmount the disks: {done.stderr}")
