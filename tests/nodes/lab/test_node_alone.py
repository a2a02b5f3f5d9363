"""The node with nobody to ask: what ends goes on time, and what was shut stays shut over boots."""

import datetime as dt
import time

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment
from peers.models import Device
from peers.revocation import revoke_devices
from peers.services import grant_access
from tests.build import make_person
from tests.fleet_in_lab import connect, console, register
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import enrolled, held_keys

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

TICK = 10
BOOTS = 4


def test_access_ends_on_time_with_the_whole_console_gone(lab: Lab, staging: Environment) -> None:
    """D10, E11, F7: at the grant's end and a tick; a restart of the node or of its machine revives nobody."""
    machine, (carol, dave) = lab.add_server(), lab.add_clients(2)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        people = make_person("Carol"), make_person("Dave")
        end = timezone.now() + dt.timedelta(seconds=12)
        for person, until in zip(people, (end, None), strict=True):
            grant_access(actor=SYSTEM, person=person, server=row, reason="work", until=until)
        for person, client in zip(people, (carol, dave), strict=True):
            device, pair = register(person)
            muster.push()
            connect(client, device, row, pair)
    machine.shell("systemctl start muster-node")
    hers, his = (client.stream("10.1.0.1", rate=50) for client in (carol, dave))
    his.wait_for_reply(5)
    hers.wait_for_reply(5)
    began = time.monotonic()
    wait_for(lambda: len(held_keys(machine)) == 1, 12 + TICK + 5, "Carol's key to be taken out")
    wait_for(lambda: hers.packets()[-1].sent_at > time.monotonic() - 0.2, 5, "packets to be sent")
    last = hers.last_answered_at()
    assert last is not None
    late = (last - time.monotonic()) + (timezone.now() - end).total_seconds()
    assert -TICK < late < TICK, f"her last packet passed {late:.1f} s after the end"
    assert his.lost(since=began, until=time.monotonic() - 1) == 0
    machine.shell("systemctl restart muster-node")
    assert "expired" in machine.read("/var/lib/muster/wg0/journal")
    machine.reboot()
    his.wait_for_reply(30, after=time.monotonic())
    assert hers.last_answered_at() == last


def test_no_packet_of_a_dead_key_is_answered_while_the_machine_boots(lab: Lab, staging: Environment) -> None:
    """D1, D11, F2: by systemd's lines and by plain wg-quick, the keys put back into the conf, flooding all along."""
    machine, (carol, dave, erin) = lab.add_server(), lab.add_clients(3)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        keys = {}
        for name, client in (("Carol", carol), ("Dave", dave), ("Erin", erin)):
            person = make_person(name)
            seconds = 15 if name == "Erin" else 3600
            until = timezone.now() + dt.timedelta(seconds=seconds)
            grant_access(actor=SYSTEM, person=person, server=row, reason="work", until=until)
            device, keys[name] = register(person)
            muster.push()
            connect(client, device, row, keys[name])
        revoke_devices(actor=SYSTEM, devices=[Device.objects.get(public_key=keys["Carol"].public_key)], reason="lost")
        muster.push()
    machine.shell("muster-node tick wg0")
    wait_for(
        lambda: "expired" in machine.shell("muster-node tick wg0; cat /var/lib/muster/wg0/journal || true"),
        20,
        "Erin's end",
    )
    floods = [client.stream("10.1.0.1", rate=100) for client in (carol, erin)]
    alive = dave.stream("10.1.0.1", rate=50)
    put_back = "".join(
        f"[Peer]\\nPublicKey = {keys[name].public_key}\\nAllowedIPs = 10.1.0.0/24\\n" for name in ("Carol", "Erin")
    )
    for number in range(BOOTS):
        machine.shell(f"printf '{put_back}' >> /etc/wireguard/wg0.conf")
        if number % 2:
            machine.shell("wg-quick down wg0; wg-quick up wg0")
        else:
            machine.reboot()
        alive.wait_for_reply(30, after=time.monotonic())
        assert held_keys(machine) == {keys["Dave"].public_key}
        assert [flood.last_answered_at() for flood in floods] == [None, None], f"boot {number}"
    assert all(len(flood.packets()) > 100 for flood in floods)
