"""A boot that a tick or a push meets half-way: what wg-quick is still going to put in passes nothing either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.nodes.node.build import dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import PROGRAM, Machine, Session

PEERS = [make_peer(n) for n in range(6)]
# Stands in the place of wg, which wg-quick finds beside itself.
WRAPPER = """#!/bin/sh
if [ "$1" = setconf ]; then
    echo here > /run/half-way
    until [ -e /run/go ]; do sleep 0.01; done
fi
exec /usr/local/lib/wg "$@"
"""


@contextmanager
def half_way(machine: Machine) -> Iterator[None]:
    """Within, a boot has made the interface and is about to give it what the conf holds; afterwards it has ended."""
    machine.sh("rm -f /run/half-way /run/go; mkfifo /run/half-way; cp /usr/bin/wg /usr/local/lib/wg")
    machine.run("sh", "-c", "cat > /usr/local/lib/wg.sh; chmod 755 /usr/local/lib/wg.sh", stdin=WRAPPER)
    machine.sh("mount --bind /usr/local/lib/wg.sh /usr/bin/wg")
    boot = machine.popen("wg-quick", "up", "wg0")
    try:
        machine.run("timeout", "20", "cat", "/run/half-way")
        yield
    finally:
        machine.sh("touch /run/go")
        boot.communicate(timeout=20)
        machine.sh("umount /usr/bin/wg")
    assert boot.returncode == 0


def is_closed(machine: Machine) -> bool:
    return "muster_guard_wg0" in machine.run("nft", "list", "tables")


def power_off(machine: Machine, *posts: str) -> None:
    """Leaves a conf with our hooks, the PostUps in this order."""
    rows = [f"PreUp = {PROGRAM} close %i", *(f"PostUp = {PROGRAM} {post} %i" for post in posts)]
    hooks = "\\n".join(rows)
    machine.sh(f"ip link del wg0; rm -rf /run/muster; sed -i '1a {hooks}' /etc/wireguard/wg0.conf")


@pytest.mark.parametrize("act", ["tick", "push"])
def test_what_meets_a_boot_leaves_the_guard_to_it(machine: Machine, session: Session, act: str) -> None:
    """D1, D11: a revoked key was put back into the conf, and wg-quick has not read it yet."""
    session.ask("revoke", keys=[dead(1)])
    power_off(machine, "load")
    machine.sh(f"printf '[Peer]\\nPublicKey = {make_key(1)}\\nAllowedIPs = 10.1.0.3/32\\n' >> /etc/wireguard/wg0.conf")
    with half_way(machine):
        if act == "tick":
            machine.run("muster-node", "tick", "wg0")
        else:
            assert session.ask("apply", **make_whole(2, PEERS))["ok"] is True
        assert is_closed(machine)
    assert set(machine.peers()) == {make_key(n) for n in (0, 2, 3, 4, 5)}
    assert not is_closed(machine)
    assert session.ask("observe", full=True)["drift"][0]["what"] == "conf_peers"


def test_what_wg_quick_takes_out_again_is_nobodys_decision(machine: Machine, session: Session) -> None:
    """E10: a boot so slow that two ticks meet it, on a server with a single peer."""
    session.ask("apply", **make_whole(2, PEERS[:1], approved=True))
    power_off(machine, "tick", "load")
    with half_way(machine):
        machine.run("muster-node", "tick", "wg0")
        assert set(machine.peers()) == {make_key(0)}
    assert set(machine.peers()) == {make_key(0)}
    assert [row["what"] for row in session.ask("journal", after=0)["entries"]] == ["restored", "restored"]
