"""Each request of the protocol once, in one session: the least that must work under any Python."""

from __future__ import annotations

import subprocess
import time

from tests.nodes.node.build import dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import PROGRAM, PYTHON, Machine, Session

PEERS = [make_peer(n) for n in range(6)]


def test_every_request_is_answered_and_by_the_python_that_was_asked_for(machine: Machine, session: Session) -> None:
    """A boot by the installed program ends it, under the same Python."""
    about = session.ask("hello")["node"]
    asked = subprocess.run([PYTHON, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    assert (about["protocol"], about["python"]) == (1, asked)
    assert session.ask("apply", **make_whole(2, PEERS[1:]), dry_run=True)["would"]["remove"] == [make_key(0)]
    assert session.ask("apply", **make_whole(2, PEERS[1:]))["changed"] == {"added": 0, "removed": 1, "updated": 0}
    [receipt] = session.ask("revoke", keys=[dead(1)])["receipts"]
    assert (receipt["durable"], receipt["kernel"], receipt["disk"]) == (True, True, True)
    now = int(time.time()) - 500
    assert session.ask("time", now=now)["state"]["now"] - now in (0, 1)
    machine.run("wg", "set", "wg0", "peer", make_key(99))
    machine.run("muster-node", "tick", "wg0")
    assert [row["what"] for row in session.ask("journal", after=0)["entries"]] == ["unknown"]
    assert (session.ask("observe", full=True)["drift"], len(machine.peers())) == ([], 4)
    assert machine.run(PROGRAM, "--version") == machine.run("muster-node", "--version")
    hooks = f"1a PreUp = {PROGRAM} close %i\\nPostUp = {PROGRAM} load %i"
    machine.sh(f"sed -i '{hooks}' /etc/wireguard/wg0.conf; ip link del wg0; rm -rf /run/muster; wg-quick up wg0")
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS[2:]}
