"""The steps of a person's access on two servers, judged by packets; a bystander loses none of hers."""

import time
from collections.abc import Iterator

import pytest
from django.core.exceptions import ValidationError

from audit.services import SYSTEM
from fleet.models import Environment, User
from fleet.services import disable_user, enable_user
from peers.due import settle_due
from peers.granting import end_grants, grant_access
from peers.leaving import offboard
from peers.models import Grant, Membership, Peer, Person, Receipt, Revocation, Suspension
from peers.suspending import resume, suspend
from peers.teams import add_team, join_team, leave_team
from tests.build import make_device, make_grant, make_person
from tests.fleet_in_lab import register, tunnel_file
from tests.lab.lab import Lab
from tests.nodes.lab.scene import Scene, Seat, contractor, scene

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

WHY = "ticket 4711"


@pytest.fixture
def fleet(lab: Lab, staging: Environment, production: Environment) -> Iterator[Scene]:
    """One server in staging, one in production."""
    with scene(lab, [staging, production]) as found:
        yield found


@pytest.fixture
def ben(lab: Lab, fleet: Scene, staging: Environment, production: Environment) -> Iterator[Seat]:
    """The bystander: whatever a test does, he loses no packet on either server, and shakes hands no second time."""
    seat = fleet.join(contractor(staging, production, name="Ben"), lab.add_clients(1)[0])
    began, handshakes = time.monotonic(), fleet.handshakes(seat)
    yield seat
    assert seat.lost(began, time.monotonic()) == [0, 0]
    assert fleet.handshakes(seat) == handshakes


@pytest.fixture
def carol(lab: Lab, fleet: Scene, ben: Seat, staging: Environment, production: Environment) -> Seat:
    return fleet.join(contractor(staging, production), lab.add_clients(1)[0])


def shut_out(fleet: Scene, seat: Seat) -> list[bool]:
    """After a push and a new handshake where there may be one: for each server, whether the peer left its kernel, and
    no packet passes, while one does wherever it is held."""
    fleet.console.push()
    gone = [not held for held in fleet.is_in_kernel(seat.pair.public_key)]
    passes = seat.is_shut_out(time.monotonic())
    assert [shut for shut, left in zip(passes, gone, strict=True) if left] == [True] * sum(gone)
    fleet.reconnect(seat)
    for stream, left in zip(seat.streams, gone, strict=True):
        if not left:
            stream.wait_for_reply(10)
    assert seat.is_shut_out(time.monotonic()) == gone
    return gone


def let_in(fleet: Scene, seat: Seat) -> None:
    """By the files that it has."""
    assert shut_out(fleet, seat) == [False, False]


def test_who_is_suspended_is_shut_out_and_comes_back_by_the_same_file(fleet: Scene, carol: Seat) -> None:
    """A person, then one device, then one peer; and two of these at once hold until both are over. One of a peer holds
    also where access ended meanwhile and came back."""
    peer = Peer.objects.get(device=carol.device, server=fleet.rows[1])
    by_person = suspend(actor=SYSTEM, targets=[carol.person], reason=WHY)[0]
    assert shut_out(fleet, carol) == [True, True]
    assert set(Peer.objects.filter(device=carol.device, status__shut_at=None)) == set()
    suspend(actor=SYSTEM, targets=[carol.device], reason=WHY)
    resume(actor=SYSTEM, suspension=by_person, reason=WHY)
    assert shut_out(fleet, carol) == [True, True]
    suspend(actor=SYSTEM, targets=[peer], reason=WHY)
    resume(actor=SYSTEM, suspension=Suspension.objects.get(device=carol.device), reason=WHY)
    assert shut_out(fleet, carol) == [False, True]
    resume(actor=SYSTEM, suspension=Suspension.objects.get(peer=peer), reason=WHY)
    let_in(fleet, carol)
    assert not Peer.objects.exclude(status__shut_at=None).exists()
    suspend(actor=SYSTEM, targets=[peer], reason=WHY)
    give_anew(fleet, carol, number=1)
    assert shut_out(fleet, carol) == [False, True]
    resume(actor=SYSTEM, suspension=Suspension.objects.get(ended_at=None), reason=WHY)
    let_in(fleet, carol)


def give_anew(fleet: Scene, seat: Seat, number: int) -> None:
    """Her access to one server ends and is granted again, and she has the new tunnel file."""
    row = fleet.rows[number]
    end_grants(
        actor=SYSTEM, grants=list(Grant.objects.filter(environment=row.environment, person=seat.person)), reason=WHY
    )
    make_grant(seat.person, row.environment)
    seat.files[number] = tunnel_file(seat.device, row, seat.pair)


def test_who_may_not_sign_in_any_more_has_no_tunnel_until_resumed(fleet: Scene, carol: Seat, charlie: User) -> None:
    """D3, B9: the user is disabled, the Console's own sweep shuts the tunnels."""
    Person.objects.filter(pk=carol.person.pk).update(user=charlie)
    disable_user(actor=SYSTEM, user=charlie, reason=WHY)
    settle_due()
    assert shut_out(fleet, carol) == [True, True]
    enable_user(actor=SYSTEM, user=charlie, reason=WHY)
    settle_due()
    assert shut_out(fleet, carol) == [True, True]
    resume(actor=SYSTEM, suspension=Suspension.objects.get(), reason=WHY)
    let_in(fleet, carol)


def test_who_leaves_a_team_loses_what_they_had_by_it_alone(
    lab: Lab, fleet: Scene, ben: Seat, staging: Environment, production: Environment
) -> None:
    """D3: the group is removed; what a grant of her own gives stays."""
    team, erin = add_team(actor=SYSTEM, name="web"), make_person("Erin")
    for environment in (staging, production):
        grant_access(actor=SYSTEM, team=team, environment=environment, reason=WHY)
    make_grant(erin, staging)
    join_team(actor=SYSTEM, team=team, people=[erin], reason=WHY)
    seat = fleet.join(erin, lab.add_clients(1)[0])
    leave_team(actor=SYSTEM, memberships=list(Membership.objects.all()), reason=WHY)
    assert shut_out(fleet, seat) == [False, True]
    old = Peer.objects.get(device=seat.device, server=fleet.rows[1])
    assert (old.end, old.gone_at is not None) == (Peer.End.WITHDRAWN, True)
    join_team(actor=SYSTEM, team=team, people=[erin], reason=WHY)
    fleet.console.push()
    new = Peer.objects.get(device=seat.device, server=fleet.rows[1], ended_at=None)
    assert new.ipv4_id != old.ipv4_id  # it rests
    fleet.disconnect(seat)
    fleet.connect(seat)


def test_the_end_of_every_grant_to_an_environment_leaves_the_other_one(fleet: Scene, carol: Seat) -> None:
    """D3: a network is given up."""
    environment = fleet.rows[0].environment
    mine = Grant.objects.filter(environment=environment, person=carol.person)
    end_grants(actor=SYSTEM, grants=list(mine), reason="the project is over")
    assert shut_out(fleet, carol) == [True, False]


def test_one_act_ends_everything_of_two_people_with_one_revocation(
    lab: Lab, fleet: Scene, carol: Seat, staging: Environment
) -> None:
    """D3, D9: receipts from every server for each key, and nothing that is tried afterwards lets one in again."""
    team, erin = add_team(actor=SYSTEM, name="web"), make_person("Erin")
    grant_access(actor=SYSTEM, team=team, environment=staging, reason=WHY)
    membership = join_team(actor=SYSTEM, team=team, people=[erin], reason=WHY)[0]
    hers, _ = register(erin)
    fleet.console.push()
    held = suspend(actor=SYSTEM, targets=[carol.device], reason=WHY)[0]
    row = offboard(actor=SYSTEM, people=[carol.person, erin], reason="left")
    assert shut_out(fleet, carol) == [True, True]
    assert Revocation.objects.get() == row
    assert Receipt.objects.filter(revocation=row).exclude(confirmed_at=None).count() == 3
    assert fleet.is_in_kernel(hers.public_key) == [False, False]
    for again in (
        lambda: resume(actor=SYSTEM, suspension=held, reason=WHY),
        lambda: grant_access(actor=SYSTEM, person=carol.person, environment=staging, reason=WHY),
        lambda: join_team(actor=SYSTEM, team=team, people=[erin], reason=WHY),
        lambda: leave_team(actor=SYSTEM, memberships=[membership], reason=WHY),
        lambda: make_device(make_person("Carol"), public_key=carol.pair.public_key),
        lambda: offboard(actor=SYSTEM, people=[erin], reason=WHY),
    ):
        with pytest.raises(ValidationError):
            again()
    settle_due()
    assert shut_out(fleet, carol) == [True, True]
