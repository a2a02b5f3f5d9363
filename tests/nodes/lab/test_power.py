"""Revoked stays revoked: over reboots, a killed Console, old pushes come again and pushes that meet."""

import json
import random
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.models import Server as Row
from nodes import lease
from nodes.crew import Crew
from nodes.desired import desired_state
from nodes.lanes import Lane
from nodes.pool import SessionPool
from nodes.reconcile import reconcile
from peers.models import Receipt
from peers.revocation import revoke_devices
from tests.fleet_in_lab import register
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.scene import Scene, Seat, contractor, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

REPLAYS, MEETINGS = 1000, 50


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging]) as found:
        yield found


@pytest.fixture
def dave(lab: Lab, fleet: Scene, staging: Environment) -> Seat:
    return fleet.join(contractor(staging, name="Dave"), lab.add_clients(1)[0])


def push_from_a_new_console(fleet: Scene) -> None:
    """The old one dies without a word; the new one has no session, no cache, and pushes everything."""
    fleet.console.crew.close()
    fleet.console.crew = Crew()
    Row.objects.update(generation=F("generation") + 1)
    fleet.console.push()


def only_one_gets_in(fleet: Scene, welcome: Seat, revoked: Seat) -> bool:
    """Both clients start anew: one gets through, the other does not."""
    began = time.monotonic()
    for seat in (revoked, welcome):
        fleet.reconnect(seat)
    welcome.wait_for_replies()
    return revoked.is_shut_out(began, time.monotonic() - began + 0.5) == [True]


def test_a_revoked_key_stays_dead_over_a_reboot_a_new_console_and_a_full_push(
    fleet: Scene, carol: Seat, dave: Seat
) -> None:
    """D1: the control is a neighbour whose packets come through again after each step."""
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    shut = time.monotonic()
    fleet.machines[0].reboot()
    assert carol.is_shut_out(shut, time.monotonic() - shut) == [True]
    assert only_one_gets_in(fleet, dave, carol)
    push_from_a_new_console(fleet)
    assert only_one_gets_in(fleet, dave, carol)
    fleet.machines[0].shell("wg-quick down wg0 && wg-quick up wg0")
    assert only_one_gets_in(fleet, dave, carol)
    assert fleet.is_in_kernel(carol.pair.public_key) == [False]


def test_a_server_that_was_off_while_its_key_was_revoked_is_shut_once_it_is_back(
    fleet: Scene, carol: Seat, dave: Seat
) -> None:
    """D1: until it is back its receipt is pending, and nothing is called proven."""
    fleet.machines[0].power_off()
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    assert Receipt.objects.get().confirmed_at is None
    fleet.machines[0].power_on()
    wait_for(lambda: _push_until_proven(fleet), 30, "the receipt")
    assert only_one_gets_in(fleet, dave, carol)


def _push_until_proven(fleet: Scene) -> bool:
    """As the sweep does it; a server that just failed is left alone for its backoff."""
    fleet.console.push()
    return Receipt.objects.get().confirmed_at is not None


def test_old_pushes_come_again_a_thousand_times_and_bring_nobody_back(
    fleet: Scene, carol: Seat, dave: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D5: every push that was ever made, whole and delta, in any order."""
    recorded = _recorded(monkeypatch)
    for number in range(6):
        register(carol.person, f"phone-{number}")
        fleet.console.push()
    push_from_a_new_console(fleet)
    newest = len(recorded) - 1
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    assert len(recorded) >= 8
    began = time.monotonic()
    before = fleet.node_state(0)
    answers = _replayed(fleet, recorded)
    outcomes = {answer.get("result") or answer["error"]["code"] for answer in answers}
    assert (len(answers), outcomes) == (REPLAYS, {"stale", "already"})
    assert recorded[newest]["generation"] < recorded[-1]["generation"]
    assert carol.is_shut_out(began, time.monotonic() - began) == [True]
    assert dave.lost(began, time.monotonic()) == [0]
    assert fleet.is_in_kernel(carol.pair.public_key) == [False]
    assert fleet.node_state(0) == before


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every apply that goes out from now on."""
    found: list[dict[str, Any]] = []
    send = Lane.send

    def listen(lane: Lane, op: str, **fields: Any) -> int:
        if op == "apply":
            found.append({name: value for name, value in fields.items() if name != "progress_timeout"})
        return send(lane, op, **fields)

    monkeypatch.setattr(Lane, "send", listen)
    return found


def _replayed(fleet: Scene, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The node's answers to old requests, given to a session of its own."""
    order = [random.choice(recorded) for _ in range(REPLAYS)]  # noqa: S311
    lines = [json.dumps({"v": 1, "id": number, "op": "apply", **old}) for number, old in enumerate(order)]
    ran = fleet.machines[0].run(["muster-node", "session", "wg0"], input="\n".join(lines) + "\n", timeout=200)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_pushes_that_meet_end_at_the_newest_generation(
    fleet: Scene, carol: Seat, dave: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E7: two workers without a lease between them, each with a change of its own, at a barrier."""
    monkeypatch.setattr(lease, "HOLD", timedelta(seconds=-1))
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    began = time.monotonic()
    generations = _meet(fleet, dave)
    assert generations == sorted(generations)
    reconcile(fleet.rows[0].pk, fleet.console.crew.pool)
    wanted = desired_state(fleet.rows[0].pk)
    kernel = set(fleet.machines[0].shell("wg show wg0 peers").split())
    assert (len(wanted.content.peers), kernel) == (2 * MEETINGS + 1, set(wanted.content.peers))
    assert dave.lost(began, time.monotonic()) == [0]
    assert carol.is_shut_out(began, time.monotonic() - began) == [True]


def _meet(fleet: Scene, dave: Seat) -> list[int]:
    """The node's generation after each meeting."""
    pools, barrier, seen = [SessionPool(), SessionPool()], threading.Barrier(2), []
    results: list[str] = []

    def work(pool: SessionPool, name: str) -> None:
        try:
            for number in range(MEETINGS):
                register(dave.person, f"{name}-{number}")
                barrier.wait(30)
                results.append(reconcile(fleet.rows[0].pk, pool).result)
                barrier.wait(30)
                if name == "one":
                    seen.append(fleet.node_state(0)[1])
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(pools, ("one", "two"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pool in pools:
        pool.close_all()
    assert len(results) == 2 * MEETINGS
    assert set(results) <= {"applied", "already", "failed"}
    return seen
