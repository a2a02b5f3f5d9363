"""A server that somebody else controls harms its own row, and nothing else."""

import time
from pathlib import Path

import pytest
from django.test import Client as Browser

from audit.services import SYSTEM
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, ServerStatus, User
from peers.models import Peer, Receipt
from peers.revocation import revoke_devices
from tests.lab.lab import Lab
from tests.nodes.lab.scene import Scene, Seat, contractor

pytestmark = [pytest.mark.alone, pytest.mark.lab, pytest.mark.django_db(transaction=True)]

LIAR = (Path(__file__).parent / "liar.py").read_text()
# What its page says after a revoke and a push: type and reason of each condition that does not hold.
LIES = {
    "wrong_generation": {(Type.IN_SYNC, "Nonsense")},
    "forged": {(Type.IN_SYNC, "Nonsense")},
    "million": {(Type.IN_SYNC, "Nonsense")},
    "nasty": {(Type.REACHABLE, "NodeMisbehaved")},
    "refusing": {(Type.IN_SYNC, "internal")},
    "silent": {(Type.REACHABLE, "NodeSilent")},
    "garbage": {(Type.REACHABLE, "NodeMisbehaved")},
}
# Its hello holds less than was confirmed before it was taken over.
SET_BACK = (Type.INTACT, "SetBack")
HONEST, LYING = [0, 1], 2


def corrupt(fleet: Scene, lie: str) -> None:
    machine = fleet.machines[LYING]
    machine.put("/run/lie", lie)
    machine.put("/usr/local/sbin/muster-node", LIAR, 0o755)
    fleet.console.crew.pool.drop(fleet.rows[LYING].pk)


def failing(fleet: Scene, number: int) -> set[tuple[Type, str]]:
    row = ServerStatus.objects.get(server=fleet.rows[number])
    found = [condition for type in Type if (condition := conditions.read(row.conditions, type))]
    return {(one.type, one.reason) for one in found if not one.status and one.type != Type.HELD}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_spoils_its_own_row_and_no_other(
    lab: Lab, fleet: Scene, staging: Environment, production: Environment, alice: User, lie: str
) -> None:
    """E5, E15: the honest ones are shut and proven at once; the liar is flagged with reason and time."""
    carol = fleet.issue(contractor(staging, production), lab.add_clients(1)[0])
    fleet.console.push()
    fleet.connect(carol, rate=50)
    corrupt(fleet, lie)
    _revoke(fleet, carol)
    proven = Receipt.objects.exclude(confirmed_at=None)
    assert set(proven.values_list("server", flat=True)) == {fleet.rows[number].pk for number in HONEST}
    assert failing(fleet, LYING) == {*LIES[lie], SET_BACK}
    fleet.console.poll()
    assert [failing(fleet, number) for number in HONEST] == [set(), set()]
    assert failing(fleet, LYING) != set()
    assert carol.is_shut_out(time.monotonic())[:2] == [True, True]
    still_there = Peer.objects.filter(gone_at=None).values_list("server", flat=True)
    assert list(still_there) == [fleet.rows[LYING].pk]
    _check_page(fleet, alice)


def _revoke(fleet: Scene, carol: Seat) -> None:
    """The honest ones answer within a second; the liar costs its own job 15 s at most."""
    began = time.monotonic()
    revocation = revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    assert time.monotonic() - began < 20
    proven = [row.confirmed_at for row in Receipt.objects.all() if row.confirmed_at is not None]
    assert [(moment - revocation.created_at).total_seconds() < 1 for moment in proven] == [True, True]


def _check_page(fleet: Scene, alice: User) -> None:
    browser = Browser()
    browser.force_login(alice)
    path = f"/admin/fleet/server/{fleet.rows[LYING].pk}/change/"
    page = browser.get(path, secure=True).content.decode()
    assert [page.count(mark) for mark in ("\x1b", "\x07", "<script>alert")] == [0, 0, 0]
    assert page.count(fleet.rows[LYING].name) > 0
