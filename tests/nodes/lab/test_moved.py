"""A server that was set up anew on another machine: no receipt comes from the machine that it was."""

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.services import change_server
from nodes.crew import Crew
from nodes.drain import drain_revocations, finish
from peers.models import Receipt
from peers.revocation import revoke_devices
from tests.build import make_grant, make_person
from tests.fleet_in_lab import Console, console, register
from tests.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_a_session_to_the_old_machine_gives_no_receipt_for_the_new_one(lab: Lab, staging: Environment) -> None:
    """E15."""
    with console(lab) as its:
        old, new = lab.add_servers(2)
        row = its.add(old, staging, 1)
        its.enrol(row, old)
        person = make_person()
        make_grant(person, staging)
        device, _ = register(person)
        its.push()
        change_server(actor=SYSTEM, server=row, host=new.address)
        elsewhere = Console(lab, Crew())  # as manage.py enrol_server is: a process with sessions of its own
        try:
            assert elsewhere.enrol(row, new).state == "done"
            elsewhere.push()
        finally:
            elsewhere.crew.close()
        assert new.shell("wg show wg0 peers").split() == [device.public_key]
        revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
        finish(drain_revocations(0, its.crew))
        assert Receipt.objects.get().confirmed_at is not None
        assert new.shell("wg show wg0 peers").split() == []
