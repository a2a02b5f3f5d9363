"""The node with nobody to ask: what ends goes on time."""

import datetime as dt
import time

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment
from peers.granting import grant_access
from tests.build import make_person
from tests.fleet_in_lab import connect, console, register
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import enrolled, held_keys

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

TICK = 10
LIFE = 25  # enough to issue and connect on a busy machine


def test_access_ends_on_time_with_the_whole_console_gone(lab: Lab, staging: Environment) -> None:
    """D10, E11, F7: at the grant's end and a tick; a restart of the node or of its machine revives nobody."""
    machine, (carol, dave) = lab.add_server(), lab.add_clients(2)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        people = make_person("Carol"), make_person("Dave")
        end = timezone.now() + dt.timedelta(seconds=LIFE)
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
    wait_for(lambda: len(held_keys(machine)) == 1, LIFE + TICK + 5, "Carol's key to be taken out")
    wait_for(lambda: hers.packets()[-1].sent_at > time.monotonic() - 0.2, 5, "packets to be sent")
    last = hers.last_answered_at()
    assert last is not None
    late = (last - time.monotonic()) + (timezone.now() - end).total_seconds()
    assert -TICK < late < TICK, f"her last packet passed {late:.1f} s after the end"
    assert his.lost(since=began, until=time.monotonic() - 1) == 0
    wait_for(lambda: "expired" in machine.shell("cat /var/lib/muster/wg0/journal || true"), 5, "the journal's entry")
    machine.shell("systemctl restart muster-node")
    machine.reboot()
    his.wait_for_reply(30, after=time.monotonic())
    assert hers.last_answered_at() == last
