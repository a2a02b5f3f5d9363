"""A grant that moves: dead on the old server before it is alive on the new one, however often it moves."""

import datetime as dt

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from nodes.desired import desired_state
from nodes.reviews import decide_review
from peers.granting import grant_access
from peers.models import Device, Grant, Peer, Suspension
from peers.moving import let_in, let_moved_in, move_grant
from peers.services import register_device
from peers.states import peer_state, with_causes
from peers.suspending import resume, suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_person, make_review, make_server, new_public_key
from tests.doors import rows

pytestmark = pytest.mark.django_db
WHY = "nearer to her"


@pytest.fixture
def places(staging: Environment) -> list[Server]:
    return [make_server(staging, name) for name in ("vpn-a", "vpn-b", "vpn-c")]


@pytest.fixture
def device(places: list[Server]) -> Device:
    """Carol's laptop, by a grant to the first server."""
    person = make_person("Carol")
    grant_access(actor=SYSTEM, person=person, server=places[0], reason="work", hours="mon-sun 00:00-24:00")
    return make_device(person)


def move(server: Server) -> Grant:
    return move_grant(actor=SYSTEM, grant=Grant.objects.get(ended_at=None), server=server, reason=WHY)


def wanted() -> list[str]:
    """The servers on which anybody is wanted."""
    return [server.name for server in Server.objects.all() if desired_state(server.pk).content.peers]


def seen_gone(server: Server) -> None:
    """As the server says once it has taken a push."""
    Peer.objects.filter(server=server, gone_at=None).exclude(ended_at=None).update(gone_at=timezone.now())
    let_moved_in()


def word() -> str:
    return peer_state(with_causes(Peer.objects.all()).get(ended_at=None))


def test_the_new_server_waits_for_the_old_one_s_word(device: Device, places: list[Server]) -> None:
    """D3."""
    moved = move(places[1])
    assert (wanted(), word()) == ([], "waits for vpn-a")
    let_moved_in()
    assert wanted() == []
    seen_gone(places[0])
    assert (wanted(), word()) == (["vpn-b"], "issued")
    old = Grant.objects.exclude(ended_at=None).get()
    assert (moved.moved_from, moved.begins_at, moved.until) == (old, old.ended_at, old.until)
    assert moved.hours == old.hours


def test_a_second_move_waits_for_the_server_where_the_key_still_is(device: Device, places: list[Server]) -> None:
    """D3: the one between never had it, and its word proves nothing."""
    move(places[1])
    move(places[2])
    seen_gone(places[1])
    assert (wanted(), word()) == ([], "waits for vpn-a")
    seen_gone(places[0])
    assert wanted() == ["vpn-c"]


def test_who_moves_back_while_waiting_is_let_in_where_they_were(device: Device, places: list[Server]) -> None:
    move(places[1])
    move(places[0])
    assert (wanted(), word()) == (["vpn-a"], "issued")


def test_who_moves_back_later_waits_for_the_server_that_had_them(device: Device, places: list[Server]) -> None:
    move(places[1])
    seen_gone(places[0])
    move(places[0])
    assert (wanted(), word()) == ([], "waits for vpn-b")
    seen_gone(places[1])
    assert wanted() == ["vpn-a"]


def test_who_had_a_peer_on_the_new_server_before_keeps_it(device: Device, places: list[Server]) -> None:
    grant_access(actor=SYSTEM, person=device.person, server=places[1], reason="also")
    before = Peer.objects.get(server=places[1])
    move_grant(actor=SYSTEM, grant=Grant.objects.get(server=places[0]), server=places[1], reason=WHY)
    assert wanted() == ["vpn-b"]
    assert Peer.objects.get(server=places[1]).pk == before.pk


def test_a_team_s_grant_moves_with_all_its_members(device: Device, places: list[Server]) -> None:
    team, dave = add_team(actor=SYSTEM, name="network"), make_person("Dave")
    make_device(dave)
    join_team(actor=SYSTEM, team=team, people=[dave, make_person("Eve")])
    held = grant_access(actor=SYSTEM, team=team, server=places[0], reason="work")
    moved = move_grant(actor=SYSTEM, grant=held, server=places[1], reason=WHY)
    assert (moved.team, wanted()) == (team, ["vpn-a"])
    seen_gone(places[0])
    assert wanted() == ["vpn-a", "vpn-b"]


def test_what_cannot_move_is_refused_with_the_reason(
    device: Device, places: list[Server], staging: Environment
) -> None:
    grant = Grant.objects.get()
    whole = grant_access(actor=SYSTEM, person=make_person("Dave"), environment=staging, reason="x")
    over = grant_access(
        actor=SYSTEM, person=make_person("Eve"), server=places[0], reason="x", until=timezone.now() + dt.timedelta(1)
    )
    Grant.objects.filter(pk=over.pk).update(until=timezone.now())
    before = rows()
    for one, server, reason, message in (
        (grant, places[0], WHY, "to another one"),
        (whole, places[1], WHY, "Only a grant to one server moves"),
        (grant, places[1], " ", "Say why"),
        (over, places[1], WHY, "ended already"),
    ):
        with pytest.raises(ValidationError, match=message):
            move_grant(actor=SYSTEM, grant=one, server=server, reason=reason)
    assert rows() == before
    other = grant_access(actor=SYSTEM, person=device.person, environment=staging, reason="x")
    with pytest.raises(ValidationError, match="carries access to vpn-a too"):
        move_grant(actor=SYSTEM, grant=grant, server=places[1], reason=WHY)
    Grant.objects.filter(pk=other.pk).update(ended_at=timezone.now())
    assert move_grant(actor=SYSTEM, grant=grant, server=places[1], reason=WHY).server == places[1]


def test_an_operator_moves_inside_what_they_operate(
    device: Device, places: list[Server], bob: User, production: Environment
) -> None:
    """B3."""
    far, before = make_server(production), rows()
    with pytest.raises(PermissionDenied):
        move_grant(actor=bob, grant=Grant.objects.get(), server=far, reason=WHY)
    assert rows() == {**before, "fleet.Server": before["fleet.Server"]}
    move_grant(actor=bob, grant=Grant.objects.get(), server=places[1], reason=WHY)
    assert word() == "waits for vpn-a"


def test_an_operator_lets_in_where_the_old_server_answers_no_more(
    device: Device, places: list[Server], bob: User, production: Environment
) -> None:
    """By a decision with a reason, of somebody who operates both."""
    far = make_server(production, "far")
    move(far)
    peer = Peer.objects.get(server=far)
    before = rows()
    with pytest.raises(PermissionDenied):
        let_in(actor=bob, peer=peer, reason="burnt down")
    with pytest.raises(ValidationError, match="Say why"):
        let_in(actor=SYSTEM, peer=peer, reason="")
    assert rows() == before
    let_in(actor=SYSTEM, peer=peer, reason="burnt down")
    assert (wanted(), word()) == (["far"], "issued")
    with pytest.raises(ValidationError, match="waits for no other server"):
        let_in(actor=SYSTEM, peer=peer, reason="again")


def test_a_new_key_waits_along_with_the_one_that_it_replaces(device: Device, places: list[Server]) -> None:
    """D3: nobody is on the new server while the old key may still pass on the old one."""
    move(places[1])
    new = register_device(actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device)
    assert wanted() == []
    seen_gone(places[0])
    assert set(desired_state(places[1].pk).content.peers) == {device.public_key, new.public_key}


def test_who_lets_a_key_in_lets_in_the_one_that_is_to_replace_it(device: Device, places: list[Server]) -> None:
    move(places[1])
    new = register_device(actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device)
    let_in(actor=SYSTEM, peer=Peer.objects.get(device=device, ended_at=None), reason="vpn-a is gone")
    assert set(desired_state(places[1].pk).content.peers) == {device.public_key, new.public_key}


def test_who_was_suspended_on_the_old_server_is_so_on_the_new_one(device: Device, places: list[Server]) -> None:
    """Others of the team, and who had a peer there before, come in."""
    phone = make_device(device.person, "phone")
    (held,) = suspend(actor=SYSTEM, targets=[Peer.objects.get(device=device)], reason="malware")
    move(places[1])
    seen_gone(places[0])
    assert list(desired_state(places[1].pk).content.peers) == [phone.public_key]
    again = Suspension.objects.get(peer__server=places[1])
    assert (again.reason, again.suspended_by, again.is_idle) == ("malware", held.suspended_by, False)
    resume(actor=SYSTEM, suspension=again, reason="cleaned")
    assert set(desired_state(places[1].pk).content.peers) == {phone.public_key, device.public_key}


def test_who_was_shut_at_the_machine_moves_only_once_somebody_decided(staging: Environment) -> None:
    old, new = make_server(staging), make_server(staging)
    person = make_person("Carol")
    grant = grant_access(actor=SYSTEM, person=person, server=old, reason="work")
    make_device(person)
    item = make_review(Peer.objects.get())
    with pytest.raises(ValidationError, match="decide its review item first"):
        move_grant(actor=SYSTEM, grant=grant, server=new, reason="nearer")
    assert Peer.objects.get().ended_at is None
    decide_review(actor=SYSTEM, item=item, decision="resume", reason="fine")
    move_grant(actor=SYSTEM, grant=grant, server=new, reason="nearer")
    assert Peer.objects.filter(server=new, ended_at=None).count() == 1
