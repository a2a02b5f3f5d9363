"""What a lab is made of, as data in one JSON file, so that a later process can take over or clean up."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["server", "client", "host"]


@dataclass(frozen=True)
class Node:
    """One machine of the lab; `lower` is the root its own disk lies upon."""

    name: str
    index: int
    role: Role
    address: str
    address6: str
    lower: str = "/"
    host_key: str = ""
    behind: str = ""


@dataclass(frozen=True)
class End:
    """One end of a wire: an interface of a node, with addresses (with prefix) and default gateways."""

    node: str
    interface: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wire:
    """A cable from one node to another, or (near is None) to the lab's bridge by the link `port`."""

    near: End | None
    far: End
    port: str = ""

    def ends(self) -> list[End]:
        """The ends that are on nodes."""
        return [self.far] if self.near is None else [self.near, self.far]


@dataclass
class Fault:
    """What is wrong with a node's cable on purpose."""

    partition: str = ""
    delay_ms: float = 0


@dataclass
class State:
    """Everything a lab made that outlives a call."""

    slot: int
    detached: bool = False
    counter: int = 0
    nodes: dict[str, Node] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Replace the file in one step."""
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.rename(file)

    def port(self, name: str) -> str | None:
        """The link on the bridge that a node hangs off; None for a node behind another one."""
        return next((w.port for w in self.wires if w.near is None and w.far.node == name), None)


def load(file: Path) -> State:
    """Read a State back; raise FileNotFoundError where there is none."""
    data = json.loads(file.read_text())
    return State(
        slot=data["slot"],
        detached=data["detached"],
        counter=data["counter"],
        nodes={name: Node(**node) for name, node in data["nodes"].items()},
        wires=[_wire(wire) for wire in data["wires"]],
        faults={name: Fault(**fault) for name, fault in data["faults"].items()},
    )


def _wire(data: dict[str, Any]) -> Wire:
    return Wire(near=_end(data["near"]) if data["near"] else None, far=_end(data["far"]), port=data["port"])


def _end(data: dict[str, Any]) -> End:
    return End(data["node"], data["interface"], tuple(data["addresses"]), tuple(data["gateways"]))
