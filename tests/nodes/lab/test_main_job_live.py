"""The main job with the Console's real processes: issued, seen, and shut within a second of the API's answer."""

import pytest
from django.test import Client as Browser

from fleet.models import Environment, User
from peers.models import PeerStatus, Person, Receipt
from tests.lab.lab import Lab
from tests.lab.machines import Client
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import Parts
from tests.nodes.lab.scene import Scene, contractor, wait_until_sent

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

ROUNDS, SIDE_BY_SIDE = 4, 5


def test_a_persons_page_says_where_the_device_shook_hands(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, production: Environment, alice: User
) -> None:
    person = contractor(staging, production)
    seat = console.issue(person, lab.add_clients(1)[0])
    fleet.wait_in_sync()
    fleet.connect(seat, rate=20)
    seen = PeerStatus.objects.filter(peer__device=seat.device, latest_handshake_at__isnull=False, transfer_rx__gt=0)
    wait_for(lambda: seen.count() == 3, 20, "three handshakes in the rows")
    endpoints = {row.endpoint.rpartition(":")[0] for row in seen}
    assert endpoints == {seat.client.address}
    browser = Browser()
    browser.force_login(alice)
    page = browser.get(f"/admin/peers/person/{person.pk}/change/", secure=True).content.decode()
    assert [page.count(row.endpoint) for row in seen] == [1, 1, 1]
    assert page.count('<span class="m-pill m-connected">connected</span>') == 3


@pytest.mark.alone
def test_a_revoked_contractor_is_off_every_server_within_a_second_of_the_answer(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, production: Environment
) -> None:
    """D1: the worst of twenty, each on three servers."""
    person = contractor(staging, production)
    clients = lab.add_clients(SIDE_BY_SIDE)
    worst = [one for number in range(ROUNDS) for one in _round(number, fleet, console, person, clients)]
    assert len(worst) == ROUNDS * SIDE_BY_SIDE
    assert max(worst) < 1.0
    proof = Receipt.objects.values_list("is_gone_from_kernel", "is_gone_from_disk", "is_durable")
    assert list(proof) == [(True, True, True)] * 60


def _round(number: int, fleet: Scene, console: Parts, person: Person, clients: list[Client]) -> list[float]:
    """Seconds from each answer to the last packet that came through any server; negative when shut before it."""
    seats = [console.issue(person, client, f"laptop-{number}-{client.name}") for client in clients]
    fleet.wait_in_sync()
    for seat in seats:
        fleet.connect(seat, rate=30)
    answered = {seat.device.pk: console.revoke(seat) for seat in seats}
    for seat in seats:
        wait_until_sent(seat.streams, answered[seat.device.pk] + 1.3)
    fleet.wait_for_receipts()
    late = [max(s.last_answered_at() or 0 for s in seat.streams) - answered[seat.device.pk] for seat in seats]
    for seat in seats:
        fleet.disconnect(seat)
    return late
