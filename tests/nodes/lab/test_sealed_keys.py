"""Sealed keys and real servers: a tampered row stops one server's pushes and no revocation, a rotation nothing."""

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.core.management import call_command

from audit.services import SYSTEM
from fleet import conditions
from fleet.conditions import Condition, Type
from fleet.keyrings import LOGIN_KEYS, PRESHARED_KEYS, Opener
from fleet.models import Environment, ServerStatus
from nodes.crew import Crew
from nodes.models import Credential, Run
from peers.models import Device, Peer
from peers.revocation import revoke_devices
from tests.build import make_device
from tests.fleet_in_lab import Console
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.scene import Scene, Seat, contractor, pending, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def fleet(own_keyrings: object, lab: Lab, staging: Environment) -> Iterator[Scene]:
    """Two servers of one environment."""
    with scene(lab, [staging, staging]) as found:
        yield found


@dataclass
class Spoilt:
    """A row of the first server, and what another row or column holds."""

    sealed: str
    neighbour: str
    secret: str

    def swapped(self) -> str:
        return self.neighbour

    def plain(self) -> str:
        return self.secret

    def flipped(self) -> str:
        name, body = self.sealed.split(":")
        raw = bytearray(base64.b64decode(body))
        raw[20] ^= 1
        return f"{name}:{base64.b64encode(bytes(raw)).decode()}"

    def renamed(self) -> str:
        return f"k1:{self.sealed.partition(':')[2]}"


WAYS: list[Callable[[Spoilt], str]] = [Spoilt.swapped, Spoilt.plain, Spoilt.flipped, Spoilt.renamed]


def peer_of(device: Device, fleet: Scene, number: int = 0) -> Peer:
    return Peer.objects.get(device=device, server=fleet.rows[number])


def in_sync(fleet: Scene, number: int) -> Condition:
    found = conditions.read(ServerStatus.objects.get(server=fleet.rows[number]).conditions, Type.IN_SYNC)
    assert found is not None
    return found


def preshared_keys(fleet: Scene, number: int) -> dict[str, str]:
    """What the kernel holds, by public key."""
    said = fleet.machines[number].shell("wg show wg0 preshared-keys").splitlines()
    return dict(line.split() for line in said)


def opened(fleet: Scene, number: int) -> dict[str, str]:
    """What it should hold."""
    rows = Peer.objects.filter(server=fleet.rows[number], ended_at=None, device__revoked_at=None)
    keys = Opener(PRESHARED_KEYS)
    return {peer.device.public_key: keys.open(peer.preshared_key, peer.pk) for peer in rows.select_related("device")}


def text_of(fleet: Scene, number: int) -> str:
    """All that a node has put on its disk."""
    return fleet.machines[number].shell("find /var/lib/muster /etc/wireguard -type f -exec cat {} +")


def test_a_tampered_key_stops_one_servers_pushes_and_no_revocation(
    fleet: Scene, lab: Lab, staging: Environment
) -> None:
    """C9: whichever way, and with no session open to it; nothing of what is sealed is ever sent as a key."""
    ben = fleet.join(contractor(staging, name="Ben"), lab.add_clients(1)[0])
    carol = make_device(contractor(staging))
    fleet.console.push()
    row = peer_of(carol, fleet)
    secret = Opener(PRESHARED_KEYS).open(row.preshared_key, row.pk)
    spoilt = Spoilt(row.preshared_key, peer_of(ben.device, fleet).preshared_key, secret)
    for number, way in enumerate(WAYS):
        victim = make_device(carol.person, f"victim-{number}")
        fleet.console.push()
        assert fleet.is_in_kernel(victim.public_key) == [True, True]
        Peer.objects.filter(pk=row.pk).update(preshared_key=way(spoilt))
        late = make_device(carol.person, f"late-{number}")
        fleet.console.crew.pool.drop(fleet.rows[0].pk)
        fleet.console.push()
        assert fleet.is_in_kernel(late.public_key) == [False, True]
        seen = in_sync(fleet, 0)
        assert (seen.status, in_sync(fleet, 1).status) == (False, True)
        assert seen.message.startswith(f"The preshared key of {carol} does not open")
        assert f"put the row back as it was, or revoke {carol}" in seen.message
        revoke_devices(actor=SYSTEM, devices=[victim], reason="lost")
        fleet.console.push()
        assert pending() == []
        assert fleet.is_in_kernel(victim.public_key) == [False, False]
        assert in_sync(fleet, 0).status is False
        assert secret in text_of(fleet, 0)
        assert way is Spoilt.plain or way(spoilt).partition(":")[2] not in text_of(fleet, 0)
        Peer.objects.filter(pk=row.pk).update(preshared_key=spoilt.sealed)
        push_until_there(fleet, late)
        assert [preshared_keys(fleet, number) for number in (0, 1)] == [opened(fleet, number) for number in (0, 1)]
    assert ben.lost(ben.streams[0].packets()[0].sent_at, time.monotonic()) == [0, 0]


def push_until_there(fleet: Scene, device: Device) -> None:
    """Whatever pause the last failure asked for, and whatever job is at the server still."""

    def is_there() -> bool:
        ServerStatus.objects.update(next_attempt_at=None)
        fleet.console.push()
        return fleet.is_in_kernel(device.public_key) == [True, True]

    wait_for(is_there, 20, "the device on both servers", interval=0.1)


def test_a_tampered_row_is_mended_by_revoking_its_device(fleet: Scene, staging: Environment) -> None:
    """C9: as the server's page says."""
    carol, dave = make_device(contractor(staging)), make_device(contractor(staging, name="Dave"))
    fleet.console.push()
    Peer.objects.filter(device=carol).update(preshared_key="")
    late = make_device(dave.person, "late")
    fleet.console.push()
    assert fleet.is_in_kernel(late.public_key) == [False, False]
    revoke_devices(actor=SYSTEM, devices=[carol], reason="its row was changed")
    push_until_there(fleet, late)
    assert (fleet.is_in_kernel(carol.public_key), pending()) == ([False, False], [])
    assert [in_sync(fleet, number).status for number in (0, 1)] == [True, True]


def test_swapped_login_keys_stop_pushes_and_no_revocation_on_an_open_session(
    fleet: Scene, staging: Environment
) -> None:
    """C9"""
    carol = make_device(contractor(staging))
    victim = make_device(carol.person, "victim")
    fleet.console.push()
    one, two = (Credential.objects.get(server=row) for row in fleet.rows)
    Credential.objects.filter(pk=one.pk).update(private_key=two.private_key)
    late = make_device(carol.person, "late")
    fleet.console.push()
    assert fleet.is_in_kernel(late.public_key) == [False, True]
    assert in_sync(fleet, 0).message == "nodes_credential.private_key: not sealed for this row"
    revoke_devices(actor=SYSTEM, devices=[victim], reason="lost")
    fleet.console.push()
    assert (fleet.is_in_kernel(victim.public_key), pending()) == ([False, False], [])
    Credential.objects.filter(pk=one.pk).update(private_key=one.private_key)
    push_until_there(fleet, late)


def test_rotated_keyrings_change_nothing_on_a_server_and_open_the_way_to_it(
    fleet: Scene, lab: Lab, staging: Environment
) -> None:
    """C7: same digest, same generation, same preshared keys, no packet lost; a new worker logs in and pushes."""
    carol = fleet.join(contractor(staging), lab.add_clients(1)[0])
    began, held = time.monotonic(), [fleet.node_state(number) for number in (0, 1)]
    keys, login = [preshared_keys(fleet, number) for number in (0, 1)], Credential.objects.all()[0]
    for keyring in ("peers", "nodes"):
        call_command("rotate_keyring", keyring)
    assert LOGIN_KEYS.text_of(login.pk) != login.private_key
    crew = Crew()
    try:
        again = Console(lab, crew)
        ServerStatus.objects.update(observed_generation=0)
        runs = Run.objects.count()
        again.push()
        assert set(Run.objects.order_by("pk")[runs:].values_list("outcome", flat=True)) == {Run.Outcome.ALREADY}
        assert [fleet.node_state(number) for number in (0, 1)] == held
        assert [preshared_keys(fleet, number) for number in (0, 1)] == keys
        late: Seat = fleet.issue(contractor(staging, name="Dave"), lab.add_clients(1)[0])
        again.push()
        fleet.connect(late)
        assert [preshared_keys(fleet, number) for number in (0, 1)] == [opened(fleet, number) for number in (0, 1)]
    finally:
        crew.close()
    assert carol.lost(began, time.monotonic()) == [0, 0]
