"""A server whose host key changed gets no byte until a person looked."""

import pytest

from audit.models import Event
from audit.services import SYSTEM
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, Server
from nodes.status import record_failure
from peers.models import Receipt
from peers.revocation import revoke_devices
from tests.fleet_in_lab import console
from tests.lab import machines
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled, held_keys, joined, logins

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]
NEW_KEY = """
cd /etc/ssh && mkdir kept && mv ssh_host_ed25519_key* kept/
ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key
"""
OLD_KEY = "cd /etc/ssh && mv -f kept/* .\n"


def swap_host_key(machine: machines.Server, script: str) -> None:
    machine.shell(script + machines.RESTART_SSHD + ": >/run/sshd.log")


def reachable(server: Server) -> tuple[bool, str]:
    server.status.refresh_from_db()
    condition = conditions.read(server.status.conditions, Type.REACHABLE)
    assert condition is not None
    return condition.status, condition.reason


def retry_now(server: Server) -> None:
    """As five seconds later."""
    type(server.status).objects.filter(server=server).update(next_attempt_at=None)


def test_a_changed_host_key_gets_no_login_and_keeps_the_revocation_pending(lab: Lab, staging: Environment) -> None:
    """B14"""
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        client, device, _ = joined(muster, lab, row)
        swap_host_key(machine, NEW_KEY)
        muster.crew.pool.drop(row.pk)
        revoke_devices(actor=SYSTEM, devices=[device], reason="left")
        for _ in range(3):
            muster.push()
            muster.poll()
            retry_now(row)
        assert logins(machine) == []
        assert reachable(row) == (False, "HostKeyMismatch")
        event = Event.objects.get(verb="server.identity_changed")
        assert event.target_label == row.name
        assert event.reason.startswith(f"{machine.address} port 22: the host key is SHA256:")
        assert Receipt.objects.filter(confirmed_at=None).count() == 1
        assert client.ping("10.1.0.1").lost == 0
        swap_host_key(machine, OLD_KEY)
        muster.push()
        assert reachable(row) == (True, "Answered")
        assert Receipt.objects.filter(confirmed_at=None).count() == 0
        assert device.public_key not in held_keys(machine)


def test_another_fault_between_does_not_hide_a_second_change(staging: Environment, lab: Lab) -> None:
    with console(lab) as muster:
        row = muster.add(lab.add_server(), staging, 1)
    for reason in ("HostKeyMismatch", "HostKeyMismatch", "NodeSilent", "HostKeyMismatch"):
        record_failure(row.pk, reason=reason, message="m")
    assert Event.objects.filter(verb="server.identity_changed").count() == 2
