"""Access that moves from one server to another: never alive on both, whatever the servers and the Console do."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connections

from audit.services import SYSTEM
from fleet.models import Environment, ServerStatus
from nodes.chores import do_chores
from peers.granting import grant_access
from peers.models import Peer
from peers.moving import move_grant
from peers.revocation import revoke_devices
from tests.build import make_person
from tests.fleet_in_lab import register, tunnel_file
from tests.lab.lab import Lab
from tests.lab.packets import Stream
from tests.lab.waiting import wait_for
from tests.nodes.lab.scene import Scene, Seat, contractor, pending, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

WHY = "nearer to her"


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging] * 3) as found:
        yield found


@pytest.fixture
def ben(lab: Lab, fleet: Scene, staging: Environment) -> Iterator[Seat]:
    seat = fleet.join(contractor(staging, name="Ben"), lab.add_clients(1)[0])
    began = time.monotonic()
    yield seat
    assert seat.lost(began, time.monotonic())[1:] == [0, 0]


def on_one(lab: Lab, fleet: Scene) -> Seat:
    """Carol, with a grant to the first server alone, sending packets to it."""
    carol = make_person("Carol")
    grant_access(actor=SYSTEM, person=carol, server=fleet.rows[0], reason="work")
    device, pair = register(carol)
    fleet.console.push()
    seat = Seat(carol, device, pair, lab.add_clients(1)[0])
    seat.streams = [dial(fleet, seat, 0)]
    seat.wait_for_replies()
    return seat


def dial(fleet: Scene, seat: Seat, number: int) -> Stream:
    """As its file for that server says."""
    seat.client.connect(tunnel_file(seat.device, fleet.rows[number], seat.pair), interface=f"wg{number}")
    return seat.client.stream(f"10.{number + 1}.0.1", interface=f"wg{number}")


def push_until_pending(fleet: Scene, names: list[str]) -> None:
    """As the sweep comes again, until these servers alone owe a receipt."""

    def is_so() -> bool:
        ServerStatus.objects.update(next_attempt_at=None)
        fleet.console.push()
        return pending() == names

    wait_for(is_so, 40, f"receipts from all but {names}")


@contextmanager
def beside(act: Callable[[], None]) -> Iterator[None]:
    """In a thread, with a connection of its own, at the same time."""
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(act)
        yield
        done.result(60)
        thread.submit(connections.close_all).result()


def test_the_tunnel_is_dead_on_the_old_server_before_it_lives_on_the_new_one(lab: Lab, fleet: Scene, ben: Seat) -> None:
    """D3: the old server cannot be reached at first; until it has proven that the peer is gone nobody gets in anew."""
    carol = on_one(lab, fleet)
    fleet.machines[0].partition("ssh")
    move_grant(actor=SYSTEM, grant=carol.person.grants.get(), server=fleet.rows[1], reason=WHY)
    new = dial(fleet, carol, 1)
    fleet.console.push()
    do_chores(fleet.console.crew)
    fleet.console.push()
    carol.streams[0].wait_for_reply(after=time.monotonic())
    assert fleet.is_in_kernel(carol.pair.public_key) == [True, False, False]
    assert new.last_answered_at() is None
    fleet.machines[0].heal()
    ServerStatus.objects.update(next_attempt_at=None)
    fleet.console.push()
    fleet.console.push()
    alive = new.wait_for_reply(10)
    assert carol.is_shut_out(time.monotonic()) == [True]
    last = carol.streams[0].last_answered_at()
    assert last is not None and last < alive
    assert fleet.is_in_kernel(carol.pair.public_key) == [False, True, False]
    assert not Peer.objects.exclude(waits_for=None).exists()


def test_a_key_revoked_while_it_moves_lives_nowhere(lab: Lab, fleet: Scene, ben: Seat) -> None:
    """D3, D18: it was on its way to a second server while the first one could not be reached."""
    carol = on_one(lab, fleet)
    fleet.machines[0].partition("ssh")
    move_grant(actor=SYSTEM, grant=carol.person.grants.get(), server=fleet.rows[1], reason=WHY)
    fleet.console.push()
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="lost")
    push_until_pending(fleet, [fleet.rows[0].name])
    fleet.machines[0].heal()
    push_until_pending(fleet, [])
    do_chores(fleet.console.crew)
    fleet.console.push()
    assert carol.is_shut_out(time.monotonic()) == [True]
    assert fleet.is_in_kernel(carol.pair.public_key) == [False] * 3


def test_a_key_revoked_while_its_issue_is_pushed_to_three_servers_is_dead_on_all(
    lab: Lab, fleet: Scene, ben: Seat, staging: Environment
) -> None:
    """D18: one of the three is dead at that time, the others have it or not."""
    carol = fleet.issue(contractor(staging), lab.add_clients(1)[0])
    fleet.machines[0].partition("drop")
    with beside(fleet.console.push):
        revoke_devices(actor=SYSTEM, devices=[carol.device], reason="lost")
    push_until_pending(fleet, [fleet.rows[0].name])
    assert fleet.is_in_kernel(carol.pair.public_key)[1:] == [False, False]
    fleet.machines[0].heal()
    push_until_pending(fleet, [])
    assert fleet.is_in_kernel(carol.pair.public_key) == [False] * 3
