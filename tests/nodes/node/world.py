"""What one machine should hold while its node is killed over and over, and how that is judged from outside."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nodes.script import muster_node as node
from tests.lab.waiting import wait_for
from tests.nodes.node.build import Json, dead, digest_of, make_delta, make_key, make_peer, make_whole, text_of

PROGRAM = [sys.executable, "-IS", node.__file__]
LIB, RUN = Path("/var/lib/muster"), Path("/run/muster")
LINE = re.compile(r'\{"at":\d+,"public_key":"([A-Za-z0-9+/]{43}=)","reason":"[^"]*"\}')
FILES = {"tombstones", "tombstones.copy", "clock", "wg0/state", "wg0/state.last", "wg0/journal"}
SIZES = (6, 3, 130, 30)
CLEAN = {"durable": True, "kernel": True, "disk": True, "found": []}


def fresh() -> node.Node:
    return node.Node("wg0", node.Paths())


def kernel() -> set[str]:
    return set(
        subprocess.run(["wg", "show", "wg0", "peers"], capture_output=True, text=True, check=True).stdout.split()
    )


def entries() -> list[Json]:
    """The journal's entries, each checked against the one before; those that wait under /run stand last.

    Where one that waited was lost with the power, the next has a number that the Console has not read.
    """
    rows = [json.loads(line) for path in (LIB / "wg0/journal", RUN / "wg0.journal") for line in whole_lines(path)]
    unique = [row for number, row in enumerate(rows) if row not in rows[:number]]
    previous, last = "0" * 64, 0
    for row in unique:
        assert row["seq"] > last and row["previous"] == previous, (last, row)
        previous, last = hashlib.sha256(text_of(row).encode()).hexdigest(), row["seq"]
    return unique


def whole_lines(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().split("\n")[:-1]
    return []


def tombstones(path: Path) -> set[str]:
    """The keys in a file of tombstones, of which every line must be whole or torn off."""
    found = {line: LINE.fullmatch(line) for line in whole_lines(path)}
    assert [line for line, match in found.items() if not match and line.endswith('"}')] == []
    return {match.group(1) for match in found.values() if match}


@dataclass(frozen=True)
class Trial:
    """A request, where it may leave the state (generation, peers), and where it ends when it is sent again."""

    request: Json
    outcomes: list[tuple[int, list[Json]]]
    victims: set[str]

    @property
    def end(self) -> tuple[int, list[Json]]:
        return self.outcomes[-1]


@dataclass
class World:
    """The peers held by the node of wg0, and every key that may never run again."""

    rng: random.Random
    generation: int = 0
    peers: list[Json] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    seen: int = 0
    trials: int = 0
    session: node.Node = field(default_factory=fresh)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def serve(self, request: Json) -> Json:
        """One request on a session that is open for long and sees only by the files what others did meanwhile."""
        line = json.dumps({"v": 1, "id": 1, **request}).encode()
        reply: Json = node.answer(self.session, node.parse_json(line), observe_only=False)
        return reply

    def refresh(self) -> None:
        """Now and then another number of peers, and no old tombstones."""
        if self.trials % 13 == 0 or len(self.peers) < 3:
            self.begin(SIZES[self.trials // 13 % len(SIZES)])
        self.trials += 1

    def begin(self, size: int) -> None:
        """Nothing but one push of so many peers, at a generation that this machine never saw."""
        for folder in (LIB, RUN):
            shutil.rmtree(folder, ignore_errors=True)
        self.session = fresh()
        self.peers, self.dead, self.seen = [self.new_peer() for _ in range(size)], {make_key(0)}, 0
        assert self.serve(self.push(self.peers))["ok"]
        self.generation += 1
        assert self.serve({"op": "revoke", "keys": [dead(0)]})["ok"]

    def new_peer(self) -> Json:
        number = next(self.numbers)
        return make_peer(number, allowed_ips=[f"10.1.{number // 250}.{number % 250 + 2}/32"])

    def push(self, peers: list[Json], **changes: object) -> Json:
        ways = {"approved": True, "journal_seen": self.seen, **changes}
        return {"op": "apply", **make_whole(self.generation + 1, peers, **ways)}

    def content(self) -> tuple[list[Json], list[Json], list[Json]]:
        """(who dies, what then is held, what a push asks for): one more goes, one changes, others come."""
        lot = self.rng.sample(self.peers, len(self.peers))
        doomed, rest = lot[:2], lot[2:]
        held = [peer for peer in self.peers if peer in rest]
        changed = [peer | {"preshared_key": None} if peer == rest[0] else peer for peer in held if peer != rest[-1]]
        return doomed, held, changed + [self.new_peer() for _ in range(self.rng.randint(3, 5))]

    def trial(self, kind: str) -> Trial:
        doomed, rest, after = self.content()
        keys = {peer["public_key"] for peer in doomed}
        stones = [{"public_key": key, "reason": "test"} for key in [*keys, make_key(next(self.numbers))]]
        outcomes = [(self.generation, self.peers), (self.generation, rest)]
        request: Json = {"op": "revoke", "keys": stones}
        if kind == "revoke":
            return Trial(request, outcomes, {item["public_key"] for item in stones})
        request = self.push(after, tombstones=stones)
        if kind == "delta":
            ways = {"approved": True, "journal_seen": self.seen, "tombstones": stones}
            request = {"op": "apply", **make_delta(self.generation + 1, rest, after, **ways)}
        outcomes.append((self.generation + 1, after))
        return Trial(request, outcomes, {item["public_key"] for item in stones})

    def state(self) -> tuple[int, str, set[str]]:
        """(generation, digest, keys) out of the state file, which must be whole and no older than what was there."""
        check, _, rest = (LIB / "wg0/state").read_text().partition("\n")
        assert hashlib.sha256(rest.encode()).hexdigest() == check
        head, interface, *rows = rest.split("\n")[:-1]
        _, generation, _, digest, _ = json.loads(head)
        assert digest_of([json.loads(row) for row in rows], json.loads(interface)) == digest
        assert generation >= self.generation
        return generation, digest, {json.loads(row)["public_key"] for row in rows}

    def judge(self, trial: Trial) -> None:
        """Right after the kill: the old or the new, every file can be read, tombstones are all there or none."""
        generation, digest, _ = self.state()
        assert (generation, digest) in {(number, digest_of(peers)) for number, peers in trial.outcomes}
        for path in (LIB / "clock", RUN / "clock", RUN / "wg0.seen"):
            assert not path.exists() or json.loads(path.read_text())
        entries()
        both = tombstones(LIB / "tombstones") | tombstones(LIB / "tombstones.copy")
        assert self.dead <= both
        assert trial.victims & both in (set(), trial.victims)
        if trial.victims <= both:
            self.dead |= trial.victims

    def check_kernel(self) -> None:
        """Who runs is who is in the state, but for the dead and those shut at the machine."""
        shut = {row["public_key"] for row in entries() if row["what"] == "suspended" and row["seq"] > self.seen}
        wanted = self.state()[2] - self.dead - shut
        assert kernel() == wanted, (kernel() - wanted, wanted - kernel(), shut)

    def finish(self, trial: Trial) -> None:
        """The same request again brings it to its end, with proof."""
        reply = self.serve(trial.request)
        assert reply["ok"], reply
        assert [row for row in reply.get("receipts", []) if {**row, **CLEAN} != row] == []
        assert reply.get("drift", []) == []
        self.dead |= trial.victims
        self.generation, self.peers = trial.end
        assert self.state()[:2] == (self.generation, digest_of(self.peers))
        self.check_kernel()
        for path in (LIB / "tombstones", LIB / "tombstones.copy"):
            assert self.dead <= tombstones(path), path
        # The clock is written once a minute, or where a peer goes: what a kill left of it may wait for that.
        left = {str(path.relative_to(LIB)) for path in LIB.rglob("*") if path.is_file()} - {"clock.new"}
        assert left <= FILES


# ---------------------------------------------------------------- what may come after a kill


def load(_world: World, _trial: Trial) -> None:
    fresh().load()


def reboot(world: World, _trial: Trial) -> None:
    """All that is in memory goes; the interface is made anew, with a dead peer on it until the last hook."""
    subprocess.run(["rm", "-rf", str(RUN)], check=True)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    fresh().close()
    renew()
    subprocess.run(["wg", "set", "wg0", "peer", min(world.dead)], check=True)
    fresh().load()
    world.session = fresh()


def renew() -> None:
    """Another interface of the same name, with no peers."""
    subprocess.run(["ip", "link", "del", "wg0"], check=True)
    wait_for(lambda: not Path("/run/wireguard/wg0.sock").exists(), 10, "wireguard-go to end")
    subprocess.run(["wg-quick", "up", "wg0"], check=True, capture_output=True)


def tick(_world: World, _trial: Trial) -> None:
    assert fresh().tick() == {}
