"""Workers and brokers that die, forget and repeat themselves: everything that was answered is enforced."""

import random
import time

import pytest
from django.db.models import Count

from audit.models import Event
from audit.verbs import Verb
from fleet.models import Environment, Server
from nodes.models import Run
from peers.models import Device, Receipt
from tests.build import new_public_key
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import Parts
from tests.nodes.lab.scene import Scene, contractor

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

MUTATIONS, LIMIT = 100, 60


def test_nothing_that_was_answered_is_lost_with_the_broker_or_the_worker(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, production: Environment
) -> None:
    """E2, E3, F4, F5: FLUSHALL, a killed broker and a worker killed mid-push, during a hundred changes."""
    mine, others = lab.add_clients(2)
    dave = console.issue(contractor(staging, production, name="Dave"), mine)
    carol = console.issue(contractor(staging, production), others)
    fleet.wait_in_sync()
    fleet.connect(dave)
    fleet.connect(carol)
    began = time.monotonic()
    faults = {10: console.flush_broker, 25: console.worker.kill, 35: console.worker.start, 45: console.broker.kill}
    faults |= {60: console.broker.start, 70: console.worker.kill, 80: console.worker.start, 90: console.flush_broker}
    for number in range(MUTATIONS):
        faults.get(number, lambda: None)()
        if number == 50:
            console.revoke(carol)
        _mutate(console, carol.person.pk, number)
    returned = time.monotonic()
    fleet.wait_for_receipts(LIMIT)
    fleet.wait_in_sync(LIMIT - (time.monotonic() - returned))
    assert carol.is_shut_out(time.monotonic()) == [True, True, True]
    assert dave.lost(began, time.monotonic()) == [0, 0, 0]
    dead = set(Device.objects.exclude(revoked_at=None).values_list("public_key", flat=True))
    assert len(dead) == 1 + MUTATIONS // 2
    for machine in fleet.machines:
        assert set(machine.shell("wg show wg0 peers").split()) == {dave.pair.public_key}
    _check_ledger()


def _mutate(console: Parts, person: int, number: int) -> None:
    """A device, or the revocation of the one before it."""
    if number % 2 == 0:
        values = {"person": person, "name": f"phone-{number}", "public_key": new_public_key()}
        assert console.post("/api/v1/devices", **values)[0] == 201
        return
    device = Device.objects.get(name=f"phone-{number - 1}")
    assert console.post("/api/v1/revocations", device=device.pk, reason="lost")[0] == 201


def _check_ledger() -> None:
    """Each change has one Event, and each receipt was recorded once, whoever came twice with it."""
    count = dict(Event.objects.values_list("verb").annotate(count=Count("id")).order_by())
    assert (count[Verb.DEVICE_REGISTER], count[Verb.REVOKE]) == (2 + MUTATIONS // 2, 1 + MUTATIONS // 2)
    proven = [name for event in Event.objects.filter(verb=Verb.REVOKE_CONFIRMED) for name in event.changes]
    assert len(proven) == Receipt.objects.count() == 3 * (1 + MUTATIONS // 2)


def _last_pushes_are_noted() -> bool:
    """A run is written after the status that it led to."""
    newest = Server.objects.values_list("pk", "generation")
    return all(Run.objects.filter(server=pk, generation=generation).exists() for pk, generation in newest)


def test_tasks_that_come_thrice_shuffled_and_late_change_nothing(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, production: Environment
) -> None:
    """F8, D16: each task of ours three times, after five newer generations."""
    mine, others = lab.add_clients(2)
    dave = console.issue(contractor(staging, production, name="Dave"), mine)
    carol = console.issue(contractor(staging, production), others)
    fleet.wait_in_sync()
    fleet.connect(dave)
    fleet.connect(carol)
    began = time.monotonic()
    console.revoke(carol)
    for number in range(5):
        _mutate(console, carol.person.pk, 2 * number)
    fleet.wait_for_receipts()
    fleet.wait_in_sync()
    shut = time.monotonic()
    tasks = [(f"nodes.tasks.{name}", 0) for name in ("drain", "drain_revocations", "sweep", "poll", "settle")]
    tasks += [("nodes.tasks.reconcile_server", row.pk) for row in fleet.rows]
    late = tasks * 3
    random.shuffle(late)
    wait_for(_last_pushes_are_noted, 30, "the run of each newest generation to be written down")
    seen = Run.objects.count()
    for task, argument in late:
        console.send(task, argument)
    wait_for(lambda: Run.objects.count() >= seen + 3, 30, "the servers to be pushed to again")
    wait_for(lambda: console.worker.said().count(" succeeded in ") >= len(late), 30, "every task to be done")
    assert set(Run.objects.order_by("id")[seen:].values_list("outcome", flat=True)) == {Run.Outcome.ALREADY}
    assert carol.is_shut_out(shut, time.monotonic() - shut) == [True, True, True]
    assert dave.lost(began, time.monotonic()) == [0, 0, 0]
    assert fleet.is_in_kernel(carol.pair.public_key) == [False, False, False]
