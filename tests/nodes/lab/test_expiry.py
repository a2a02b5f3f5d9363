"""Access that ends by time: packets stop, rows end, and addresses rest before anybody else has them."""

import datetime as dt
import time

import pytest
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Server
from nodes.chores import do_chores, release_rested
from peers.granting import grant_access
from peers.models import Membership, Peer
from peers.prolonging import prolong_memberships
from peers.teams import add_team, join_team
from tests.build import make_person
from tests.fleet_in_lab import Console, connect, console, register
from tests.lab.lab import Lab
from tests.lab.machines import Client
from tests.lab.packets import Stream
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import enrolled, held_keys
from tests.nodes.lab.scene import wait_until_sent

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_a_grant_that_ends_takes_its_peer_out_and_lets_its_addresses_rest(lab: Lab, staging: Environment) -> None:
    """Erin, whose membership was to end then and goes on, loses no packet."""
    staging.address_rest = dt.timedelta(hours=1)
    staging.save()
    machine, (client, other) = lab.add_server(), lab.add_clients(2)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        hers, key = _member(muster, other, row)
        began = time.monotonic()
        person = make_person("Carol")
        until = timezone.now() + dt.timedelta(seconds=6)
        _set_end(until)
        grant_access(actor=SYSTEM, person=person, server=row, reason="a moment", until=until)
        device, pair = register(person)
        muster.push()
        connect(client, device, row, pair)
        stream = client.stream("10.1.0.1")
        stream.wait_for_reply(3)
        _set_end(until + dt.timedelta(days=1))
        muster.push()
        wait_for(lambda: timezone.now() > until, 10, "the grant's end")
        do_chores(muster.crew)
        peer = Peer.objects.get(device=device)
        assert (peer.end, peer.is_decided, peer.gone_at) == (Peer.End.EXPIRED, True, None)
        assert _resting() == (2, 0)
        muster.push()
        assert held_keys(machine) == {key}
        assert client.ping("10.1.0.1").received == 0
        event = Event.objects.get(verb="peer.expire")
        assert (event.actor_label, event.target_label, event.reason) == ("Console", "Carol", "the grant's end came")
        peer.refresh_from_db()
        assert peer.gone_at is not None
        assert release_rested() == 0
        _let_pass(dt.timedelta(hours=2))
        Peer.objects.update(gone_at=None)
        assert release_rested() == 0
        Peer.objects.update(gone_at=timezone.now())
        assert release_rested() == 2
        assert _resting() == (2, 2)
        ended = time.monotonic()
        wait_until_sent([hers], ended + 1)
        assert hers.lost(since=began, until=ended) == 0
    last = stream.last_answered_at()
    assert last is not None
    assert stream.unanswered(since=last + 0.001) != []


def _member(muster: Console, client: Client, row: Server) -> tuple[Stream, str]:
    """Erin's stream and public key: she has what a team has, until she is given another end."""
    team, erin = add_team(actor=SYSTEM, name="web"), make_person("Erin")
    grant_access(actor=SYSTEM, team=team, server=row, reason="work")
    join_team(actor=SYSTEM, team=team, people=[erin], until=timezone.now() + dt.timedelta(hours=1))
    device, pair = register(erin)
    muster.push()
    connect(client, device, row, pair)
    stream = client.stream("10.1.0.1")
    stream.wait_for_reply(10)
    return stream, pair.public_key


def _set_end(until: dt.datetime) -> None:
    rows = list(Membership.objects.filter(ended_at=None))
    prolong_memberships(actor=SYSTEM, memberships=rows, until=until, reason="renewed")


def _resting() -> tuple[int, int]:
    """How many addresses were freed, and how many of them released."""
    freed = AddressRange.objects.exclude(freed_at=None)
    return freed.count(), freed.exclude(released_at=None).count()


def _let_pass(span: dt.timedelta) -> None:
    for row in AddressRange.objects.exclude(freed_at=None):
        assert row.freed_at is not None
        row.freed_at -= span
        row.save()
