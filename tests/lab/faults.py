"""What can be wrong with a node's cable: silence, rejection, one way only, pulled out, slow."""

import sys
from typing import Literal

from tests.lab.commands import LabError, ip_batch, link_exists, run
from tests.lab.grounds import Grounds, forget
from tests.lab.state import Fault

Mode = Literal["drop", "reject", "ssh", "oneway", "link"]
# Without neighbour discovery the other side would learn at once that nobody is there.
NEIGHBOURS = "ether type ip6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
IP = "ether type { ip, ip6 }"


def partition(grounds: Grounds, name: str, mode: Mode) -> None:
    """Cut a node off: see `Machine.partition` for what the modes mean."""
    fault = Fault(partition=mode, delay_ms=grounds.fault(name).delay_ms)
    port = _port(grounds, name)
    heal(grounds, name, keep_delay=True)
    _remember(grounds, name, fault)
    if mode == "link":
        run(["ip", "link", "set", port, "down"])
    elif mode == "reject":
        _nft_inside(grounds, name, _reject_table())
    else:
        run(["nft", "-f", "-"], input=_silence_table(grounds, name, port, mode))


def heal(grounds: Grounds, name: str, *, keep_delay: bool = False) -> None:
    """Mend a node's cable."""
    port, fault = _port(grounds, name), grounds.fault(name)
    if fault.partition == "link" and link_exists(port):
        run(["ip", "link", "set", port, "up"])
    elif fault.partition == "reject" and grounds.pid(name):
        _nft_inside(grounds, name, forget("inet", "lab_fault"))
    elif fault.partition:
        run(["nft", "-f", "-"], input=forget("bridge", grounds.slot.table(grounds.state.nodes[name].index)))
    if fault.delay_ms and not keep_delay:
        _quicken(grounds, name, port)
    _remember(grounds, name, Fault(delay_ms=fault.delay_ms if keep_delay else 0))


def slow(grounds: Grounds, name: str, delay_ms: float) -> None:
    """Hold back every frame by `delay_ms` in each direction, so that a round trip takes twice that longer."""
    port, fault = _port(grounds, name), grounds.fault(name)
    if fault.delay_ms:
        _quicken(grounds, name, port)
    _remember(grounds, name, Fault(partition=fault.partition, delay_ms=delay_ms))
    _slow_down(grounds, name, port, delay_ms)


def restore(grounds: Grounds, name: str) -> None:
    """After a node was switched on again: its new cable has the faults of the old one."""
    fault = grounds.fault(name)
    if fault.delay_ms:
        port = _port(grounds, name)
        _quicken(grounds, name, port)
        _slow_down(grounds, name, port, fault.delay_ms)
    if fault.partition in ("link", "reject"):
        partition(grounds, name, "link" if fault.partition == "link" else "reject")


def _port(grounds: Grounds, name: str) -> str:
    port = grounds.state.port(name)
    if port is None:
        raise LabError(f"{name} hangs off another node; faults are for nodes on the lab's bridge")
    return port


def _remember(grounds: Grounds, name: str, fault: Fault) -> None:
    grounds.state.faults[name] = fault
    grounds.save()


def _silence_table(grounds: Grounds, name: str, port: str, mode: Mode) -> str:
    table = grounds.slot.table(grounds.state.nodes[name].index)
    links = f'{{ "{port}", "{port}e" }}'
    come, go = f"iifname {links}", f"oifname {links}"
    rules = {
        "drop": [f"{come} {IP} drop", f"{go} {IP} drop"],
        "oneway": [f"{come} {IP} drop"],
        "ssh": [f"{come} tcp sport 22 drop", f"{go} tcp dport 22 drop"],
    }[mode]
    body = "; ".join([NEIGHBOURS, *rules])
    chains = [
        f"chain {hook} {{ type filter hook {hook} priority -200; {body}; }}" for hook in ("input", "forward", "output")
    ]
    return "\n".join([f"table bridge {table} {{", *chains, "}", ""])


def _reject_table() -> str:
    rules = f"{NEIGHBOURS.removeprefix('ether type ip6 ')}; meta l4proto tcp reject with tcp reset; reject"
    entry = "chain input { type filter hook input priority -300; iifname eth0 jump refuse; }"
    return f"table inet lab_fault {{\nchain refuse {{ {rules}; }}\n{entry}\n}}\n"


def _nft_inside(grounds: Grounds, name: str, text: str) -> None:
    """With this machine's nft in the node's network: a bare machine has none."""
    run(["nsenter", f"--net=/proc/{grounds.live_pid(name)}/ns/net", "--", "nft", "-f", "-"], input=text)


def _slow_down(grounds: Grounds, name: str, port: str, delay_ms: float) -> None:
    """Put a relay between the node's port and the bridge: not every kernel has netem."""
    inner, outer = f"{port}d", f"{port}e"
    ip_batch(
        [
            f"link set {port} nomaster",
            f"link add {inner} type veth peer name {outer}",
            f"link set {inner} addrgenmode none",
            f"link set {outer} addrgenmode none",
            f"link set {outer} master {grounds.slot.bridge}",
            f"link set {inner} up",
            f"link set {outer} up",
        ]
    )
    words = [port, inner, str(delay_ms), str(grounds.slot.pids), f"relay-{name}"]
    run([sys.executable, "-S", "-m", "tests.lab.relay", *words])


def _quicken(grounds: Grounds, name: str, port: str) -> None:
    grounds.processes.kill([f"relay-{name}"])
    lines = [f"link del {port}d"] if link_exists(f"{port}d") else []
    if link_exists(port):
        lines.append(f"link set {port} master {grounds.slot.bridge}")
    ip_batch(lines)
