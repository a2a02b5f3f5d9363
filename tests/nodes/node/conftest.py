"""The machine on which the node script's tests run it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nodes.node.build import make_whole
from tests.nodes.node.machine import Machine, Session


@pytest.fixture(scope="module")
def shared_machine() -> Iterator[Machine]:
    machine = Machine()
    try:
        yield machine
    finally:
        machine.end()


@pytest.fixture
def machine(shared_machine: Machine) -> Iterator[Machine]:
    """The module's machine, wiped."""
    shared_machine.sh(
        "for name in $(wg show interfaces); do ip link del $name; done\n"
        "umount /var/lib/muster 2>/dev/null || true\n"
        "rm -rf /var/lib/muster /run/muster /etc/wireguard/* /etc/systemd/system/*muster*; nft flush ruleset"
    )
    yield shared_machine
    while shared_machine.sessions:
        shared_machine.sessions.pop().close()


@pytest.fixture
def session(machine: Machine, request: pytest.FixtureRequest) -> Session:
    """A session at an interface that holds the module's PEERS, at generation 1."""
    machine.make_interface()
    session = machine.session("wg0")
    session.ask("apply", **make_whole(1, request.module.PEERS))
    return session
