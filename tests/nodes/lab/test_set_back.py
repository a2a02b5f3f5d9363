"""A server whose disk is an older one again: what it revoked since is shut at the Console's first contact."""

import datetime as dt
import json
import shutil
import time
from collections.abc import Iterator

import pytest
from django.urls import reverse
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, ServerStatus, User
from peers.models import Receipt, Tombstone
from peers.revocation import revoke_devices
from tests.doors import browser
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import wait_for_ticks
from tests.nodes.lab.scene import Scene, Seat, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

FOLDERS = ("var/lib/muster", "etc/wireguard")
SNAPSHOT = f"cd / && mkdir /root/snapshot && cp -a --parents {' '.join(FOLDERS)} /root/snapshot"


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging]) as found:
        yield found


def restore(machine: Server) -> None:
    """The snapshot's disk, then power."""
    machine.power_off()
    for folder in FOLDERS:
        shutil.rmtree(machine.disk / folder)
        shutil.copytree(machine.disk / "root/snapshot" / folder, machine.disk / folder)
    machine.power_on()


def revoke(fleet: Scene, seat: Seat) -> None:
    """To the proof, and so long ago that the server's tombstones are taken to be complete."""
    revoke_devices(actor=SYSTEM, devices=[seat.device], reason="contract ended")
    Tombstone.objects.update(created_at=timezone.now() - dt.timedelta(hours=1))
    fleet.console.push()
    fleet.console.poll()
    assert Receipt.objects.get().confirmed_at is not None
    assert ServerStatus.objects.get().tombstone_cursor == Tombstone.objects.get().pk


def held(machine: Server) -> int:
    """How many tombstones the node says it has."""
    count: int = json.loads(machine.run(["muster-node", "observe", "wg0"]).stdout)["state"]["tombstones"]
    return count


def test_a_restored_snapshot_is_told_and_shut_at_first_contact(fleet: Scene, carol: Seat, ben: Seat, bob: User) -> None:
    """F19: a push follows at once, with all tombstones; ben's packets go through again before it and after it."""
    machine = fleet.machines[0]
    machine.shell(SNAPSHOT)
    revoke(fleet, carol)
    shut = time.monotonic()
    assert carol.is_shut_out(shut) == [True]
    restore(machine)
    for seat in (carol, ben):
        fleet.reconnect(seat)
        seat.wait_for_replies()
    assert held(machine) == 0
    back = time.monotonic()
    wait_for(lambda: contact(fleet), 30, "the first contact")
    pushed = time.monotonic()
    assert carol.is_shut_out(pushed) == [True]
    assert (ben.lost(back, pushed), held(machine)) == ([0], 1)
    found = conditions.read(ServerStatus.objects.get().conditions, Type.INTACT)
    assert found is not None
    assert (found.status, found.reason) == (False, "SetBack")
    event = Event.objects.get(verb="server.set_back")
    assert event.target_label == fleet.rows[0].name
    client = browser(bob)
    for page in ("/admin/", reverse("admin:fleet_server_change", args=[fleet.rows[0].pk])):
        said = client.get(page).content.decode()
        assert "Keys that were revoked since may have passed packets there until it was reached again" in said, page
        assert "each to its own end" in said, page
    contact(fleet)
    assert Event.objects.filter(verb="server.set_back").count() == 1


def contact(fleet: Scene) -> bool:
    """A poll, and the sweep after it; whether the server answered."""
    fleet.console.poll()
    fleet.console.push()
    found = conditions.read(ServerStatus.objects.get().conditions, Type.REACHABLE)
    return found is not None and found.status


def test_a_state_set_back_under_a_running_node_brings_no_revoked_key_back(fleet: Scene, carol: Seat, ben: Seat) -> None:
    """F19: without the Console; the daemon remembers the tombstones and writes them down again."""
    machine = fleet.machines[0]
    machine.shell(f"systemctl start muster-node; {SNAPSHOT}")
    revoke(fleet, carol)
    fleet.console.crew.close()
    began = time.monotonic()
    wait_for_ticks(machine)
    machine.shell("cp -a /root/snapshot/var/lib/muster/. /var/lib/muster; rm -f /var/lib/muster/tombstones*")
    wait_for(lambda: held(machine) == 1, 20, "the tombstone to be written again")
    wait_for_ticks(machine)
    assert carol.is_shut_out(began, time.monotonic() - began) == [True]
    assert ben.lost(began, time.monotonic()) == [0]
    assert fleet.is_in_kernel(carol.pair.public_key) == [False]
