"""SIGKILL at every system call that matters, of a revoke and of an apply: the old or the new, never between."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import Json, dead, digest_of, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine

OLD = [make_peer(n) for n in range(6)]
NEW = [*OLD[1:5], make_peer(7), make_peer(8)]
# Where a step becomes lasting, and where it leaves for another program or for the Console.
CALLS = ("fsync", "rename", "link", "unlink", "vfork", "wait4", "write")
MOST = 60
REQUESTS = {
    "revoke": {"op": "revoke", "keys": [dead(0), dead(90)]},
    "apply": {"op": "apply", **make_whole(2, NEW, tombstones=[dead(0), dead(90)])},
}


def kill_at(machine: Machine, call: str, number: int, request: Json) -> bool:
    """Whether the session that got this request was killed: it never came to a call of that number else."""
    line = json.dumps({"v": 1, "id": 1, **request})
    node = " ".join(machine.words("muster-node", "session", "wg0")[len(machine.enter) :])
    inject = f"-e trace={call} -e inject={call}:signal=SIGKILL:when={number}"
    script = f"strace -qq -o /dev/null {inject} {node}; echo $?"
    return machine.run("sh", "-c", script, stdin=line + "\n").splitlines()[-1] == "137"


def points(machine: Machine, request: Json) -> Iterator[tuple[str, int]]:
    """Kills at each call in turn, on a machine that is as it was before."""
    for call in CALLS:
        for number in range(1, MOST):
            set_up(machine)
            if not kill_at(machine, call, number, request):
                break
            yield call, number
        assert number < MOST - 1, f"more than {MOST} calls of {call}"


def set_up(machine: Machine) -> None:
    machine.sh("rm -rf /var/lib/muster /run/muster")
    session = machine.session("wg0")
    assert session.ask("apply", **make_whole(1, OLD))["ok"]
    session.close()
    machine.sessions.remove(session)


@pytest.mark.parametrize("op", REQUESTS)
def test_killed_anywhere_it_is_at_the_old_or_the_new_and_tombstones_hold(machine: Machine, op: str) -> None:
    """E1, F2: then the same request brings it to its end, and so does a boot."""
    machine.make_interface()
    met = []
    for call, number in points(machine, REQUESTS[op]):
        met.append(call)
        where = f"killed at {call} {number} of {op}"
        session = machine.session("wg0")
        state = session.ask("hello")["state"]
        pairs = {(1, digest_of(OLD)), (1, digest_of(OLD[1:])), (2, digest_of(NEW))}
        assert (state["generation"], state["digest"]) in pairs, where
        if state["tombstones"]:
            machine.run("muster-node", "load", "wg0")
            assert make_key(0) not in machine.peers(), where
            assert state["tombstones"] == 2, where
        assert session.ask(**REQUESTS[op])["ok"], where
        assert make_key(0) not in machine.peers(), where
        expected = OLD[1:] if op == "revoke" else NEW
        assert set(machine.peers()) == {peer["public_key"] for peer in expected}, where
        session.close()
        machine.sessions.remove(session)
    assert len(met) >= 8
    assert {"fsync", "rename", "vfork", "write"} <= set(met)
    print(op, len(met), "points", sorted({call: met.count(call) for call in met}.items()))
