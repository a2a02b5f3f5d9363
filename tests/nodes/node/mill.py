"""Hundreds of sessions a second on a machine's real interface, and what they may not change: kernel and state."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.nodes.node.machine import SCRIPT, Json, Machine

CODES = ["bad_request", "stale", "base", "digest", "brake", "conflict", "observe_only", "kernel", "disk", "busy"]
FORKED = Path(__file__).with_name("forked.py")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: bytes

    def replies(self) -> list[Json]:
        """Its lines, each of them one JSON object."""
        *lines, rest = self.out.split(b"\n")
        assert rest == b"", self
        return [json.loads(line, parse_constant=_no_constant) for line in lines]


def _no_constant(text: str) -> Any:
    raise AssertionError(text + " in an answer")


class Mill:
    """Commands of the script in a machine that holds wg0."""

    def __init__(self, machine: Machine) -> None:
        self.root = Path(f"/proc/{machine.enter[2]}/root")
        words = [*machine.enter, sys.executable, "-IS", str(FORKED), str(SCRIPT)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, *words: str, data: bytes = b"") -> Done:
        asked, told = self.process.stdin, self.process.stdout
        assert asked and told
        asked.write(json.dumps({"words": words, "size": len(data)}).encode() + b"\n" + data)
        asked.flush()
        reply = json.loads(told.readline())
        return Done(reply["code"], *(told.read(size) for size in reply["sizes"]))

    def session(self, data: bytes, *words: str) -> Done:
        return self.run("session", *words, "wg0", data=data)

    def state(self) -> bytes:
        return (self.root / "var/lib/muster/wg0/state").read_bytes()

    def tell_kernel(self, text: str) -> str:
        """What the interface answers when spoken to as wg does."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.root / "run/wireguard/wg0.sock"))
            link.sendall(text.encode())
            data = b""
            while not data.endswith(b"errno=0\n\n"):
                data += link.recv(65536)
        return data.decode().removesuffix("errno=0\n\n")

    def kernel(self) -> list[str]:
        """All that the interface knows, keys too, a peer an entry; as `wg show wg0 dump` gets it."""
        return sorted(self.tell_kernel("get=1\n\n").split("public_key="))

    def running(self) -> set[str]:
        """The public keys of the peers in the kernel."""
        hexes = [row[:64] for row in self.tell_kernel("get=1\n\n").split("public_key=")[1:]]
        return {base64.b64encode(bytes.fromhex(text)).decode() for text in hexes}

    def by_hand(self, key: str, *words: str) -> None:
        """Changes a peer as somebody with `wg set` would."""
        self.tell_kernel("\n".join(["set=1", "public_key=" + base64.b64decode(key).hex(), *words, "", ""]))

    def picture(self) -> tuple[bytes, list[str]]:
        """State and kernel as they are, byte for byte."""
        return self.state(), self.kernel()

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()


def check(reply: Json) -> None:
    """One answer of the protocol, whatever was asked; never a defect."""
    assert reply["v"] == 1
    if not reply["ok"]:
        assert reply["error"]["code"] in CODES, reply
        assert reply["error"]["message"]
