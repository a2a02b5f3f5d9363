"""The main job: issued on three servers, handshakes on three, one act shuts all three, with proof."""

import time

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from nodes.models import Enrolment
from peers.models import Person, Receipt
from peers.revocation import revoke_devices
from tests.build import make_grant, make_person
from tests.fleet_in_lab import connect, console, register
from tests.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_a_revoked_contractor_is_off_every_server_with_a_receipt_for_each(
    lab: Lab, staging: Environment, production: Environment
) -> None:
    machines = lab.add_servers(3)
    client = lab.add_clients(1)[0]
    with console(lab) as muster:
        rows = [
            muster.add(machine, staging if number < 3 else production, number)
            for number, machine in enumerate(machines, 1)
        ]
        for row, machine in zip(rows, machines, strict=True):
            enrolment = muster.enrol(row, machine)
            assert (enrolment.state, enrolment.error) == (Enrolment.State.DONE, "")
        person = make_person("Carol", Person.Kind.CONTRACTOR)
        make_grant(person, staging)
        make_grant(person, production)
        device, pair = register(person)
        muster.push()
        streams = []
        for number, row in enumerate(rows):
            connect(client, device, row, pair, f"wg{number}")
            streams.append(client.stream(f"10.{number + 1}.0.1", interface=f"wg{number}"))
        for stream in streams:
            stream.wait_for_reply(5)
        began = time.monotonic()
        revocation = revoke_devices(actor=SYSTEM, devices=[device], reason="contract ended")
        muster.push()
        done = time.monotonic()
        assert done - began < 5
        for stream in streams:
            assert (stream.last_answered_at() or done) < done
        receipts = Receipt.objects.filter(revocation=revocation)
        assert [(r.is_gone_from_kernel, r.is_gone_from_disk, r.found) for r in receipts] == [(True, True, [])] * 3
