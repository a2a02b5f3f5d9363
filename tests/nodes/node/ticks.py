"""Kills the daemon in its tick, over a machine on which all sorts of things are wrong."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections import Counter
from subprocess import DEVNULL, Popen
from types import SimpleNamespace

from nodes.script import muster_node as node
from tests.nodes.node.build import Json, digest_of, make_key
from tests.nodes.node.failpoints import Point, in_a_fork, killed_at, timed, told
from tests.nodes.node.world import (
    LIB,
    PROGRAM,
    RUN,
    Trial,
    World,
    entries,
    load,
    reboot,
    renew,
    tick,
    tombstones,
    whole_lines,
)

TICKED = (
    "fsync clock",
    "rename clock",
    "fsync tombstones",
    "fsync journal",
    "fsync seen",
    "rename wg0.seen",
    "kernel",
    "read-back",
)


def at_ticks(world: World, _kind: str, times: int) -> Counter[str]:
    """The daemon's tick over a machine in which all sorts of things are wrong, killed at each of its steps."""
    done: Counter[str] = Counter()
    for step, is_after in [(step, is_after) for step in TICKED for is_after in (False, True)]:
        name = f"{'after' if is_after else 'before'} {step}"
        for number in range(3 * times):
            if done[name] == times:
                break
            world.refresh()
            harm(world, number)
            trial, point = (
                Trial({}, [(world.generation, world.peers)], set()),
                Point(step, 1 + number // 2 % 2, is_after),
            )
            with told(f"{point}, {AFTER_TICK[done[name] % len(AFTER_TICK)].__name__}, time {number}"):
                before = entries()
                code = in_a_fork(one_tick, killed_at(point))
                world.judge(trial)
                assert entries()[: len(before)] == before
                AFTER_TICK[done[name] % len(AFTER_TICK)](world, trial)
                heal(world, trial)
                done[name] += code == -signal.SIGKILL
    return done


def random_ticks(world: World, _kind: str, times: int) -> Counter[str]:
    """The real daemon, killed at any moment of its first tick."""
    starts = timed(lambda: subprocess.run([*PROGRAM, "--version"], check=True, capture_output=True)) / 1.3
    for number in range(times):
        world.refresh()
        harm(world, number)
        with Popen([*PROGRAM, "daemon"], stdout=DEVNULL, stderr=DEVNULL) as process, told(f"time {number}"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(starts + world.rng.uniform(0, 0.1))
            process.kill()
            assert process.wait() == -signal.SIGKILL
            trial = Trial({}, [(world.generation, world.peers)], set())
            world.judge(trial)
            AFTER_TICK[number % len(AFTER_TICK)](world, trial)
            heal(world, trial)
    return Counter({"daemon": times})


def one_tick() -> None:
    """The daemon until it would sleep."""

    def awake(seconds: float) -> None:
        if seconds == node.TICK:
            raise SystemExit
        sleep(seconds)

    sleep = time.sleep
    vars(node)["time"] = SimpleNamespace(**{**vars(time), "sleep": awake})
    with contextlib.suppress(SystemExit):
        node.daemon(node.Paths())


def harm(world: World, number: int) -> None:
    """Something for every part of a tick: clock, tombstones, journal, kernel."""
    if number % 4 == 1:
        renew()
    for path in (LIB / "clock", RUN / "clock"):
        if path.exists():
            moment, boot, *rest = json.loads(path.read_text())
            path.write_text(json.dumps([moment - 100, boot - 100, *rest]))
    (LIB / ("tombstones", "tombstones.copy")[number % 2]).write_text('{"at":1' if number % 3 else "")
    lines = whole_lines(LIB / "wg0/journal")
    if lines and number % 2:
        (LIB / "wg0/journal").write_text("".join(line + "\n" for line in lines[:-1]))
        (RUN / "wg0.journal").write_text(lines[-1] + "\n")
    by_hand = ["peer", make_key(next(world.numbers)), "peer", min(world.dead)]
    if number % 4 in (0, 2):
        by_hand += ["peer", world.peers[number % len(world.peers)]["public_key"], "remove"]
    subprocess.run(["wg", "set", "wg0", *by_hand], check=True)


def heal(world: World, trial: Trial) -> None:
    """Two ticks later all is as it should be, with nobody's help; the Console reads what was written down."""
    for _ in range(2):
        assert in_a_fork(one_tick, lambda _step, _is_after: None) == 0
    world.check_kernel()
    assert world.state()[:2] == (world.generation, digest_of(world.peers))
    for path in (LIB / "tombstones", LIB / "tombstones.copy"):
        assert world.dead <= tombstones(path), path
    assert not (RUN / "wg0.journal").exists()
    console_reads_and_pushes(world, trial)
    world.check_kernel()


def console_reads_and_pushes(world: World, _trial: Trial) -> None:
    """Twice where the push itself finds a peer that somebody took out by hand."""
    replies: list[Json] = []
    while not replies or (len(replies) == 1 and not replies[0]["ok"]):
        world.seen = world.serve({"op": "hello"})["state"]["journal"]
        replies.append(world.serve(world.push(world.peers)))
    assert [reply["error"]["code"] for reply in replies[:-1]] in ([], ["conflict"])
    assert replies[-1]["ok"], replies
    world.generation += 1


def revoke_meanwhile(world: World, _trial: Trial) -> None:
    key = world.peers[0]["public_key"]
    assert world.serve({"op": "revoke", "keys": [{"public_key": key, "reason": "test"}]})["receipts"][0]["kernel"]
    world.dead.add(key)
    world.peers = [*world.peers[1:], world.new_peer()]
    console_reads_and_pushes(world, _trial)


AFTER_TICK = (tick, load, reboot, console_reads_and_pushes, revoke_meanwhile)
