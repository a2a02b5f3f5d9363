"""Kills the node inside a machine, over and over, and judges what is left; answers how often, by point, as JSON.

`python -m tests.nodes.node.killer HOW WHAT TIMES`
"""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from nodes.script import muster_node as node
from tests.nodes.node.build import Json
from tests.nodes.node.failpoints import Point, in_a_fork, killed_at, steps_of, timed, told
from tests.nodes.node.ticks import at_ticks, random_ticks
from tests.nodes.node.world import PROGRAM, Trial, World, fresh, kernel, load, reboot, tick

MAIN = {"fsync tombstones", "fsync state", "rename state", "kernel", "read-back", "answer"}
# How often the other steps: whole and delta have the same.
SIDE = {"revoke": 3, "whole": 3, "delta": 0}
# Where a step becomes lasting, and where it leaves for another program or for the Console.
CALLS = ("fsync", "rename", "link", "unlink", "vfork", "wait4", "write")
MOST = 60


def session(request: Json) -> Callable[[], object]:
    """The work of `muster-node session wg0` that gets this request."""

    def work() -> None:
        line = json.dumps({"v": 1, "id": 1, **request}).encode() + b"\n"
        sys.stdin = io.TextIOWrapper(io.BytesIO(line))
        node.session(fresh(), observe_only=False)

    return work


# ---------------------------------------------------------------- what comes after a kill


def same_again(world: World, trial: Trial) -> None:
    assert world.serve(trial.request)["ok"]


def revoke_again(world: World, trial: Trial) -> None:
    keys = [{"public_key": key, "reason": "again"} for key in trial.victims]
    assert world.serve({"op": "revoke", "keys": keys})["ok"]
    world.dead |= trial.victims
    assert not world.dead & kernel()
    tick(world, trial)


def newer_push(world: World, trial: Trial) -> None:
    """The Console has moved on: what was killed comes too late from then on."""
    generation, peers = trial.end
    world.generation = max(generation, world.generation)
    more = [*peers, world.new_peer()]
    stones = [{"public_key": key, "reason": "test"} for key in trial.victims]
    assert world.serve(world.push(more, tombstones=stones))["ok"]
    world.generation, world.peers, world.dead = world.generation + 1, more, world.dead | trial.victims


AFTERWARDS = (load, reboot, tick, same_again, revoke_again, newer_push)


def aftermath(world: World, trial: Trial, number: int) -> None:
    """Judges what a kill left, lets something happen, judges again, and ends what was begun."""
    world.judge(trial)
    then = AFTERWARDS[number % len(AFTERWARDS)]
    then(world, trial)
    world.check_kernel()
    if then is newer_push and trial.request["op"] == "apply":
        assert world.serve(trial.request)["error"]["code"] == "stale"
    elif then is newer_push:
        assert world.serve(trial.request)["ok"]
        world.check_kernel()
    else:
        world.finish(trial)


# ---------------------------------------------------------------- the ways to kill


def at_points(world: World, kind: str, times: int) -> Counter[str]:
    """Every step of this kind of request, before and after: those of MAIN so many times each, the others thrice."""
    world.begin(6)
    steps = steps_of(session(world.trial(kind).request), Path("/run/steps"))
    done: Counter[str] = Counter()
    for step, is_after in [(step, is_after) for step in steps for is_after in (False, True)]:
        name = f"{'after' if is_after else 'before'} {step}"
        for number in range(2 * times):
            if done[name] == (times if step in MAIN else SIDE[kind]):
                break
            world.refresh()
            trial, point = world.trial(kind), Point(step, 1 + number % steps[step], is_after)
            with told(f"{kind}, {point}, {AFTERWARDS[done[name] % len(AFTERWARDS)].__name__}"):
                # Some steps come again only where there is more to do than in this trial.
                code = in_a_fork(session(trial.request), killed_at(point))
                world.judge(trial)
                # Nothing else is touched before the tombstones are on the disk.
                assert trial.victims <= world.dead or (step, is_after) == ("fsync tombstones", False)
                aftermath(world, trial, done[name])
                done[name] += code == -signal.SIGKILL
    return done


def at_calls(world: World, kind: str, _times: int) -> Counter[str]:
    """The real program, killed at each of these system calls in turn."""
    done: Counter[str] = Counter()
    for call, number in [(call, number) for call in CALLS for number in range(1, MOST)]:
        if done[call] < number - 1:
            continue
        world.begin(6)
        trial = world.trial(kind)
        line = json.dumps({"v": 1, "id": 1, **trial.request}) + "\n"
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
        words = ["strace", "-qq", "-o", "/dev/null", *inject, *PROGRAM, "session", "wg0"]
        ended = subprocess.run(words, input=line, text=True, capture_output=True, check=False)
        with told(f"{kind} killed at {call} {number}"):
            done[call] += ended.returncode == -signal.SIGKILL
            aftermath(world, trial, 0)
    assert max(done.values()) < MOST - 1
    return done


def at_random(world: World, kind: str, times: int) -> Counter[str]:
    """The real program, killed at any moment between the request and a little after its answer."""
    took = 0.0
    done: Counter[str] = Counter()
    for number in range(times + 1):
        world.refresh()
        trial = world.trial(kind)
        with Popen([*PROGRAM, "session", "wg0"], stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
            assert process.stdin and process.stdout
            process.stdin.write(b'{"v":1,"id":1,"op":"hello"}\n')
            process.stdin.flush()
            assert process.stdout.readline()
            process.stdin.write(json.dumps({"v": 1, "id": 2, **trial.request}).encode() + b"\n")
            process.stdin.flush()
            took = took or timed(process.stdout.readline)
            with suppress(TimeoutExpired):
                process.wait(world.rng.uniform(0, took))
            process.kill()
            answered = process.stdout.readline() != b""
        with told(f"{kind} killed at random, time {number}"):
            aftermath(world, trial, number)
        done["after" if answered else "before"] += 1
    return done


WAYS = {"points": at_points, "calls": at_calls, "random": at_random, "ticks": at_ticks, "random-ticks": random_ticks}


def main(how: str, what: str, times: str) -> None:
    began = time.monotonic()
    done = WAYS[how](World(random.Random(what)), what, int(times))  # noqa: S311
    print(json.dumps({"kills": done, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
