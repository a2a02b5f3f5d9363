"""A Console over a lab: rows by services, enrolment and pushes by the workers' own functions, truth by packets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.models import Server as Row
from fleet.services import add_server
from nodes.crew import Crew
from nodes.drain import drain, finish, poll
from nodes.enrol import run_enrolment
from nodes.models import Enrolment
from nodes.services import request_enrolment
from peers.due import settle_placements
from peers.models import Device, Peer, Person
from peers.selectors import config_of
from peers.services import register_device
from tests.lab.lab import Lab
from tests.lab.machines import Client, Server
from tests.lab.tunnels import KeyPair, new_keypair


@dataclass
class Console:
    """The Console's side of a lab: one crew, as one worker process has."""

    lab: Lab
    crew: Crew

    def add(self, machine: Server, environment: Environment, number: int, **values: object) -> Row:
        """A Server row for a machine of the lab, not yet enrolled."""
        fields = {
            "name": f"vpn-{machine.name}",
            "host": machine.address,
            "endpoint_host": machine.address,
            "ipv4_pool": f"10.{number}.0.0/16",
            "ipv6_pool": f"fd00:{number}::/64",
        }
        return add_server(actor=SYSTEM, environment=environment, **{**fields, **values})

    def enrol(self, row: Row, machine: Server, *, user: str = "root", password: str = "") -> Enrolment:
        enrolment = request_enrolment(
            actor=SYSTEM,
            server=row,
            host_key=machine.host_key,
            user=user,
            password=password,
            private_key="" if password else self.lab.ssh_key.read_text(),
        )
        run_enrolment(str(enrolment.pk), self.crew.pool)
        enrolment.refresh_from_db()
        row.refresh_from_db()
        settle_placements()
        return enrolment

    def push(self) -> None:
        finish(drain(0, self.crew))

    def poll(self) -> None:
        finish(poll(0, self.crew))


@contextmanager
def console(lab: Lab) -> Iterator[Console]:
    crew = Crew()
    try:
        yield Console(lab, crew)
    finally:
        crew.close()


def register(person: Person, name: str = "laptop") -> tuple[Device, KeyPair]:
    pair = new_keypair()
    return register_device(actor=SYSTEM, person=person, name=name, public_key=pair.public_key), pair


def tunnel_file(device: Device, server: Row, pair: KeyPair) -> str:
    """The file as the person has it: the Console's text with the private key pasted in."""
    return client_file(Peer.objects.get(device=device, server=server, ended_at=None), pair)


def client_file(peer: Peer, pair: KeyPair) -> str:
    """The same of a peer that may have ended since."""
    text = config_of(peer).text()
    return text.replace("PASTE-THE-PRIVATE-KEY-OF-THIS-DEVICE-HERE", pair.private_key)


def connect(client: Client, device: Device, server: Row, pair: KeyPair, interface: str = "wg0") -> None:
    client.connect(tunnel_file(device, server, pair), interface=interface)
    client.wait_for_handshake(interface, 10)
