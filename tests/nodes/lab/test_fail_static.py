"""With the whole Console gone, tunnels stay as they are. Takes more than three minutes: a rekey has to pass."""

import time

import pytest

from fleet.models import Environment
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import Parts
from tests.nodes.lab.scene import Scene, contractor

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

WATCH = 200


def test_tunnels_stay_up_past_a_rekey_with_no_console_at_all(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, production: Environment
) -> None:
    """E11, F7: web, worker, beat and broker killed, nothing asks the database; not a packet is lost for 200 s."""
    dave = console.issue(contractor(staging, production, name="Dave"), lab.add_clients(1)[0])
    fleet.wait_in_sync()
    fleet.connect(dave, rate=20)
    handshakes = [int(moment) for moment in fleet.handshakes(dave)]
    console.kill()
    fleet.console.crew.close()
    began = time.monotonic()
    wait_for(lambda: time.monotonic() > began + WATCH, WATCH + 5, "the watch to end", interval=1)
    assert dave.lost(began, began + WATCH) == [0, 0, 0]
    renewed = [int(moment) for moment in fleet.handshakes(dave)]
    assert [new - old >= 100 for old, new in zip(handshakes, renewed, strict=True)] == [True, True, True]
