"""Servers that cannot be reached: the others are shut at once, these once they are back, with no act of anybody."""

import time
from collections.abc import Iterator

import pytest
from django.test import Client as Browser

from fleet import conditions
from fleet.conditions import Condition, Type
from fleet.models import Environment, ServerStatus, User
from peers.models import Receipt, Revocation
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import Parts, parts
from tests.nodes.lab.scene import Scene, contractor, pending, scene, wait_until_sent

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging] * 4) as found:
        yield found


@pytest.fixture
def console(alice: User, fleet: Scene) -> Iterator[Parts]:
    with parts(alice) as found:
        found.start()
        yield found


def reachable(fleet: Scene, number: int) -> Condition | None:
    found = ServerStatus.objects.get(server=fleet.rows[number]).conditions
    return conditions.read(found, Type.REACHABLE)


def is_unreachable(fleet: Scene, number: int) -> bool:
    condition = reachable(fleet, number)
    return condition is not None and not condition.status


def test_a_cut_off_server_is_pending_with_its_reason_and_shut_within_30_s_of_its_return(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, alice: User
) -> None:
    """D1, D12, F1, E16: one server drops all packets, one rejects them, two are well."""
    carol = console.issue(contractor(staging), lab.add_clients(1)[0])
    fleet.wait_in_sync()
    fleet.connect(carol, rate=50)
    fleet.machines[2].partition("drop")
    fleet.machines[3].partition("reject")
    began = time.monotonic()
    answered = console.revoke(carol)
    assert answered - began < 1
    wait_for(lambda: len(pending()) == 2, 5, "the receipts of the two that are well")
    wait_until_sent(carol.streams, answered + 1.5)
    assert max(stream.last_answered_at() or 0 for stream in carol.streams[:2]) < answered + 1
    wait_for(lambda: is_unreachable(fleet, 2) and is_unreachable(fleet, 3), 20, "a reason for each")
    _check_page(fleet, alice)
    for machine in fleet.machines[2:]:
        machine.heal()
    healed = time.monotonic()
    fleet.wait_for_receipts(30)
    shut = time.monotonic()
    assert shut - healed < 30
    assert carol.is_shut_out(shut) == [True] * 4
    assert list(Receipt.objects.values_list("is_gone_from_kernel", "is_gone_from_disk")) == [(True, True)] * 4


def _check_page(fleet: Scene, alice: User) -> None:
    """The revocation's page names who owes a receipt, since when and why; the rows tell the two faults apart."""
    assert pending() == ["vpn-s3", "vpn-s4"]
    browser = Browser()
    browser.force_login(alice)
    path = f"/admin/peers/revocation/{Revocation.objects.get().pk}/change/"
    page = browser.get(path, secure=True).content.decode()
    assert [page.count(f"Pending on {row.name} since") for row in fleet.rows] == [0, 0, 1, 1]
    for number in (2, 3):
        condition = reachable(fleet, number)
        assert condition is not None
        assert page.count(condition.message.split(":")[0]) >= 1
        assert condition.since.timestamp() > Revocation.objects.get().created_at.timestamp()
    kinds = {(found := reachable(fleet, number)) and found.message.rpartition(": ")[2] for number in (2, 3)}
    assert len(kinds) == 2


def test_a_server_that_lost_ssh_alone_lets_the_key_pass_and_is_never_called_revoked(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment
) -> None:
    """D12, F1: the tunnel works on while the Console is kept out."""
    carol = console.issue(contractor(staging), lab.add_clients(1)[0])
    fleet.wait_in_sync()
    fleet.connect(carol, rate=50)
    fleet.machines[3].partition("ssh")
    answered = console.revoke(carol)
    wait_for(lambda: pending() == ["vpn-s4"], 5, "three receipts")
    carol.streams[3].wait_for_reply(after=answered + 1)
    assert pending() == ["vpn-s4"]
    fleet.machines[3].heal()
    fleet.wait_for_receipts(30)
    assert carol.is_shut_out(time.monotonic()) == [True] * 4
