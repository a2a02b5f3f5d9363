"""Revocations that come while their server is being asked go out at once, and nothing can keep a server taken."""

import threading
from collections.abc import Iterator

import pytest
from django.db import connections

from audit.services import SYSTEM
from fleet.models import Environment
from nodes import chores, status, tasks
from nodes.drain import drain_revocations
from peers.models import Receipt
from peers.revocation import revoke_devices
from tests.build import make_device
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.scene import Scene, contractor, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging]) as found:
        yield found


def drain_in_another_thread(fleet: Scene) -> threading.Thread:
    def work() -> None:
        try:
            drain_revocations(0, fleet.console.crew)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def proven() -> int:
    return Receipt.objects.exclude(confirmed_at=None).count()


def test_a_revocation_that_meets_another_one_waits_for_no_sweep(fleet: Scene, staging: Environment) -> None:
    """D1: the second hint comes while the server is still being asked for the first."""
    person = contractor(staging)
    first, second = make_device(person, "laptop"), make_device(person, "phone")
    fleet.console.push()
    fleet.machines[0].slow(200)
    revoke_devices(actor=SYSTEM, devices=[first], reason="lost")
    thread = drain_in_another_thread(fleet)
    claims, server = fleet.console.crew.revoking, fleet.rows[0].pk
    wait_for(lambda: not claims.take([server]) or claims.give_back(server), 5, "the server to be asked")
    revoke_devices(actor=SYSTEM, devices=[second], reason="lost")
    drain_revocations(0, fleet.console.crew)
    assert proven() == 0
    wait_for(lambda: proven() == 2, 5, "both receipts")
    thread.join()


def test_a_receipt_that_could_not_be_written_down_is_asked_for_again(
    fleet: Scene, staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E6: the database fails at the worst moment; the next drain finds the server free."""
    device = make_device(contractor(staging))
    fleet.console.push()
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    with monkeypatch.context() as broken:
        broken.setattr(status, "confirm", _fail)
        with pytest.raises(ConnectionError):
            drain_revocations(0, fleet.console.crew)
    assert proven() == 0
    drain_revocations(0, fleet.console.crew)
    assert proven() == 1


def test_a_chore_that_fails_holds_up_no_revocation(
    fleet: Scene, staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C9: the sweep is the guarantee, so nothing may stand before it."""
    device = make_device(contractor(staging))
    fleet.console.push()
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    monkeypatch.setattr(tasks, "the_crew", lambda: fleet.console.crew)
    monkeypatch.setattr(chores, "do_chores", _fail)
    with pytest.raises(ConnectionError):
        tasks.sweep(0)
    assert proven() == 1


def _fail(*_: object) -> int:
    raise ConnectionError("the database is gone")
