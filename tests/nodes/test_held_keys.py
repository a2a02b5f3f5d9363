"""Keys and addresses of what the brake holds: two never share one, and nobody is told more than was seen."""

import datetime as dt
from importlib import import_module

import pytest
from django.apps import apps
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server
from nodes import brake, status
from nodes.chores import release_rested
from nodes.desired import desired_state
from nodes.models import Hold, Run
from nodes.observe import DriftSeen, NodeState
from nodes.reconcile import _envelope
from nodes.services import approve_hold
from nodes.tombstones import Batch
from peers.granting import end_grants
from peers.models import Device, Grant, Peer, PeerStatus
from peers.routing import end_route, route_network
from peers.services import register_device
from peers.static import assign_address, end_static_address
from peers.suspending import suspend
from tests.build import make_peers, make_server, new_public_key
from tests.nodes.pushes import keys_in, push
from tests.peers.addresses import address, live

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging)


@pytest.fixture
def peers(server: Server, staging: Environment) -> list[Peer]:
    """Eight that the server has confirmed, in the order of their addresses."""
    found = make_peers(staging, 8)
    push(server)
    return sorted(found, key=lambda peer: peer.ipv4.first)


def end_together(peers: list[Peer]) -> None:
    people = [peer.device.person_id for peer in peers]
    end_grants(actor=SYSTEM, grants=list(Grant.objects.filter(person__in=people, ended_at=None)), reason="over")


def new_key_for(old: Device) -> Device:
    return register_device(actor=SYSTEM, person=old.person, name=old.name, public_key=new_public_key(), replaces=old)


def issued_now(environment: Environment, count: int) -> list[Peer]:
    known = set(Peer.objects.values_list("pk", flat=True))
    return [peer for peer in make_peers(environment, count) if peer.pk not in known]


def test_an_old_key_and_the_new_one_stay_as_they_are_where_both_are_held(server: Server, peers: list[Peer]) -> None:
    """The new one has its addresses only once the old one is gone."""
    new = new_key_for(peers[0].device)
    before = push(server).content
    assert before.peers[new.public_key].replaces == peers[0].device.public_key
    end_together(peers)
    assert push(server).content == before


def test_an_old_key_stays_in_front_of_the_new_one_where_it_alone_is_held(server: Server, peers: list[Peer]) -> None:
    new = new_key_for(peers[0].device)
    before = push(server).content
    suspend(actor=SYSTEM, targets=peers[:6], reason="idle: nothing heard", is_idle=True)
    assert not keys_in(desired_state(server.pk)) & {peer.device.public_key for peer in peers[:6]}
    assert push(server).content == before
    Peer.objects.filter(pk=peers[0].pk).update(
        ended_at=timezone.now(), end="withdrawn", ended_act=Hold.objects.get().act
    )
    assert push(server).content == before
    assert live(new, server).replaces == peers[0]


def test_an_address_that_its_device_had_again_is_nobody_else_s_before_the_held_peer_is_gone(
    server: Server, peers: list[Peer], staging: Environment
) -> None:
    Environment.objects.update(address_rest=dt.timedelta(0))
    end_together(peers)
    push(server)
    lowest, mine = peers[0].device, address(peers[0])
    row = assign_address(actor=SYSTEM, device=lowest, server=server, ipv4=mine, reason="a printer knows it")
    end_static_address(actor=SYSTEM, static=row, reason="it does not")
    release_rested()
    [newcomer] = issued_now(staging, 1)
    push(server)
    assert address(newcomer) not in {address(peer) for peer in peers}
    approve_hold(actor=SYSTEM, hold=Hold.objects.get(), reason="yes")
    push(server)
    release_rested()
    [next_one] = issued_now(staging, 1)
    assert address(next_one) == mine
    push(server)


def test_a_route_to_one_of_the_held_ends_at_once(server: Server, peers: list[Peer]) -> None:
    key, why = peers[0].device.public_key, "a branch"
    route = route_network(actor=SYSTEM, device=peers[0].device, server=server, network="192.168.7.0/24", reason=why)
    push(server)
    end_together(peers)
    assert "192.168.7.0/24" in push(server).content.peers[key].allowed_ips
    end_route(actor=SYSTEM, route=route, reason="moved out")
    assert push(server).content.peers[key].allowed_ips == (f"{address(peers[0])}/32", f"{peers[0].ipv6}")


def test_a_peer_that_was_issued_anew_with_its_key_replaces_no_key(server: Server, peers: list[Peer]) -> None:
    device = peers[0].device
    assign_address(actor=SYSTEM, device=device, server=server, ipv4=f"{server.pool4[99]}", reason="a printer")
    desired = desired_state(server.pk)
    seen = NodeState(desired.epoch, desired.generation, "d", "d")
    status.record_applied(desired, seen, [], [DriftSeen(device.public_key, "allowed_ips", "kernel has: none")])
    assert Peer.objects.exclude(ended_at=None).get().gone_at is None
    end_together(peers)
    held = push(server)
    assert (held.content.peers[device.public_key].replaces, len(held.held)) == (None, 8)


def test_the_node_judges_by_itself_what_was_never_seen_let_in(
    server: Server, peers: list[Peer], staging: Environment
) -> None:
    """A push whose answer was lost may have brought them there: the node's brake counts these."""
    end_together([peers[0], *issued_now(staging, 6)])
    suspend(actor=SYSTEM, targets=[peers[1].device], reason="stolen")
    sent, held = brake.check(desired_state(server.pk))
    told = _envelope(sent, Batch([], 0))["decided"]
    assert (held, told) == ("", sorted(peer.device.public_key for peer in peers[:2]))


def test_only_what_the_node_took_counts_as_let_in(server: Server, peers: list[Peer], staging: Environment) -> None:
    refused, taken = issued_now(staging, 2)
    desired = desired_state(server.pk)
    assert set(desired.entering) == {refused.device.public_key, taken.device.public_key}
    [later] = issued_now(staging, 1)
    seen = NodeState(desired.epoch, desired.generation, "d", "d")
    status.record_applied(desired, seen, [refused.device.public_key], [])
    found = dict(PeerStatus.objects.values_list("peer", "let_in_at"))
    assert [found[peer.pk] is None for peer in (refused, taken, later, *peers)] == [True, False, True, *[False] * 8]


def test_who_stands_on_a_server_when_marks_begin_is_marked(server: Server, staging: Environment) -> None:
    """The migration: those of a server in step, of another one those from before its last push."""
    behind, hour = make_server(staging), dt.timedelta(hours=1)
    make_peers(staging, 3)
    push(server)
    push(behind)
    PeerStatus.objects.update(let_in_at=None)
    Server.objects.filter(pk=behind.pk).update(generation=1000)
    now = timezone.now()
    Run.objects.create(server=behind, epoch=1, generation=1, outcome="applied", started_at=now - hour, seconds=2)
    Run.objects.create(server=behind, epoch=1, generation=1, outcome="held", started_at=now)
    old, new, shut = Peer.objects.filter(server=behind)
    Peer.objects.filter(pk__in=[old.pk, shut.pk]).update(issued_at=now - 2 * hour)
    PeerStatus.objects.filter(peer=shut).update(shut_at=now)
    import_module("nodes.migrations.0003_let_in").mark_let_in(apps, None)
    marked = dict(PeerStatus.objects.exclude(let_in_at=None).values_list("peer", "let_in_at"))
    assert marked == {**dict(Peer.objects.filter(server=server).values_list("pk", "issued_at")), old.pk: now - 2 * hour}
    assert new.pk not in marked
