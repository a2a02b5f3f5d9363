"""Cables: the lab's bridge, veth pairs between nodes, and the addresses on their ends."""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Interface

from tests.lab.commands import ip_batch, link_exists
from tests.lab.slots import Slot
from tests.lab.state import End, Wire

PidOf = Callable[[str], int | None]


def raise_bridge(slot: Slot) -> None:
    """Make the lab's bridge, with this machine's addresses on it."""
    if link_exists(slot.bridge):
        return
    v4, v6 = slot.host_interfaces()
    ip_batch(
        [
            f"link add {slot.bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {slot.bridge} addrgenmode none",
            f"addr add {v4} dev {slot.bridge}",
            f"addr add {v6} dev {slot.bridge} nodad",
            f"link set {slot.bridge} up",
        ]
    )


def plug(bridge: str, wires: Iterable[Wire], pid_of: PidOf) -> None:
    """Lay every wire whose ends are all switched on."""
    lines = []
    for wire in wires:
        pids = [pid_of(end.node) for end in wire.ends()]
        if None not in pids:
            lines += _lay(bridge, wire, [pid for pid in pids if pid])
    ip_batch(lines)


def _lay(bridge: str, wire: Wire, pids: Sequence[int]) -> list[str]:
    if wire.near:
        near = f"link add {wire.near.interface} address {_mac(wire.near)} netns {pids[0]} type veth"
        return [f"{near} peer name {wire.far.interface} address {_mac(wire.far)} netns {pids[1]}"]
    peer = f"peer name {wire.far.interface} address {_mac(wire.far)} netns {pids[0]}"
    return [
        f"link add {wire.port} type veth {peer}",
        f"link set {wire.port} addrgenmode none",
        f"link set {wire.port} master {bridge}",
        f"link set {wire.port} up",
    ]


def _mac(end: End) -> str:
    """Made from the IPv4 address, so that a node has the same one after a reboot, as neighbours expect."""
    return "02:00:" + IPv4Interface(end.addresses[0]).packed[:4].hex(":")


def unplug(wires: Iterable[Wire]) -> None:
    """Take away the bridge's ports; wires between nodes go with the nodes."""
    ip_batch([f"link del {w.port}" for w in wires if w.port and link_exists(w.port)], force=True)


def unplug_between(wires: Iterable[Wire], pid_of: PidOf) -> None:
    """Take away wires between nodes now: a dead node's network, and their ends with it, fades only later."""
    for wire in wires:
        pid = pid_of(wire.near.node) if wire.near else None
        if wire.near and pid:
            ip_batch([f"link del {wire.near.interface}"], pid=pid, force=True)


def configure(pid: int, ends: Iterable[End]) -> None:
    """Give a node its addresses from outside: a bare machine may have no `ip`."""
    lines = ["link set lo up"]
    for end in ends:
        lines.append(f"link set {end.interface} addrgenmode none")
        # A router asks for neighbours from its link-local address, which the kernel would make with DAD.
        link_local = f"fe80::{IPv4Interface(end.addresses[0]).ip}/64"
        for address in (*end.addresses, link_local):
            lines.append(f"addr replace {address} dev {end.interface}{' nodad' if ':' in address else ''}")
        lines.append(f"link set {end.interface} up")
        lines += [f"route replace default via {gateway} dev {end.interface}" for gateway in end.gateways]
    ip_batch(lines, pid=pid)
