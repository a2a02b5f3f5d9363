"""Machines with nothing but python3, sshd and apt become servers; judged by a client's packets afterwards."""

import pytest

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Bastion, Environment
from fleet.models import Server as Row
from fleet.services import add_bastion
from nodes.enrol import run_enrolment
from nodes.models import BootstrapLogin, Credential, Enrolment
from nodes.services import request_enrolment
from nodes.targets import make_missing_keys
from tests.fleet_in_lab import console
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.nodes.lab.acts import enrolled, joined, logins

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]
PASSWORD = "one-time bootstrap canary"
LET_THROUGH = """
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<END
table ip forwarded {
  chain in { type nat hook prerouting priority dstnat; iifname eth0 udp dport 51820 dnat to TO; }
  chain out { type nat hook postrouting priority srcnat; ip daddr TO masquerade; }
}
END
"""


def outcome(enrolment: Enrolment) -> tuple[str, str]:
    return enrolment.state, enrolment.error


@pytest.mark.parametrize(("ssh_user", "password"), [("root", ""), ("muster", ""), ("muster", PASSWORD)])
def test_a_bare_machine_becomes_a_server_that_a_client_gets_through(
    lab: Lab, staging: Environment, ssh_user: str, password: str
) -> None:
    machine = lab.add_bare_server()
    if password:
        machine.set_password("root", password)
    with console(lab) as muster:
        row = muster.add(machine, staging, 1, ssh_user=ssh_user)
        enrolment = muster.enrol(row, machine, password=password)
        assert outcome(enrolment) == (Enrolment.State.DONE, "")
        client, _, _ = joined(muster, lab, row)
        assert client.ping("10.1.0.1").lost == 0
    assert not BootstrapLogin.objects.exists()
    assert machine.read("/run/sshd.log").count(f"Accepted publickey for {ssh_user} ") >= 1
    assert row.host_key == machine.host_key


def test_a_login_with_sudo_and_its_password_is_enough(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    machine.add_user("olga", password=PASSWORD, sudo=True)
    with console(lab) as muster:
        row = muster.add(machine, staging, 1, ssh_user="muster")
        assert outcome(muster.enrol(row, machine, user="olga", password=PASSWORD)) == (Enrolment.State.DONE, "")
        client, _, _ = joined(muster, lab, row)
        assert client.ping("fd00:1::1").lost == 0
    assert PASSWORD not in machine.shell("grep -rs canary /etc /var/log /root /home /run --include=* || :")


def bastion_for(machine: Server) -> Bastion:
    row = add_bastion(actor=SYSTEM, name="gate", host=machine.address, ssh_user="root", host_key=machine.host_key)
    assert make_missing_keys() == 1
    row.refresh_from_db()
    return row


def test_a_bare_machine_behind_a_bastion_is_enrolled_through_it(lab: Lab, staging: Environment) -> None:
    gate = lab.add_bastion()
    machine = lab.add_bare_server(behind=gate)
    gate.shell(LET_THROUGH.replace("TO", machine.address))
    with console(lab) as muster:
        bastion = bastion_for(gate)
        row = muster.add(machine, staging, 1, bastion=bastion, endpoint_host=gate.address)
        refused = muster.enrol(row, machine)
        assert refused.state == Enrolment.State.FAILED
        assert refused.error.startswith(f"{gate.address} port 22: login as root was refused")
        gate.authorize(bastion.ssh_public_key)
        assert outcome(muster.enrol(row, machine)) == (Enrolment.State.DONE, "")
        client, _, _ = joined(muster, lab, row)
        assert client.ping("10.1.0.1").lost == 0


def test_enrolling_again_keeps_the_key_and_costs_no_packet(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        client, _, _ = joined(muster, lab, row)
        before = row.public_key
        stream = client.stream("10.1.0.1")
        began = stream.wait_for_reply(5)
        assert outcome(muster.enrol(row, machine)) == (Enrolment.State.DONE, "")
        muster.push()
        done = stream.wait_for_reply(5, after=began)
        assert stream.lost(since=began, until=done) == 0
    assert (row.public_key, machine.shell("grep -c restrict /root/.ssh/authorized_keys").strip()) == (before, "1")


def assert_failed(enrolment: Enrolment, server: Row, error: str) -> None:
    assert outcome(enrolment) == (Enrolment.State.FAILED, error)
    assert not BootstrapLogin.objects.exists()
    event = Event.objects.get(verb="server.enrol_failed")
    assert (event.reason, event.target_label) == (error, server.name)


def test_an_enrolment_that_fails_says_the_step_and_leaves_nothing(lab: Lab, staging: Environment) -> None:
    machine = lab.add_bare_server()
    machine.shell("rm -r /var/lab-repo")
    with console(lab) as muster:
        row = muster.add(machine, staging, 1)
        enrolment = muster.enrol(row, machine)
    assert enrolment.error.startswith("install: apt-get could not put in: iproute2, ")
    assert_failed(enrolment, row, enrolment.error)
    assert (row.enrolled_at, row.public_key, row.host_key, row.ssh_public_key) == (None, "", "", "")
    assert not Credential.objects.exists()


def test_a_failed_second_enrolment_leaves_the_way_in_that_worked(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        error = f"{machine.address} port 22: login as root was refused; the password is wrong, or sshd takes none for "
        error += "root (PermitRootLogin, PasswordAuthentication)"
        assert_failed(muster.enrol(row, machine, password="wrong"), row, error)
        muster.crew.pool.drop(row.pk)
        client, _, _ = joined(muster, lab, row)
        assert client.ping("10.1.0.1").lost == 0


def test_a_wrong_fingerprint_gets_no_login(lab: Lab, staging: Environment) -> None:
    """B14: enrolment"""
    machine, other = lab.add_servers(2)
    with console(lab) as muster:
        row = muster.add(machine, staging, 1)
        for confirmed in (other.host_key_fingerprint, other.host_key):
            asked = request_enrolment(
                actor=SYSTEM, server=row, host_key=confirmed, user="root", private_key=lab.ssh_key.read_text()
            )
            run_enrolment(str(asked.pk), muster.crew.pool)
            asked.refresh_from_db()
            assert asked.state == Enrolment.State.FAILED
            assert asked.error.startswith(
                f"{machine.address} port 22: the machine shows {machine.host_key_fingerprint}, "
            )
        assert logins(machine) == []
        assert outcome(muster.enrol(row, machine)) == (Enrolment.State.DONE, "")
    assert logins(machine) != []


def test_a_copy_of_a_server_is_refused_by_its_twins_name(lab: Lab, staging: Environment) -> None:
    machine, copy = lab.add_servers(2)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        copy.put("/etc/wireguard/wg0.conf", machine.read("/etc/wireguard/wg0.conf"), 0o600)
        enrolment = muster.enrol(muster.add(copy, staging, 2), copy)
    error = f"{row} has this key: one is a copy of the other. Delete it here, then enrol again."
    assert outcome(enrolment) == (Enrolment.State.FAILED, error)
