"""A fleet with people on it: enrolled servers, and persons whose devices are connected and send packets."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db.models import F, Q

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.models import Server as Row
from nodes.chores import do_chores
from nodes.crew import Crew
from nodes.drain import finish
from nodes.models import Enrolment
from nodes.services import request_enrolment
from peers.models import Device, Peer, Person, Receipt
from tests.build import make_grant, make_person
from tests.fleet_in_lab import Console, register, tunnel_file
from tests.lab.lab import Lab
from tests.lab.machines import Client, Server
from tests.lab.packets import Stream
from tests.lab.tunnels import KeyPair
from tests.lab.waiting import wait_for


@dataclass
class Seat:
    """A person's device on a client machine: tunnel N leads to server N, and a stream of packets through each."""

    person: Person
    device: Device
    pair: KeyPair
    client: Client
    files: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    def wait_for_replies(self, *, after: float = 0) -> None:
        for stream in self.streams:
            stream.wait_for_reply(10, after=after)

    def lost(self, since: float, until: float) -> list[int]:
        """Packets lost through each server."""
        wait_until_sent(self.streams, until + 1)
        return [stream.lost(since=since, until=until) for stream in self.streams]

    def is_shut_out(self, since: float, seconds: float = 0.6) -> list[bool]:
        """For each server, whether no packet sent in that time came through; the stream did send."""
        wait_until_sent(self.streams, since + seconds)
        return [(stream.last_answered_at() or 0) < since for stream in self.streams]


def wait_until_sent(streams: Sequence[Stream], moment: float) -> None:
    """Until each stream has sent a packet later than `moment`."""
    for stream in streams:
        wait_for(lambda s=stream: s.packets()[-1].sent_at > moment, 15, "packets to be sent")  # type: ignore[misc]


@dataclass
class Scene:
    """A Console, its servers, and what a test asks about them."""

    console: Console
    machines: list[Server]
    rows: list[Row]

    def issue(self, person: Person, client: Client, name: str = "laptop") -> Seat:
        """A new device of the person, not pushed yet."""
        device, pair = register(person, name)
        return Seat(person, device, pair, client)

    def connect(self, seat: Seat, *, rate: float = 100) -> None:
        """Tunnels to all servers, with a stream through each that gets through."""
        seat.files = [tunnel_file(seat.device, row, seat.pair) for row in self.rows]
        self._open(seat, rate)
        seat.wait_for_replies()

    def reconnect(self, seat: Seat) -> None:
        """The same files again, as after a restart of the client: it shakes hands anew, if it is let in."""
        self.disconnect(seat)
        self._open(seat, rate=100)

    def _open(self, seat: Seat, rate: float) -> None:
        for number, text in enumerate(seat.files):
            seat.client.connect(text, interface=f"wg{number}")
        seat.streams = [self._stream(seat.client, number, rate) for number in range(len(self.rows))]

    def _stream(self, client: Client, number: int, rate: float) -> Stream:
        return client.stream(f"10.{number + 1}.0.1", interface=f"wg{number}", rate=rate)

    def join(self, person: Person, client: Client) -> Seat:
        """Issued, pushed and connected."""
        seat = self.issue(person, client)
        self.console.push()
        self.connect(seat)
        return seat

    def disconnect(self, seat: Seat) -> None:
        seat.client.close_streams()
        for number in range(len(self.rows)):
            seat.client.disconnect(f"wg{number}")

    def wait_in_sync(self, timeout: float = 40) -> None:
        """Until every server confirmed what is wanted now; somebody else does the work."""
        behind = Q(status__observed_generation__lt=F("generation")) | Q(status__observed_epoch__lt=F("epoch"))
        wait_for(lambda: not Row.objects.filter(behind).exists(), timeout, "the servers to follow")

    def wait_for_receipts(self, timeout: float = 40) -> None:
        wait_for(lambda: not pending(), timeout, "every receipt")

    def dump(self, number: int, public_key: str) -> list[str]:
        """What one server's kernel says of a peer: endpoint, networks, handshake, received, sent; or nothing."""
        rows = [row.split("\t") for row in self.machines[number].run(["wg", "show", "wg0", "dump"]).stdout.splitlines()]
        found = [row[2:7] for row in rows if row[0] == public_key]
        return found[0] if found else []

    def handshakes(self, seat: Seat) -> list[str]:
        return [self.dump(number, seat.pair.public_key)[2] for number in range(len(self.rows))]

    def traffic(self, seat: Seat) -> list[tuple[int, int]]:
        """(received, sent) of the peer on each server."""
        dumps = [self.dump(number, seat.pair.public_key) for number in range(len(self.rows))]
        return [(int(dump[3]), int(dump[4])) for dump in dumps]

    def node_state(self, number: int) -> tuple[int, int, str]:
        """(epoch, generation, digest) that a node says it holds."""
        answer = json.loads(self.machines[number].run(["muster-node", "observe", "wg0"]).stdout)
        return answer["state"]["epoch"], answer["state"]["generation"], answer["state"]["digest"]

    def is_in_kernel(self, public_key: str) -> list[bool]:
        return [bool(self.dump(number, public_key)) for number in range(len(self.rows))]


def contractor(*environments: Environment, name: str = "Carol") -> Person:
    """With a grant to each."""
    person = make_person(name, Person.Kind.CONTRACTOR)
    for environment in environments:
        make_grant(person, environment)
    return person


def pending() -> list[str]:
    """The names of the servers that owe a receipt."""
    return sorted(Receipt.objects.filter(confirmed_at=None).values_list("server__name", flat=True))


def live_peers(device: Device) -> int:
    return Peer.objects.filter(device=device, ended_at=None).count()


@contextmanager
def scene(lab: Lab, environments: Sequence[Environment]) -> Iterator[Scene]:
    """One enrolled server for each of the environments."""
    machines = lab.add_servers(len(environments))
    crew = Crew()
    try:
        muster = Console(lab, crew)
        rows = [muster.add(m, e, n) for n, (m, e) in enumerate(zip(machines, environments, strict=True), 1)]
        enrol_all(muster, rows, machines)
        yield Scene(muster, machines, rows)
    finally:
        crew.close()


def enrol_all(muster: Console, rows: Sequence[Row], machines: Sequence[Server]) -> None:
    """Side by side, as the workers' sweep takes them up."""
    key = muster.lab.ssh_key.read_text()
    for row, machine in zip(rows, machines, strict=True):
        request_enrolment(
            actor=SYSTEM, server=row, host_key=machine.host_key, user="root", password="", private_key=key
        )
    finish(do_chores(muster.crew))
    for row in rows:
        row.refresh_from_db()
    assert set(Enrolment.objects.values_list("state", "error")) == {(Enrolment.State.DONE, "")}
