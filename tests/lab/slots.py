"""Slots: the part of 198.18.0.0/15 and the state folder that a lab holds by a lock."""

import errno
import fcntl
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

from tests.lab.commands import LabError

HOME = Path("/run/muster-lab")
SLOTS = 16
FIRST_NODE = 256


@dataclass(frozen=True)
class Slot:
    """The names and addresses of one lab; pure."""

    number: int

    @property
    def folder(self) -> Path:
        return HOME / str(self.number)

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def disks(self) -> Path:
        return self.folder / "disks"

    @property
    def pids(self) -> Path:
        return self.folder / "pids"

    @property
    def bridge(self) -> str:
        return f"mlab{self.number}"

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(f"198.18.{self.number * 16}.0/20")

    @property
    def network6(self) -> IPv6Network:
        return IPv6Network(f"fd6d:7573:7465:{self.number:x}::/64")

    def port(self, index: int) -> str:
        """The link on the bridge for node number `index`."""
        return f"{self.bridge}n{index}"

    def table(self, index: int) -> str:
        """The nft table that holds the faults of node number `index`."""
        return f"{self.bridge}n{index}"

    def interfaces(self, index: int) -> tuple[IPv4Interface, IPv6Interface]:
        """Addresses with prefix of node number `index`."""
        return _at(self.network, self.network6, FIRST_NODE + index)

    def host_interfaces(self) -> tuple[IPv4Interface, IPv6Interface]:
        """The addresses of this machine on the lab's bridge."""
        return _at(self.network, self.network6, 1)


def private_interfaces(number: int, offset: int) -> tuple[IPv4Interface, IPv6Interface]:
    """Addresses in private network `number` (1 to 255), which only two nodes know of."""
    if not 1 <= number <= 255:
        raise LabError("a lab has room for 255 private networks")
    return _at(IPv4Network(f"198.19.{number}.0/24"), IPv6Network(f"fd6d:7573:7465:f{number:02x}::/64"), offset)


def _at(net4: IPv4Network, net6: IPv6Network, offset: int) -> tuple[IPv4Interface, IPv6Interface]:
    return (
        IPv4Interface((int(net4.network_address) + offset, net4.prefixlen)),
        IPv6Interface((int(net6.network_address) + offset, net6.prefixlen)),
    )


def try_lock(slot: Slot) -> int | None:
    """Take a slot for this process; the descriptor, or None if another process has it.

    The lock is a name in the network namespace, as bridges and addresses are: whoever shares those sees it, also
    where /run is another one.
    """
    HOME.mkdir(mode=0o755, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0muster-lab-{slot.number}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None
        return name.detach()


def lock_home() -> int:
    """Lock what all labs of this machine share; close the descriptor to let go."""
    HOME.mkdir(mode=0o755, exist_ok=True)
    descriptor = os.open(HOME / "home.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
