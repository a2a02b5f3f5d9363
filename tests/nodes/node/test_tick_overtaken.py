"""A tick that is overtaken by a push between its first look and its lock."""

from __future__ import annotations

from tests.lab.waiting import wait_for
from tests.nodes.node.build import make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(8)]
# Its first lock is the journal's; then comes the one that pushes take.
STOPPED = "exec strace -qq -o /run/stops -e trace=flock -e inject=flock:signal=SIGSTOP:when=1 "


def test_a_tick_that_a_push_overtakes_does_not_bring_back_who_was_withdrawn(machine: Machine, session: Session) -> None:
    """E7."""
    node = " ".join(machine.words("muster-node", "tick", "wg0")[len(machine.enter) :])
    process = machine.popen("sh", "-c", STOPPED + node)
    is_stopped = "! grep -qs 'stopped by SIGSTOP' /run/stops || pgrep -P $(pgrep -x strace)"
    pid = wait_for(lambda: machine.sh(is_stopped).strip(), 20, "the tick to be stopped")
    assert session.ask("apply", **make_whole(2, PEERS[1:]))["result"] == "applied"
    machine.sh(f"kill -CONT {pid}")
    assert process.communicate(timeout=20)[0] == b'{"ok":true}\n'
    assert set(machine.peers()) == {make_key(n) for n in range(1, 8)}
    assert [entry["what"] for entry in session.ask("journal", after=0)["entries"]] == []
