"""Lab: one slot with servers, clients, hosts and the cables between them."""

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.lab import bare, inotify, tunnels
from tests.lab.commands import PATH, LabError, link_exists, run
from tests.lab.grounds import WORKERS, Grounds
from tests.lab.machines import Client, Host, Machine, Server
from tests.lab.slots import SLOTS, Slot, private_interfaces, try_lock
from tests.lab.state import End, Node, Role, State, Wire, load
from tests.lab.waiting import wait_for

TOOLS = ("ip", "nft", "wg", "wg-quick", "wireguard-go", "sshd", "ssh-keygen", "nsenter", "mount", "umount")
KINDS: dict[Role, type[Machine]] = {"server": Server, "client": Client, "host": Host}
AnyMachine = TypeVar("AnyMachine", bound=Machine)


def missing() -> list[str]:
    """What this machine lacks to run a lab, in words."""
    lacks = [f"the program {tool}" for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if os.uname().sysname != "Linux":
        lacks.append("Linux")
    if os.geteuid() != 0:
        lacks.append("root")
    if not os.path.exists("/dev/net/tun"):
        lacks.append("/dev/net/tun")
    return lacks


class Lab:
    """Real machines on this one, gone when the `with` block ends.

    `slot` is one of 0 to 15, None for the first that is free; several labs can be up side by side.
    """

    def __init__(self, slot: int | None = None) -> None:
        if lacks := missing():
            raise LabError(f"a lab needs {', '.join(lacks)}")
        self._slot, self._lock = _claim(slot)
        self._grounds = Grounds(self._slot, State(self._slot.number))
        self.machines: dict[str, Machine] = {}
        try:
            self._grounds.set_up()
            inotify.raise_limit()
            self._make_key()
        except BaseException:
            self.close()
            raise

    @classmethod
    @contextmanager
    def attach(cls, slot: int) -> Iterator[Self]:
        """Work on a lab that another process left running; it stays up afterwards."""
        lab = cls.__new__(cls)
        lab._slot = Slot(slot)
        if not lab._slot.state_file.exists():
            raise LabError(f"no lab is up in slot {slot}")
        lab._lock = _lock_or_fail(lab._slot)
        lab._grounds = Grounds(lab._slot, load(lab._slot.state_file))
        names = lab._grounds.state.nodes
        lab.machines = {name: KINDS[node.role](lab._grounds, name) for name, node in names.items()}
        try:
            yield lab
        finally:
            os.close(lab._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take everything away."""
        for machine in self.machines.values():
            machine.close_streams()
        self._grounds.tear_down()
        inotify.put_back()
        os.close(self._lock)

    def detach(self) -> None:
        """Let it run on without this process, until `python -m tests.lab down`."""
        self._grounds.state.detached = True
        self._grounds.save()
        os.close(self._lock)

    @staticmethod
    def sweep(only: int | None = None, *, detached: bool = False) -> list[int]:
        """Clean up after labs whose process is gone (`only` that slot), `detached` ones too if asked; their slots."""
        swept = []
        for slot in map(Slot, range(SLOTS) if only is None else [only]):
            lock = try_lock(slot) if slot.folder.exists() else None
            if lock is None:
                continue
            if _sweep_slot(slot, detached=detached):
                swept.append(slot.number)
            os.close(lock)
        inotify.put_back()
        return swept

    @property
    def slot(self) -> int:
        return self._slot.number

    @property
    def host_address(self) -> str:
        """The IPv4 address of this machine on the lab's network."""
        return str(self._slot.host_interfaces()[0].ip)

    @property
    def ssh_key(self) -> Path:
        """A private key that every server lets in as root: the operator's bootstrap login."""
        return self._slot.folder / "bootstrap_key"

    @property
    def ssh_public_key(self) -> str:
        """Its public half: one line of authorized_keys."""
        return self.ssh_key.with_suffix(".pub").read_text().strip()

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file with the host keys of all servers, written afresh at each look."""
        file = self._slot.folder / "known_hosts"
        file.write_text("".join(f"{s.name},{s.address},{s.address6} {s.host_key}\n" for s in self.of(Server)))
        return file

    def _make_key(self) -> None:
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab-bootstrap", "-f", str(self.ssh_key)])

    def of(self, kind: type[AnyMachine]) -> list[AnyMachine]:
        """All machines of a kind, oldest first."""
        return [m for m in self.machines.values() if isinstance(m, kind)]

    def machine(self, name: str) -> Machine:
        """The machine of that name."""
        if name not in self.machines:
            raise LabError(f"no machine is called {name}; there are {', '.join(self.machines) or 'none'}")
        return self.machines[name]

    def add_servers(self, count: int, *, names: Sequence[str] = (), peers: int | None = None) -> list[Server]:
        """Add machines with sshd and an address, and no WireGuard set up: enrolment does that.

        With `peers`, each has a running wg0 (10.N.0.1/16, port 51820) with that many dummy peers.
        """
        nodes = [self._node("server", n) for n in self._names("s", count, names)]
        servers = self._add(nodes, [self._bridge_wire(node) for node in nodes], Server)
        if peers is not None:
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(lambda server: self._provision(server, peers), servers))
        return servers

    def add_server(self, name: str = "", *, behind: Server | None = None) -> Server:
        """Add one server; `behind` a bastion it can be reached from there only."""
        chosen = self._names("s", 1, [name] if name else [])[0]
        if behind is None:
            return self.add_servers(1, names=[chosen])[0]
        return self._add_behind("server", chosen, behind, Server, return_route=False)

    def add_bastion(self, name: str = "bastion") -> Server:
        """Add a server that others can be put behind."""
        return self.add_server(name)

    def add_bare_server(self, name: str = "", *, behind: Server | None = None) -> Server:
        """Add a server that has only python3, sshd and apt; see `bare` for what apt can install."""
        lower = str(bare.bare_root())
        chosen = self._names("bare", 1, [name] if name else [])[0]
        if behind is not None:
            return self._add_behind("server", chosen, behind, Server, return_route=False, lower=lower)
        node = self._node("server", chosen, lower)
        return self._add([node], [self._bridge_wire(node)], Server)[0]

    def add_clients(self, count: int, *, names: Sequence[str] = ()) -> list[Client]:
        """Add machines without sshd that connect to servers."""
        nodes = [self._node("client", n) for n in self._names("c", count, names)]
        return self._add(nodes, [self._bridge_wire(node) for node in nodes], Client)

    def add_host_behind(self, server: Machine, name: str = "", *, return_route: bool = False) -> Host:
        """Add a host on a private network of the server; it can answer others only if the server masquerades,
        or by a default route back through the server if `return_route`."""
        chosen = self._names(f"{server.name}-host", 1, [name] if name else [])[0]
        return self._add_behind("host", chosen, server, Host, return_route=return_route)

    def _names(self, prefix: str, count: int, names: Sequence[str]) -> list[str]:
        if names:
            if len(names) != count:
                raise LabError(f"{len(names)} names for {count} machines")
            return list(names)
        free = (f"{prefix}{i}" for i in range(1, 4000) if f"{prefix}{i}" not in self.machines)
        return [next(free) for _ in range(count)]

    def _node(self, role: Role, name: str, lower: str = "/") -> Node:
        self._grounds.state.counter += 1
        index = self._grounds.state.counter
        v4, v6 = self._slot.interfaces(index)
        return Node(name, index, role, str(v4.ip), str(v6.ip), lower)

    def _bridge_wire(self, node: Node) -> Wire:
        addresses = tuple(map(str, self._slot.interfaces(node.index)))
        return Wire(None, End(node.name, "eth0", addresses), self._slot.port(node.index))

    def _add(self, nodes: Sequence[Node], wires: Sequence[Wire], kind: type[AnyMachine]) -> list[AnyMachine]:
        self._grounds.add(nodes, wires, self.ssh_public_key + "\n")
        added = [kind(self._grounds, node.name) for node in nodes]
        self.machines.update({machine.name: machine for machine in added})
        return added

    def _add_behind(
        self,
        role: Role,
        name: str,
        gate: Machine,
        kind: type[AnyMachine],
        *,
        return_route: bool,
        lower: str = "/",
    ) -> AnyMachine:
        number = 1 + sum(wire.near is not None for wire in self._grounds.state.wires)
        inner, outer = private_interfaces(number, 10), private_interfaces(number, 1)
        gateways = tuple(str(a.ip) for a in outer) if return_route else ()
        near = End(gate.name, f"lan{number}", tuple(map(str, outer)))
        far = End(name, "eth0", tuple(map(str, inner)), gateways)
        node = self._node(role, name, lower)
        node = replace(node, address=str(inner[0].ip), address6=str(inner[1].ip), behind=gate.name)
        return self._add([node], [Wire(near, far)], kind)[0]

    def _provision(self, server: Server, peers: int) -> None:
        index = self._grounds.state.nodes[server.name].index
        server.bring_up(tunnels.provisioned_conf(index, peers))


def _claim(number: int | None) -> tuple[Slot, int]:
    """Lock a slot nobody uses; what a crashed run left in it is cleaned up first."""
    for slot in map(Slot, range(SLOTS) if number is None else [number]):
        lock = try_lock(slot)
        if lock is None:
            continue
        # A bridge without a folder belongs to a lab in a container that shares this machine's network.
        is_ours = slot.folder.exists() or not link_exists(slot.bridge)
        if is_ours and (not slot.folder.exists() or _sweep_slot(slot, detached=False)):
            return slot, lock
        os.close(lock)
    raise LabError("every slot is taken" if number is None else f"slot {number} is taken")


def _lock_or_fail(slot: Slot) -> int:
    return wait_for(lambda: try_lock(slot), 30, f"slot {slot.number}, which another process works on") or 0


def _sweep_slot(slot: Slot, *, detached: bool) -> bool:
    """Clean up a slot that this process has locked; False if it was left running on purpose."""
    state = load(slot.state_file) if slot.state_file.exists() else State(slot.number)
    if state.detached and not detached:
        return False
    Grounds(slot, state).tear_down()
    return True
