"""A server that the Console only looks at: it is seen, and nothing is asked of it."""

import pytest

from audit.services import SYSTEM
from fleet.conditions import Type, read
from fleet.models import Environment, ServerStatus
from fleet.services import change_server
from nodes.models import Run
from nodes.reconcile import reconcile
from peers.revocation import revoke_key
from tests.build import make_grant, make_person, new_public_key
from tests.fleet_in_lab import console, register
from tests.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_a_server_that_is_only_looked_at_is_still_seen_after_a_revocation_elsewhere(
    lab: Lab, staging: Environment
) -> None:
    with console(lab) as its:
        machine = lab.add_server()
        row = its.add(machine, staging, 1, is_observe_only=True)
        assert its.enrol(row, machine).state == "done"
        revoke_key(actor=SYSTEM, public_key=new_public_key(), reason="lost")
        its.poll()
        status = ServerStatus.objects.get(server=row)
        reachable = read(status.conditions, Type.REACHABLE)
        assert reachable is not None
        assert (reachable.status, status.observed_at is None) == (True, False)


def test_nothing_is_pushed_to_a_server_that_became_one_to_look_at(lab: Lab, staging: Environment) -> None:
    with console(lab) as its:
        machine = lab.add_server()
        row = its.add(machine, staging, 1)
        its.enrol(row, machine)
        its.push()
        change_server(actor=SYSTEM, server=row, is_observe_only=True)
        person = make_person()
        make_grant(person, staging)
        register(person)
        before = Run.objects.count()
        outcome = reconcile(row.pk, its.crew.pool)
        assert (outcome.result, machine.shell("wg show wg0 peers"), Run.objects.count()) == ("watched", "", before)
