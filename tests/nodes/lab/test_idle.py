"""Peers that nothing is heard of, by packets: many wait for a person's approval, and who is resumed comes back."""

import datetime as dt

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server, ServerStatus, User
from fleet.services import change_environment
from nodes.chores import do_chores
from nodes.drain import finish
from nodes.models import HeldPush, Hold
from nodes.services import approve_hold
from peers.idle import is_idle
from peers.models import Peer, PeerStatus, Suspension
from peers.suspending import resume
from tests.build import make_peers
from tests.fleet_in_lab import Console, console
from tests.lab import machines
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled, held_keys, joined

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]
DAY = dt.timedelta(days=1)


def let_pass(days: int, quiet: list[Peer]) -> None:
    """That many days go by, the server asked all along; of `quiet` nothing is heard."""
    now = timezone.now()
    Peer.objects.update(issued_at=now - days * DAY)
    PeerStatus.objects.filter(peer__in=quiet).update(let_in_at=now - days * DAY)
    ServerStatus.objects.update(peers_seen_since=now - days * DAY)


def keys(peers: list[Peer]) -> set[str]:
    return {peer.device.public_key for peer in peers}


def chores(muster: Console) -> None:
    finish(do_chores(muster.crew))
    muster.push()


def test_twenty_idle_peers_of_fifty_are_held_and_go_on_approval(lab: Lab, staging: Environment, alice: User) -> None:
    """The brake, and a bystander that is connected."""
    with console(lab) as muster:
        row = enrolled(muster, lab.add_server(), staging)
        machine = lab.of(machines.Server)[0]
        peers = make_peers(staging, 49)
        client, device, _ = joined(muster, lab, row)
        bystander = Peer.objects.get(device=device)
        stream = client.stream("10.1.0.1")
        quiet, busy = peers[:20], peers[20:]
        muster.poll()
        let_pass(40, peers)
        PeerStatus.objects.filter(peer__in=busy).update(latest_handshake_at=timezone.now() - 9 * DAY)
        change_environment(actor=SYSTEM, environment=staging, idle_after=30 * DAY, suspends_idle=True, reason="tidy")
        muster.poll()
        chores(muster)
        hold = Hold.objects.get()
        assert f"{Suspension.objects.count()} at once by Console" in hold.cause
        assert "idle: nothing heard since" in hold.cause
        assert [(push.removals, push.held) for push in HeldPush.objects.all()] == [(20, 50)]
        assert held_keys(machine) == keys([*peers, bystander])

        approve_hold(actor=alice, hold=hold, reason="they are all on leave")
        chores(muster)
        assert held_keys(machine) == keys([*busy, bystander])
        assert Suspension.objects.count() == 20
        _resumed_have_all_the_time_again(muster, row, quiet[0], alice)
        assert held_keys(machine) == keys([quiet[0], *busy, bystander])
        stream.wait_for_reply(5)
        assert stream.unanswered() == []


def _resumed_have_all_the_time_again(muster: Console, row: Server, peer: Peer, alice: User) -> None:
    """Also where the suspension's end is long ago, and its server took long to hear of it."""
    resume(actor=alice, suspension=Suspension.objects.get(peer=peer), reason="she is back")
    Suspension.objects.filter(peer=peer).update(ended_at=timezone.now() - 31 * DAY)
    chores(muster)
    assert Suspension.objects.filter(ended_at=None).count() == 19
    PeerStatus.objects.filter(peer=peer).update(let_in_at=timezone.now() - 31 * DAY)
    assert set(Peer.objects.filter(is_idle(timezone.now()))) == {peer}
