"""What several lab tests do in the same way: enrol a machine, give somebody access, read what a server says."""

from fleet.models import Environment, Server
from nodes.models import Enrolment
from peers.models import Device
from tests.build import make_grant, make_person, new_public_key
from tests.fleet_in_lab import Console, connect, register
from tests.lab import machines
from tests.lab.lab import Lab
from tests.lab.tunnels import KeyPair
from tests.lab.waiting import wait_for


def enrolled(
    muster: Console, machine: machines.Server, environment: Environment, number: int = 1, **values: object
) -> Server:
    """The machine as a server of the fleet, with the pools 10.NUMBER.0.0/16 and fd00:NUMBER::/64."""
    row = muster.add(machine, environment, number, **values)
    enrolment = muster.enrol(row, machine)
    assert (enrolment.state, enrolment.error) == (Enrolment.State.DONE, "")
    muster.push()
    return row


def joined(muster: Console, lab: Lab, row: Server, name: str = "Carol") -> tuple[machines.Client, Device, KeyPair]:
    """A new person with a device that has shaken hands with the server, on a machine of its own."""
    person = make_person(name)
    make_grant(person, row.environment)
    device, pair = register(person)
    muster.push()
    client = lab.add_clients(1)[0]
    connect(client, device, row, pair)
    return client, device, pair


def held_keys(machine: machines.Server, interface: str = "wg0") -> set[str]:
    """The public keys in the server's kernel."""
    return set(machine.run(["wg", "show", interface, "peers"]).stdout.split())


def wait_for_ticks(*servers: machines.Server) -> None:
    """Each machine's daemon looked: it took a stranger out."""
    stranger = new_public_key()
    for machine in servers:
        machine.run(["wg", "set", "wg0", "peer", stranger])
    for machine in servers:
        wait_for(lambda m=machine: stranger not in held_keys(m), 20, "a tick")  # type: ignore[misc]


def logins(machine: machines.Server) -> list[str]:
    """The lines of sshd's log that tell of anybody trying to log in."""
    log = machine.read("/run/sshd.log").splitlines()
    return [line for line in log if " user " in line or "Accepted " in line or "Failed " in line]
