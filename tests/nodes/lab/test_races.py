"""Issue and revoke of one key at the same moment: whoever wins, the key is dead, or it never lived."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from fleet.models import Environment
from peers.models import Device, Peer, Person, Receipt, Tombstone
from tests.build import make_device, make_grant, make_person
from tests.fleet_in_lab import client_file
from tests.lab.lab import Lab
from tests.lab.machines import Client
from tests.lab.tunnels import KeyPair, new_keypair
from tests.nodes.lab.parts import ROOT, console_environment
from tests.nodes.lab.scene import Scene, contractor, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

RACES, BATCH, SAMPLE, AT_LEAST = 500, 25, 6, 50
LEAD, SPREAD = 0.004, 0.012


@dataclass(frozen=True)
class Race:
    """Either a device that is registered, or a grant to a person who has the device already."""

    verb: str
    person: Person
    pair: KeyPair
    environment: Environment

    def orders(self) -> tuple[dict[str, object], dict[str, object]]:
        start = time.monotonic() + LEAD
        names = {"person": self.person.pk, "environment": self.environment.pk, "name": "laptop"}
        issue = {"verb": self.verb, "at": start + random.uniform(0, SPREAD), "key": self.pair.public_key, **names}  # noqa: S311
        revoke = {"verb": "revoke", "at": start + random.uniform(0, SPREAD), "key": self.pair.public_key}  # noqa: S311
        return issue, revoke


class Racer:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def send(self, order: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> bool:
        assert self._process.stdout is not None
        return bool(json.loads(self._process.stdout.readline())["done"])


@contextmanager
def racer() -> Iterator[Racer]:
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.nodes.lab.racer"]
    variables = {**console_environment(), "DJANGO_SETTINGS_MODULE": "config.settings"}
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield Racer(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging] * 2) as found:
        yield found


def test_a_key_revoked_while_it_is_issued_is_dead_or_never_lived(lab: Lab, fleet: Scene, staging: Environment) -> None:
    """D18: five hundred times, in two processes; each order wins often enough to be tried."""
    mine, others = lab.add_clients(2)
    dave = fleet.join(contractor(staging, name="Dave"), mine)
    began = time.monotonic()
    won: dict[bool, list[Race]] = {True: [], False: []}
    with ExitStack() as stack:
        racers = [stack.enter_context(racer()) for _ in range(2)]
        for _ in range(RACES // BATCH):
            for race in _run(racers, staging):
                won[_was_issued(race)].append(race)
            fleet.console.push()
            assert _kernels(fleet) == [{dave.pair.public_key}] * 2
    assert min(len(won[True]), len(won[False])) >= AT_LEAST
    assert Tombstone.objects.count() == RACES
    assert Peer.objects.filter(ended_at=None).exclude(device=dave.device).count() == 0
    assert Receipt.objects.filter(confirmed_at=None).count() == 0
    for race in random.sample(won[True], SAMPLE):
        assert _passes(fleet, race, others) == 0
    assert dave.lost(began, time.monotonic()) == [0, 0]


def _run(racers: list[Racer], environment: Environment) -> list[Race]:
    """Half of them register a device, half grant access to a person who has one."""
    races = [_prepare(number, environment) for number in range(BATCH)]
    for race in races:
        for one, order in zip(racers, race.orders(), strict=True):
            one.send(order)
        issued, revoked = (one.answer() for one in racers)
        assert revoked
        assert issued or race.verb == "register"
    return races


def _prepare(number: int, environment: Environment) -> Race:
    person, pair = make_person("Carol"), new_keypair()
    if number % 2:
        make_device(person, public_key=pair.public_key)
        return Race("grant", person, pair, environment)
    make_grant(person, environment)
    return Race("register", person, pair, environment)


def _was_issued(race: Race) -> bool:
    """Whether the issue won: the key had a peer, which has ended since."""
    peers = Peer.objects.filter(device__public_key=race.pair.public_key)
    assert [peer.end for peer in peers if peer.end != Peer.End.REVOKED] == []
    assert Device.objects.filter(public_key=race.pair.public_key, revoked_at=None).count() == 0
    return peers.exists()


def _kernels(fleet: Scene) -> list[set[str]]:
    return [set(machine.shell("wg show wg0 peers").split()) for machine in fleet.machines]


def _passes(fleet: Scene, race: Race, client: Client) -> int:
    """Packets that come through with the file that the person was given."""
    peer = Peer.objects.select_related("server", "ipv4", "ipv6").get(
        device__public_key=race.pair.public_key, server=fleet.rows[0]
    )
    client.connect(client_file(peer, race.pair))
    received = client.ping("10.1.0.1", count=10, interval=0.05).received
    client.disconnect()
    return received
