"""Shut at the machine while the Console is away: it stays shut, the Console learns of it, and a person decides."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from audit.models import Event
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, ServerStatus, User
from nodes.faults import NodeRefused
from nodes.lanes import Answer, Lane
from nodes.models import ReviewItem
from nodes.reviews import decide_review
from peers.models import Receipt, Revocation, Tombstone
from tests.build import new_public_key
from tests.lab.lab import Lab
from tests.nodes.lab.scene import Scene, Seat, contractor, pending, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    """Two servers."""
    with scene(lab, [staging, staging]) as found:
        yield found


def at_machine(fleet: Scene, number: int, command: str, seat: Seat) -> float:
    """Run by somebody who logged in there; when it was done."""
    line = f"SUDO_USER=dora muster-node {command} wg0 {seat.pair.public_key} --reason 'laptop stolen'"
    fleet.machines[number].shell(line)
    return time.monotonic()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Lane, str]]:
    """What nodes answer from now on, in order: the request, or why it was refused."""
    found: list[tuple[Lane, str]] = []
    call = Lane.call

    def listen(lane: Lane, op: str, **fields: Any) -> Answer:
        try:
            answer = call(lane, op, **fields)
        except NodeRefused as error:
            found.append((lane, error.code))
            raise
        found.append((lane, op))
        return answer

    monkeypatch.setattr(Lane, "call", listen)
    return found


def said_by(fleet: Scene, number: int, heard: list[tuple[Lane, str]]) -> list[str]:
    """By the session that is open now, on the lane of work."""
    session = fleet.console.crew.pool.get(fleet.rows[number].pk)
    assert session is not None
    return [word for lane, word in heard if lane is session.work]


def test_a_revoke_at_the_machine_is_told_by_conflict_and_holds_on_every_server(
    lab: Lab, fleet: Scene, carol: Seat, ben: Seat, staging: Environment, heard: list[tuple[Lane, str]]
) -> None:
    """D14"""
    began = time.monotonic()
    shut = at_machine(fleet, 0, "revoke", carol)
    assert carol.is_shut_out(shut) == [True, False]
    heard.clear()
    late = fleet.issue(contractor(staging, name="Late"), lab.add_clients(1)[0])
    fleet.console.push()
    assert said_by(fleet, 0, heard) == ["base", "conflict", "journal", "apply"]
    fleet.connect(late)
    fleet.console.push()
    done = time.monotonic()
    assert carol.is_shut_out(done) == [True, True]
    assert fleet.is_in_kernel(carol.pair.public_key) == [False, False]
    assert ben.lost(began, done) == [0, 0]
    revocation = Revocation.objects.get()
    assert (revocation.label, revocation.reason) == ("Carol's laptop", "laptop stolen")
    assert revocation.revoked_by == f"dora at {fleet.rows[0].name}"
    assert Receipt.objects.exclude(confirmed_at=None).count() == 2
    event = Event.objects.get(verb="revocation.add")
    assert (event.origin, event.origin_detail) == ("node", fleet.rows[0].name)
    assert (event.actor, event.actor_label, event.reason) == (None, "dora", "laptop stolen")


def test_a_suspend_at_the_machine_stands_until_a_person_lets_the_peer_in_again(
    fleet: Scene, carol: Seat, ben: Seat, bob: User
) -> None:
    """D14"""
    began = time.monotonic()
    shut = at_machine(fleet, 0, "suspend", carol)
    assert carol.is_shut_out(shut) == [True, False]
    fleet.console.poll()
    item = ReviewItem.objects.get()
    assert (item.server, item.peer.device, item.what, item.by) == (fleet.rows[0], carol.device, "suspended", "dora")
    event = Event.objects.get(verb="review.add")
    assert (event.origin, event.actor_label, event.reason) == ("node", "dora", "laptop stolen")
    fleet.console.push()
    push_anew(fleet)
    assert fleet.is_in_kernel(carol.pair.public_key) == [False, True]
    assert in_sync(fleet, 0)
    decide_review(actor=bob, item=item, decision="resume", reason="it was found")
    fleet.console.push()
    fleet.reconnect(carol)
    carol.wait_for_replies()
    assert ben.lost(began, time.monotonic()) == [0, 0]
    assert not Tombstone.objects.exists()


def push_anew(fleet: Scene) -> None:
    """The whole of it, by a session that knows of nothing."""
    for row in fleet.rows:
        fleet.console.crew.pool.drop(row.pk)
        type(row).objects.filter(pk=row.pk).update(generation=row.generation + 100)
    fleet.console.push()


def in_sync(fleet: Scene, number: int) -> bool:
    found = conditions.read(ServerStatus.objects.get(server=fleet.rows[number]).conditions, Type.IN_SYNC)
    return found is not None and found.status


def test_the_first_push_of_a_new_console_knows_of_what_was_shut_while_there_was_none(
    fleet: Scene, carol: Seat, heard: list[tuple[Lane, str]]
) -> None:
    """D14: read before it pushes, so nothing is refused."""
    for row in fleet.rows:
        fleet.console.crew.pool.drop(row.pk)
    at_machine(fleet, 0, "suspend", carol)
    push_anew(fleet)
    assert said_by(fleet, 0, heard) == ["hello", "journal", "apply"]
    assert said_by(fleet, 1, heard) == ["hello", "apply"]
    assert ReviewItem.objects.get().peer.device == carol.device
    assert fleet.is_in_kernel(carol.pair.public_key) == [False, True]


def test_a_peer_taken_out_by_hand_stays_out_until_a_person_decides(
    fleet: Scene, carol: Seat, ben: Seat, bob: User
) -> None:
    """E10"""
    began = time.monotonic()
    fleet.machines[0].run(["muster-node", "tick", "wg0"])
    fleet.machines[0].run(["wg", "set", "wg0", "peer", carol.pair.public_key, "remove"])
    fleet.machines[0].run(["muster-node", "tick", "wg0"])
    fleet.console.poll()
    fleet.console.push()
    item = ReviewItem.objects.get()
    assert (item.server, item.peer.device, item.by, item.detail) == (
        *(fleet.rows[0], carol.device, "node"),
        "taken out by hand",
    )
    assert carol.is_shut_out(time.monotonic()) == [True, False]
    decide_review(actor=bob, item=item, decision="revoke", reason="it was stolen indeed")
    fleet.console.push()
    assert carol.is_shut_out(time.monotonic()) == [True, True]
    assert Receipt.objects.exclude(confirmed_at=None).count() == 2
    assert ben.lost(began, time.monotonic()) == [0, 0]


def broken(fleet: Scene, number: int) -> list[str]:
    """What the ledger says of a server's journal."""
    found = conditions.read(ServerStatus.objects.get(server=fleet.rows[number]).conditions, Type.INTACT)
    events = Event.objects.filter(verb="journal.broken", target_label=fleet.rows[number].name)
    assert (found is not None and not found.status) == events.exists()
    return list(events.order_by("id").values_list("reason", flat=True))


def test_a_journal_that_was_edited_is_told_and_what_it_revokes_holds(fleet: Scene, carol: Seat) -> None:
    at_machine(fleet, 0, "suspend", carol)
    at_machine(fleet, 0, "suspend", carol)
    fleet.console.poll()
    assert broken(fleet, 0) == []
    at_machine(fleet, 0, "revoke", carol)
    fleet.machines[0].shell('sed -i \'$s/previous":"./previous":"x/\' /var/lib/muster/wg0/journal')
    fleet.console.poll()
    assert broken(fleet, 0) == ["entry 3 does not continue from entry 2 as that was read."]
    assert (Revocation.objects.get().label, broken(fleet, 1)) == ("Carol's laptop", [])
    fleet.console.poll()
    assert len(broken(fleet, 0)) == 1


def test_a_machine_that_was_set_back_is_told_and_what_it_revoked_since_holds(fleet: Scene, carol: Seat) -> None:
    """The disk of before two entries; a key that nobody knows is revoked there afterwards."""
    at_machine(fleet, 0, "suspend", carol)
    fleet.machines[0].shell("cp -a /var/lib/muster /root/snapshot")
    for _ in range(2):
        at_machine(fleet, 0, "suspend", carol)
    fleet.console.poll()
    fleet.machines[0].shell("rm -r /var/lib/muster && mv /root/snapshot /var/lib/muster")
    key = new_public_key()
    fleet.machines[0].shell(f"muster-node revoke wg0 {key} --reason gone")
    fleet.console.poll()
    message = "it ends at entry 2, and entry 3 was read: the machine was set back, or lost its journal."
    assert broken(fleet, 0) == [message]
    assert (Tombstone.objects.get().public_key, ReviewItem.objects.count()) == (key, 1)
    fleet.console.push()
    assert (pending(), Receipt.objects.count()) == ([], 2)
