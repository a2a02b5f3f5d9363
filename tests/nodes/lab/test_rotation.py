"""A key is rotated under a live tunnel: the person moves to the new one, and nobody else notices."""

import time
from collections.abc import Iterator

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from peers.models import Receipt, Revocation
from peers.services import register_device
from tests.fleet_in_lab import tunnel_file
from tests.lab.lab import Lab
from tests.lab.tunnels import new_keypair
from tests.nodes.lab.scene import Scene, Seat, contractor, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

TICK = 5


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    """Two servers, their daemons running."""
    with scene(lab, [staging, staging]) as found:
        for machine in found.machines:
            machine.shell("systemctl start muster-node")
        yield found


def replacement(fleet: Scene, lab: Lab, seat: Seat) -> Seat:
    """A new key for the same device, pushed but not used yet, on a client of its own."""
    pair = new_keypair()
    old = seat.device
    device = register_device(actor=SYSTEM, person=seat.person, name=old.name, public_key=pair.public_key, replaces=old)
    fleet.console.push()
    return Seat(seat.person, device, pair, lab.add_clients(1)[0])


def addresses(file: str) -> list[str]:
    return [line for line in file.splitlines() if line.startswith("Address")]


def test_the_tunnel_moves_to_the_new_key_within_a_tick_and_the_old_one_dies_everywhere(
    lab: Lab, fleet: Scene, staging: Environment
) -> None:
    carol = fleet.join(contractor(staging), lab.add_clients(1)[0])
    ben = fleet.join(contractor(staging, name="Ben"), lab.add_clients(1)[0])
    began = time.monotonic()
    new = replacement(fleet, lab, carol)
    pushed = time.monotonic()
    assert carol.lost(began, pushed) == [0, 0]
    assert [fleet.dump(number, new.pair.public_key)[1] for number in (0, 1)] == ["(none)", "(none)"]
    connected = time.monotonic()
    fleet.connect(new)
    moved = max(stream.wait_for_reply() for stream in new.streams)
    assert moved - connected < TICK + 3
    assert carol.is_shut_out(moved) == [True, True]
    assert [addresses(file) for file in new.files] == [addresses(file) for file in carol.files]
    fleet.console.poll()
    fleet.console.push()
    assert fleet.is_in_kernel(carol.pair.public_key) == [False, False]
    row = Revocation.objects.get()
    assert (row.label, row.reason) == (str(carol.device), f"replaced by {new.pair.public_key}")
    assert Receipt.objects.filter(revocation=row).exclude(confirmed_at=None).count() == 2
    done = time.monotonic()
    assert ben.lost(began, done) == [0, 0]
    assert new.lost(moved, done) == [0, 0]


def test_a_server_where_the_new_key_has_not_been_yet_follows_with_the_console(
    lab: Lab, fleet: Scene, staging: Environment
) -> None:
    carol = fleet.join(contractor(staging), lab.add_clients(1)[0])
    new = replacement(fleet, lab, carol)
    first, second = (tunnel_file(new.device, row, new.pair) for row in fleet.rows)
    new.client.connect(first, interface="wg0")
    new.client.stream("10.1.0.1", interface="wg0").wait_for_reply(TICK + 10)
    assert carol.is_shut_out(time.monotonic()) == [True, False]
    fleet.console.poll()
    fleet.console.push()
    assert carol.is_shut_out(time.monotonic()) == [True, True]
    new.client.connect(second, interface="wg1")
    new.client.stream("10.2.0.1", interface="wg1").wait_for_reply(10)
