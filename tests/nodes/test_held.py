"""What the brake holds stays as it is on its server, and nothing else waits for it."""

import datetime as dt

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet import conditions
from fleet.admin import state_of
from fleet.conditions import Type
from fleet.models import Environment, Server, User
from nodes import brake, status
from nodes.desired import desired_state
from nodes.models import HeldPush, Hold
from nodes.render import digest
from nodes.services import approve_hold
from peers.granting import end_grants, grant_access
from peers.models import Grant, Peer, PeerStatus
from peers.revocation import revoke_devices
from peers.suspending import resume, suspend
from tests.build import make_grant, make_peers, make_review, make_server
from tests.nodes.journals import Node, journal, read
from tests.nodes.pushes import keys_in, push

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging)


@pytest.fixture
def peers(server: Server, staging: Environment) -> list[Peer]:
    """Twelve that the server has confirmed."""
    found = sorted(make_peers(staging, 12), key=lambda peer: peer.device.public_key)
    push(server)
    return found


def end_together(peers: list[Peer]) -> None:
    """One act, which no one person's case decides."""
    grants = Grant.objects.filter(person__in=[peer.device.person_id for peer in peers], ended_at=None)
    end_grants(actor=SYSTEM, grants=list(grants), reason="project is over")


def keys(peers: list[Peer]) -> set[str]:
    return {peer.device.public_key for peer in peers}


def now(server: Server) -> Server:
    return Server.objects.select_related("status").get(pk=server.pk)


def condition(server: Server, type: Type) -> tuple[bool, str]:
    found = conditions.read(now(server).status.conditions, type)
    assert found is not None
    return found.status, found.reason


def test_what_is_decided_goes_out_while_eight_are_held(server: Server, peers: list[Peer], staging: Environment) -> None:
    before = desired_state(server.pk).content.peers
    held, one, later = peers[:8], peers[8], peers[9]
    end_together(held)
    suspend(actor=SYSTEM, targets=[one.device.person], reason="stolen laptop")
    soon = timezone.now() + dt.timedelta(hours=1)
    longer = Grant.objects.get(person=later.device.person)
    grant_access(actor=SYSTEM, person=later.device.person, environment=staging, reason="sooner", until=soon)
    end_grants(actor=SYSTEM, grants=[longer], reason="sooner")
    newcomer = [peer for peer in make_peers(staging, 1) if peer.device.public_key not in before]
    sent = push(server)
    assert keys_in(sent) == keys([*held, *peers[9:], *newcomer])
    assert {key: sent.content.peers[key] for key in keys(held)} == {key: before[key] for key in keys(held)}
    assert sent.content.peers[later.device.public_key].expires_at == int(soon.timestamp())
    assert not keys_in(sent) & {removal.public_key for removal in (*sent.removals, *sent.shut)}
    assert Peer.objects.filter(gone_at=None).exclude(ended_at=None).count() == 8
    assert [row.peer.pk for row in PeerStatus.objects.exclude(shut_at=None)] == [one.pk]
    Server.objects.update(enrolled_at=timezone.now())
    row = now(server)
    assert (row.status.observed_generation, state_of(row)) == (row.generation, "held")
    assert (condition(server, Type.HELD), condition(server, Type.IN_SYNC)) == ((True, "Brake"), (False, "Held"))
    assert [(p.removals, p.held) for p in HeldPush.objects.all()] == [(8, 13)]


def test_the_same_goes_out_again_and_an_approval_is_another_generation(
    server: Server, peers: list[Peer], alice: User
) -> None:
    end_together(peers[:8])
    first, again = push(server), push(server)
    assert (first.generation, digest(first.content)) == (again.generation, digest(again.content))
    hold = Hold.objects.get()
    approve_hold(actor=alice, hold=hold, reason="yes")
    after = push(server)
    assert (after.generation, keys_in(after)) == (again.generation + 1, keys(peers[8:]))
    assert (condition(server, Type.HELD), condition(server, Type.IN_SYNC)) == ((False, "Pushed"), (True, "InSync"))
    assert Peer.objects.filter(gone_at=None).count() == 4


def test_a_plan_shows_what_would_go_out_and_what_would_be_held(server: Server, peers: list[Peer]) -> None:
    end_together(peers[:8])
    suspend(actor=SYSTEM, targets=[peers[8].device], reason="stolen")
    shown, why = brake.preview(desired_state(server.pk))
    assert not Hold.objects.exists()
    assert why.startswith("8 of 12 peers would go: grant.end ")
    assert shown.content == push(server).content


def test_who_ended_before_any_push_is_never_brought_there(
    server: Server, peers: list[Peer], staging: Environment
) -> None:
    known = keys(peers)
    fresh = [peer for peer in make_peers(staging, 9) if peer.device.public_key not in known]
    end_together([*peers[:6], *fresh])
    sent = push(server)
    assert keys_in(sent) == known
    assert [(p.removals, p.held) for p in HeldPush.objects.all()] == [(6, 21)]
    assert Peer.objects.filter(pk__in=[peer.pk for peer in fresh], gone_at=None).count() == 0
    assert Peer.objects.filter(pk__in=[peer.pk for peer in peers], gone_at=None).count() == 12


def test_who_was_out_when_many_ended_is_not_let_in_by_that(server: Server, peers: list[Peer]) -> None:
    """One seen shut as it was idle, one suspended and not pushed yet, one shut at the machine."""
    seen, unpushed, there = peers[:3]
    suspend(actor=SYSTEM, targets=[seen], reason="idle: nothing heard", is_idle=True)
    push(server)
    suspend(actor=SYSTEM, targets=[unpushed], reason="stolen")
    make_review(there)
    end_together(peers[:10])
    assert keys_in(push(server)) == keys(peers[3:])
    assert [p.removals for p in HeldPush.objects.all()] == [7]
    assert keys_in(push(server)) == keys(peers[3:])


def test_one_of_the_held_who_is_suspended_goes_out_and_stays_out(server: Server, peers: list[Peer]) -> None:
    end_together(peers[:8])
    push(server)
    before = now(server).generation
    [held] = suspend(actor=SYSTEM, targets=[peers[0].device.person], reason="left in anger")
    sent = push(server)
    assert (sent.generation, keys_in(sent)) == (before + 1, keys(peers[1:]))
    resume(actor=SYSTEM, suspension=held, reason="a mistake")
    assert keys_in(push(server)) == keys(peers[1:])


def test_who_is_resumed_before_the_server_heard_of_it_is_held_as_before(server: Server, peers: list[Peer]) -> None:
    end_together(peers[:8])
    push(server)
    [held] = suspend(actor=SYSTEM, targets=[peers[0].device], reason="stolen")
    before = now(server).generation
    resume(actor=SYSTEM, suspension=held, reason="found again")
    sent = push(server)
    assert (sent.generation, keys_in(sent)) == (before + 1, keys(peers))


def test_one_of_the_held_who_is_shut_at_the_machine_stays_out(server: Server, peers: list[Peer]) -> None:
    end_together(peers[:8])
    push(server)
    before = now(server).generation
    read(server, Node(journal({"what": "suspended", "public_key": peers[0].device.public_key, "by": "dora"})))
    sent = push(server)
    assert (sent.generation, keys_in(sent)) == (before + 1, keys(peers[1:]))


def test_the_key_of_one_of_the_held_dies_as_any_other(server: Server, peers: list[Peer]) -> None:
    """And what is pushed without it is of another generation."""
    end_together(peers[:8])
    before = push(server)
    revoke_devices(actor=SYSTEM, devices=[peers[0].device], reason="stolen")
    sent = push(server)
    assert (sent.generation, keys_in(sent)) == (before.generation + 1, keys(peers[1:]))
    assert [(one.public_key, one.is_decided) for one in sent.removals] == [(peers[0].device.public_key, True)]
    assert [p.removals for p in HeldPush.objects.all()] == [7]


def test_a_new_peer_of_a_held_key_wins_in_or_out(server: Server, peers: list[Peer], staging: Environment) -> None:
    end_together(peers[:8])
    held = push(server).content.peers
    key = peers[0].device.public_key
    make_grant(peers[0].device.person, staging)
    sent = push(server)
    assert keys_in(sent) == keys(peers)
    assert sent.content.peers[key].allowed_ips != held[key].allowed_ips
    assert [p.removals for p in HeldPush.objects.all()] == [7]
    suspend(actor=SYSTEM, targets=[Peer.objects.get(device=peers[0].device, ended_at=None)], reason="stolen")
    assert keys_in(push(server)) == keys(peers[1:])


def test_a_hold_that_is_over_by_itself_leaves_nothing_waiting(server: Server, peers: list[Peer], alice: User) -> None:
    found = suspend(actor=SYSTEM, targets=[peer.device for peer in peers[:6]], reason="audit")
    end_together(peers[6:])
    push(server)
    assert {row.hold.cause.split(" ")[0] for row in HeldPush.objects.all()} == {"suspension.begin", "grant.end"}
    for one in found[:5]:
        resume(actor=alice, suspension=one, reason="fine")
    assert keys_in(push(server)) == keys(peers)
    assert sorted(HeldPush.objects.values_list("removals", flat=True)) == [1, 6]
    resume(actor=alice, suspension=found[5], reason="fine")
    push(server)
    assert HeldPush.objects.get().removals == 6
    approve_hold(actor=alice, hold=HeldPush.objects.get().hold, reason="yes")
    assert keys_in(push(server)) == keys(peers[:6])
    assert condition(server, Type.IN_SYNC) == (True, "InSync")


def test_an_approval_that_comes_while_the_brake_weighs_is_seen(
    server: Server, peers: list[Peer], alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_together(peers[:8])
    push(server)
    weigh = brake._weigh

    def approve_behind(desired: object) -> object:
        monkeypatch.undo()
        found = weigh(desired)  # type: ignore[arg-type]
        approve_hold(actor=alice, hold=Hold.objects.get(), reason="yes")
        return found

    monkeypatch.setattr(brake, "_weigh", approve_behind)
    sent, why = brake.check(desired_state(server.pk))
    assert (why, keys_in(sent)) == ("", keys(peers[8:]))


def test_another_machine_gets_nobody_who_ended(server: Server, peers: list[Peer]) -> None:
    end_together(peers[:8])
    assert keys_in(push(server)) == keys(peers)
    status.forget_machine(server.pk, is_another=True)
    assert keys_in(push(server)) == keys(peers[8:])
    assert not HeldPush.objects.exists()
