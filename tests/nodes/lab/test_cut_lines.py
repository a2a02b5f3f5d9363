"""SSH cut at byte n of a push: the node holds the old state or the new one, never something between."""

import json
import time
from collections.abc import Iterator
from functools import partial

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from nodes.crew import Crew
from nodes.desired import desired_state
from nodes.reconcile import reconcile
from peers.revocation import revoke_devices
from tests.fleet_in_lab import Console, register
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.lab.waiting import wait_for
from tests.nodes.lab.cutter import Cutter
from tests.nodes.lab.scene import Scene, contractor, enrol_all

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

CUTS = [(left, is_to_server) for left in range(1, 376, 15) for is_to_server in (True, False)]


@pytest.fixture
def machine(lab: Lab) -> Server:
    return lab.add_server()


@pytest.fixture
def cutter(machine: Server) -> Iterator[Cutter]:
    cable = Cutter(machine.address, machine.ssh_port)
    yield cable
    cable.close()


@pytest.fixture
def fleet(lab: Lab, machine: Server, cutter: Cutter, staging: Environment) -> Iterator[Scene]:
    """One server, reached over the cable that can be cut."""
    crew = Crew()
    try:
        muster = Console(lab, crew)
        row = muster.add(machine, staging, 1, host="127.0.0.1", ssh_port=cutter.port)
        enrol_all(muster, [row], [machine])
        yield Scene(muster, [machine], [row])
    finally:
        crew.close()


def test_a_push_cut_at_any_byte_leaves_the_old_state_or_the_new(
    lab: Lab, fleet: Scene, cutter: Cutter, staging: Environment
) -> None:
    """E8, F11: fifty cuts, of the request and of the answer; the next push is clean, and the revoked stay dead."""
    mine, others = lab.add_clients(2)
    dave = fleet.join(contractor(staging, name="Dave"), mine)
    carol = fleet.join(contractor(staging), others)
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    began, server = time.monotonic(), fleet.rows[0].pk
    assert len(CUTS) == 50
    old, arrived = _holds(fleet), []
    for number, (left, is_to_server) in enumerate(CUTS):
        register(dave.person, f"phone-{number}")
        cutter.arm(left, is_to_server=is_to_server)
        wait_for(partial(_is_cut, fleet, cutter, number), 30, "the cut")
        cutter.disarm()
        wanted = desired_state(server)
        new = (wanted.generation, frozenset(wanted.content.peers))
        held = _holds(fleet)
        assert held in (old, new)
        arrived.append(held == new)
        # Again where a machine with too much to do does not answer in time, as the sweep does.
        wait_for(lambda: reconcile(server, fleet.console.crew.pool).result in {"applied", "already"}, 30, "a push")
        old = _holds(fleet)
        assert old == new
    assert cutter.cuts == len(CUTS)
    assert {True, False} == set(arrived)
    assert dave.lost(began, time.monotonic()) == [0]
    assert carol.is_shut_out(began, time.monotonic() - began) == [True]


def _is_cut(fleet: Scene, cutter: Cutter, before: int) -> bool:
    """One push; whether the cable broke in it."""
    reconcile(fleet.rows[0].pk, fleet.console.crew.pool)
    return cutter.cuts > before


def _holds(fleet: Scene) -> tuple[int, frozenset[str]]:
    """The generation that the node has on its disk, and the peers that its kernel has; a hundred times, so cheaply."""
    head, *peers = fleet.machines[0].shell("sed -n 2p /var/lib/muster/wg0/state; wg show wg0 peers").split("\n")
    return int(json.loads(head)[1]), frozenset(filter(None, peers))
