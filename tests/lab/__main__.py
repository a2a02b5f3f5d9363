"""A lab by hand: `python -m tests.lab up --servers 3 --clients 4`, then status, exec, faults, power, down."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

from tests.lab.commands import NODE_ENVIRONMENT, LabError, link_exists
from tests.lab.grounds import Grounds
from tests.lab.lab import Lab
from tests.lab.machines import Machine
from tests.lab.slots import SLOTS, Slot
from tests.lab.state import Node, load

ACTS: dict[str, Callable[[Machine, argparse.Namespace], None]] = {
    "partition": lambda machine, words: machine.partition(words.mode),
    "slow": lambda machine, words: machine.slow(words.delay_ms),
    "heal": lambda machine, words: machine.heal(),
    "off": lambda machine, words: machine.power_off(),
    "on": lambda machine, words: machine.power_on(),
    "reboot": lambda machine, words: machine.reboot(),
}


def up(words: argparse.Namespace) -> None:
    """Make a lab and leave it running."""
    began = time.monotonic()
    lab = Lab(words.slot)
    try:
        lab.add_servers(words.servers, peers=words.peers)
        for _ in range(words.bare):
            lab.add_bare_server()
        lab.add_clients(words.clients)
    except BaseException:
        lab.close()
        raise
    lab.detach()
    print(f"slot {lab.slot}: {len(lab.machines)} machines in {time.monotonic() - began:.2f} s")
    print(f"they let in ssh key {lab.ssh_key}")


def status(words: argparse.Namespace) -> None:
    """Tell about every lab of this machine, as text or JSON."""
    labs = {slot.number: _describe(slot) for slot in map(Slot, range(SLOTS)) if slot.state_file.exists()}
    if words.json:
        print(json.dumps(labs, indent=1))
        return
    for number, nodes in labs.items():
        for node in nodes:
            print(f"{number:>2}  {node['name']:16} {node['address']:16} {node['power']:4} {node['fault']}")


def _describe(slot: Slot) -> list[dict[str, str]]:
    grounds = Grounds(slot, load(slot.state_file))
    return [_describe_node(grounds, node) for node in grounds.state.nodes.values()]


def _describe_node(grounds: Grounds, node: Node) -> dict[str, str]:
    fault = grounds.fault(node.name)
    slowness = f"slow {fault.delay_ms:g} ms" if fault.delay_ms else ""
    return {
        "name": node.name,
        "role": node.role,
        "address": node.address,
        "address6": node.address6,
        "host_key": node.host_key,
        "power": "on" if grounds.pid(node.name) else "off",
        "fault": " ".join(filter(None, [fault.partition, slowness])),
    }


def execute(words: argparse.Namespace) -> None:
    """Become a command in a machine; works beside the process that owns the lab."""
    slot = Slot(_slot(words))
    command = words.command[1:] if words.command[:1] == ["--"] else words.command
    line = [*Grounds(slot, load(slot.state_file)).inside(words.name), *(command or ["/bin/bash"])]
    environment = {**NODE_ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    os.execvpe(line[0], line, environment)


def act(words: argparse.Namespace) -> None:
    """Do something to machines of a lab that was left running."""
    with Lab.attach(_slot(words)) as lab:
        for name in words.names:
            ACTS[words.verb](lab.machine(name), words)


def down(words: argparse.Namespace) -> None:
    """Take away every lab (or the one of --slot) whose process is gone, left running on purpose or not."""
    began = time.monotonic()
    swept = Lab.sweep(words.slot, detached=True)
    left = [number for number in range(SLOTS) if link_exists(Slot(number).bridge)]
    print(f"took away {swept} in {time.monotonic() - began:.2f} s; in use by others: {left}")


def _slot(words: argparse.Namespace) -> int:
    """The slot that was named, or the only one there is."""
    there = [number for number in range(SLOTS) if Slot(number).state_file.exists()]
    if words.slot is not None:
        return int(words.slot)
    if len(there) != 1:
        raise LabError(f"say --slot: labs are up in slots {there}")
    return there[0]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    top.add_argument("--slot", type=int, choices=range(SLOTS), metavar="0..15")
    verbs = top.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("up", help="make a lab and leave it running")
    add.add_argument("--servers", type=int, default=3)
    add.add_argument("--clients", type=int, default=0)
    add.add_argument("--bare", type=int, default=0, help="servers with python3, sshd and apt only")
    add.add_argument("--peers", type=int, help="give each server a wg0 with that many dummy peers")
    add.set_defaults(run=up)
    tell = verbs.add_parser("status", help="list the machines of every lab")
    tell.add_argument("--json", action="store_true")
    tell.set_defaults(run=status)
    inside = verbs.add_parser("exec", help="run a command in a machine: exec NAME -- COMMAND...")
    inside.add_argument("name")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    inside.set_defaults(run=execute)
    verbs.add_parser("down", help="take away every lab that no process owns").set_defaults(run=down)
    for verb in ACTS:
        _add_act(verbs.add_parser(verb), verb)
    return top


def _add_act(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument("names", nargs="+")
    if verb == "partition":
        parser.add_argument("--mode", choices=("drop", "reject", "ssh", "oneway", "link"), default="drop")
    if verb == "slow":
        parser.add_argument("--delay-ms", type=float, default=40, help="each way")
    parser.set_defaults(run=act)


def main() -> None:
    """Run one command; a LabError is a message, not a traceback."""
    words = parser().parse_args()
    try:
        words.run(words)
    except LabError as error:
        sys.exit(f"lab: {error}")


if __name__ == "__main__":
    main()
