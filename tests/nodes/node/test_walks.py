"""Random walks over all that can happen to an interface, beside a small model of what must hold after each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.nodes.node.build import Json, digest_of, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session
from tests.nodes.node.mill import Mill, check

PEOPLE = 6
SETTINGS = settings(
    derandomize=True,
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    database=None,
    # One machine for all walks: nothing to be found by trying parts of one again.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
someone = st.integers(0, PEOPLE - 1)
some = st.sets(someone, min_size=1, max_size=3)
KINDS: list[Json] = [{}, {"preshared_key": None}, {"allowed_ips": []}, {"expires_at": 1}, {"expires_at": 2**40}]
# Mostly plain peers, so that more than a few run.
content = st.dictionaries(someone, st.sampled_from([0, 0, 0, 1, 2, 3, 4]))


class Ground:
    """What outlives a walk: the machine, two sessions, and numbers that no other walk uses."""

    def __init__(self, machine: Machine) -> None:
        self.mill = Mill(machine)
        self.main, self.fast = machine.session("wg0"), machine.session("wg0")
        self.walks = self.generation = self.seen = self.steps = 0
        self.done: dict[str, int] = {}


class Walk(RuleBasedStateMachine):
    """`held` is the state, `dead` the tombstones; `planted`, `taken_out` are what hands did since the last repair."""

    ground: ClassVar[Ground]

    def __init__(self) -> None:
        super().__init__()
        self.mill = self.ground.mill
        self.held: dict[str, Json] = {}
        self.dead: set[str] = set()
        self.planted: set[str] = set()
        self.taken_out: set[str] = set()
        self.last: Json = {}

    def key(self, number: int) -> str:
        return make_key(self.ground.walks * 1000 + number)

    def peer(self, number: int, kind: int) -> Json:
        return make_peer(number, **{"public_key": self.key(number), **KINDS[kind]})

    def ask(self, session: Session, op: str, **fields: object) -> Json:
        reply = session.ask(op, **fields)
        check(reply)
        self.ground.steps += 1
        name = op + ("" if reply["ok"] else " " + reply["error"]["code"])
        self.ground.done[name] = self.ground.done.get(name, 0) + 1
        return reply

    def unseen(self, seen: int, *whats: str) -> set[str]:
        """Keys that were shut here by entries of the journal after that one."""
        entries = self.ground.fast.ask("journal", after=seen)["entries"]
        return {entry["public_key"] for entry in entries if entry["what"] in whats}

    def head(self) -> int:
        return int(self.ground.fast.ask("hello")["state"]["journal"])

    @initialize()
    def begin(self) -> None:
        self.ground.walks += 1
        # Also after a walk that failed in the middle, and is now looked into.
        self.ground.generation = self.ground.main.ask("hello")["state"]["generation"]
        self.push(True, {}, True)

    @rule(whole=st.booleans(), content=content, knows=st.booleans())
    def push(self, whole: bool, content: dict[int, int], knows: bool) -> None:
        """A push of a Console that has read the journal, or of one that has not since its last."""
        peers = [self.peer(number, kind) for number, kind in sorted(content.items())]
        ways: Json = {"approved": True, "journal_seen": self.head() if knows else self.ground.seen}
        number = self.ground.generation + 1
        fields = make_whole(number, peers, **ways)
        if not whole and self.ground.generation:
            fields = make_delta(number, list(self.held.values()), peers, **ways)
        reply = self.ask(self.ground.main, "apply", **fields)
        asked = {str(peer["public_key"]) for peer in peers}
        shut = self.unseen(ways["journal_seen"], "suspended", "revoked") & asked
        if shut:
            assert (reply["error"]["code"], reply["error"]["keys"]) == ("conflict", sorted(shut))
            return
        assert reply["result"] == "applied", reply
        assert (reply["withheld"], reply["drift"]) == (sorted(asked & self.dead), [])
        self.held = {peer["public_key"]: peer for peer in peers if peer["public_key"] not in self.dead}
        self.ground.generation, self.last = number, fields
        self.ground.seen = max(self.ground.seen, ways["journal_seen"])
        self.is_put_right()

    @rule(content=content, back=st.integers(0, 3))
    def push_late(self, content: dict[int, int], back: int) -> None:
        """One that was overtaken."""
        peers = [self.peer(number, kind) for number, kind in content.items()] + [self.peer(900, 0)]
        before = self.mill.picture()
        fields = make_whole(max(self.ground.generation - back, 0), peers, approved=True)
        assert self.ask(self.ground.main, "apply", **fields)["error"]["code"] == "stale"
        assert self.mill.state() == before[0]

    @precondition(lambda self: self.last)
    @rule()
    def push_again(self) -> None:
        reply = self.ask(self.ground.main, "apply", **self.last)
        if reply["ok"]:
            assert reply["result"] == "already"
            self.is_put_right()
        else:
            assert reply["error"]["code"] == "conflict"

    @rule(numbers=some, at_the_machine=st.booleans())
    def revoke(self, numbers: set[int], at_the_machine: bool) -> None:
        keys = [self.key(number) for number in numbers]
        self.dead.update(keys)
        if at_the_machine:
            done = self.mill.run("revoke", "wg0", *keys, "--reason", "lost")
            assert (done.code, done.err) == (0, b"")
            (reply,) = done.replies()
        else:
            reply = self.ask(self.ground.fast, "revoke", keys=[{"public_key": key, "reason": ""} for key in keys])
        for receipt in reply["receipts"]:
            assert receipt["durable"] and receipt["kernel"] and receipt["disk"], receipt
        self.held = {key: peer for key, peer in self.held.items() if key not in self.dead}
        self.planted -= self.dead & set(keys)

    @rule(numbers=some)
    def suspend(self, numbers: set[int]) -> None:
        keys = [self.key(number) for number in numbers]
        known = set(keys) <= self.held.keys() | self.mill.running()
        done = self.mill.run("suspend", "wg0", *keys, "--reason", "stolen")
        assert (done.code, done.err) == (0 if known else 1, b"")
        if not known:
            return
        assert not self.mill.running() & set(keys)
        self.planted -= set(keys)

    @rule(number=someone, is_foreign=st.booleans())
    def add_by_hand(self, number: int, is_foreign: bool) -> None:
        key = self.key(number + (500 if is_foreign else 0))
        self.mill.by_hand(key)
        self.planted.add(key)
        self.taken_out.discard(key)

    @rule(place=st.integers(0, 9), is_seen=st.booleans())
    def remove_by_hand(self, place: int, is_seen: bool) -> None:
        running = sorted(self.mill.running())
        key = running[place % len(running)] if running else self.key(place)
        if running and key in self.wanted() - self.planted:
            self.taken_out.add(key)
        self.mill.by_hand(key, "remove=true")
        self.planted.discard(key)
        if is_seen:
            self.tick(True)

    @rule()
    def remove_all_by_hand(self) -> None:
        for key in self.mill.running():
            self.mill.by_hand(key, "remove=true")
        self.planted.clear()
        self.taken_out.clear()

    @rule(number=someone)
    def change_by_hand(self, number: int) -> None:
        if self.key(number) in self.mill.running():
            self.mill.by_hand(self.key(number), "replace_allowed_ips=true", "allowed_ip=10.1.0.3/32")

    @rule(is_daemon=st.booleans())
    def tick(self, is_daemon: bool) -> None:
        done = self.mill.run("kept-tick" if is_daemon else "tick", "wg0")
        assert (done.code, done.out) == (0, b"" if is_daemon else b'{"ok":true}\n'), done
        lone = self.wanted() - self.taken_out
        if lone or len(self.taken_out) == 1:
            assert not self.mill.running() & self.taken_out
        self.is_put_right()

    @rule(full=st.booleans())
    def observe(self, full: bool) -> None:
        reply = self.ask(self.ground.main, "observe", full=full)
        missing = {row["public_key"] for row in reply["drift"] if row["what"] == "missing"}
        assert missing == self.wanted() - self.mill.running()

    def wanted(self) -> set[str]:
        """Of the state: what is not dead, not shut here, not past its expiry."""
        alive = {key for key, peer in self.held.items() if peer["expires_at"] in (None, 2**40)}
        return alive - self.dead - self.unseen(self.ground.seen, "suspended")

    def is_put_right(self) -> None:
        self.planted.clear()
        self.taken_out.clear()
        assert self.mill.running() == self.wanted()

    @invariant()
    def nothing_dead_runs_and_nothing_falls_back(self) -> None:
        assert self.mill.running() & self.dead - self.planted == set()
        state = self.ground.fast.ask("hello")["state"]
        assert (state["generation"], state["peers"]) == (self.ground.generation, len(self.held))
        assert state["digest"] == digest_of(list(self.held.values()))


@pytest.fixture
def ground(machine: Machine) -> Iterator[Ground]:
    machine.make_interface()
    ground = Ground(machine)
    yield ground
    ground.mill.end()


def test_whatever_happens_in_whatever_order_the_dead_stay_dead_and_a_tick_puts_it_right(ground: Ground) -> None:
    """A12, E8: pushes, revokes, suspends and hands, with a session and a daemon that remember."""
    Walk.ground = ground
    run_state_machine_as_test(Walk, settings=SETTINGS)
    print(ground.walks, "walks,", ground.steps, "requests", sorted(ground.done.items()))
    assert ground.walks >= SETTINGS.max_examples
    assert {"apply", "apply conflict", "apply stale", "revoke", "observe"} <= set(ground.done)
