"""A running peer that changes in one thing keeps all others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nodes.node.build import make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(0), make_peer(1, preshared_key=None), make_peer(2, allowed_ips=[])]
CHANGES: dict[str, dict[str, Any]] = {
    "another preshared key": {"preshared_key": make_key(7, "preshared")},
    "no preshared key": {"preshared_key": None},
    "another network": {"allowed_ips": ["10.1.0.90/32"]},
    "no network": {"allowed_ips": []},
    "both": {"preshared_key": make_key(8, "preshared"), "allowed_ips": ["10.1.0.91/32"]},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", range(3))
def test_a_peer_that_changes_in_one_thing_keeps_the_other(
    machine: Machine, session: Session, number: int, change: str
) -> None:
    """D16: `wg addconf` takes away what a section does not name, or keeps it, as it comes."""
    after = [peer | CHANGES[change] if n == number else peer for n, peer in enumerate(PEERS)]
    reply = session.ask("apply", **make_whole(2, after))
    assert (reply["result"], reply["drift"]) == ("applied", [])
    rows = [row.split("\t") for row in machine.run("wg", "show", "wg0", "dump").splitlines()[1:]]
    has = {row[0]: (row[1], set(row[3].split(",")) - {"(none)"}) for row in rows}
    assert has == {peer["public_key"]: (peer["preshared_key"] or "(none)", set(peer["allowed_ips"])) for peer in after}
