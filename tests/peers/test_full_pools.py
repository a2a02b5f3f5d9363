"""Where a pool is full: what takes access away goes through, what gives is refused whole, and who waits is not lost."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server
from fleet.pools import PoolExhausted
from fleet.services import change_environment, change_server
from peers.due import expire_peers, settle_due, settle_placements, settle_strays
from peers.granting import end_grants, grant_access
from peers.leaving import offboard
from peers.models import Device, Grant, Membership, Peer, Team
from peers.moving import move_grant
from peers.prolonging import prolong_grants, prolong_memberships
from peers.revocation import revoke_devices
from peers.services import register_device
from peers.static import assign_address
from peers.suspending import suspend
from peers.teams import add_team, join_team, leave_team
from peers.waiting import where_waiting
from tests.build import make_device, make_person, make_server, new_public_key
from tests.doors import rows

pytestmark = pytest.mark.django_db
WHY = "ticket 4711"
SOON = dt.timedelta(days=3)


@pytest.fixture
def full(staging: Environment) -> Server:
    """Room for two peers."""
    return make_server(staging, "vpn-full", ipv4_pool="10.9.0.0/30", ipv6_pool="fd09::/126")


@pytest.fixture
def wide(staging: Environment) -> Server:
    return make_server(staging, "vpn-wide")


@pytest.fixture
def ann(full: Server, wide: Server, staging: Environment) -> Device:
    """On both servers, by a team: the last address is hers."""
    settle_placements()
    team = add_team(actor=SYSTEM, name="network")
    grant_access(actor=SYSTEM, team=team, environment=staging, reason=WHY, hours="mon-fri 08:00-18:00")
    person = make_person("Ann")
    join_team(actor=SYSTEM, team=team, people=[person], until=timezone.now() + SOON)
    return make_device(person)


@pytest.fixture
def ben(ann: Device, staging: Environment) -> Device:
    """Has a right to both servers, and found the one full."""
    device = make_device(make_person("Ben"))
    Grant.objects.create(person=device.person, environment=staging, reason=WHY, begun_at=timezone.now())
    settle_strays()
    return device


def live(device: Device) -> list[str]:
    return sorted(Peer.objects.filter(device=device, ended_at=None).values_list("server__name", flat=True))


def widen(server: Server) -> None:
    change_server(actor=SYSTEM, server=server, ipv4_pool="10.9.0.0/24", ipv6_pool="fd09::/64", reason=WHY)


def test_who_waits_on_one_server_has_the_others_and_is_told_of_once(ann: Device, ben: Device, full: Server) -> None:
    assert (live(ann), live(ben)) == (["vpn-full", "vpn-wide"], ["vpn-wide"])
    assert where_waiting([ann, ben]) == {ben.pk: [full]}
    count = Event.objects.count()
    for _ in range(3):
        assert list(settle_strays()) == [full.pk]
    assert Event.objects.count() == count
    widen(full)
    assert settle_strays() == {}
    assert (live(ben), where_waiting([ann, ben])) == (["vpn-full", "vpn-wide"], {})


def test_another_time_zone_moves_the_hours_of_a_full_server_too(
    ann: Device, ben: Device, full: Server, staging: Environment
) -> None:
    """Who waits for an address there does not hold it up, and neither does who is in it by no right any more."""
    gone = Grant.objects.create(person=ann.person, environment=staging, reason=WHY, begun_at=timezone.now())
    before = Peer.objects.get(device=ann, server=full)
    generation = Server.objects.get(pk=full.pk).generation
    change_environment(actor=SYSTEM, environment=staging, time_zone="Asia/Tokyo", reason=WHY)
    Grant.objects.filter(pk=gone.pk).update(ended_at=timezone.now())
    assert list(settle_placements()) == [full.pk]
    after = Peer.objects.get(device=ann, server=full)
    assert before.windows is not None and after.windows is not None
    assert [begin for begin, _ in after.windows[1:3]] == [begin - 9 * 3600 for begin, _ in before.windows[1:3]]
    assert (after.pk, after.ipv4_id, after.ended_at) == (before.pk, before.ipv4_id, None)
    assert Server.objects.get(pk=full.pk).generation == generation + 1
    assert settle_placements() == {}  # the sweep of strays tells of it from now on
    assert list(settle_due()) == [full.pk]


TAKES: dict[str, Callable[[Device], object]] = {
    "end_grants": lambda ann: end_grants(actor=SYSTEM, grants=list(Grant.objects.exclude(team=None)), reason=WHY),
    "leave_team": lambda ann: leave_team(actor=SYSTEM, memberships=list(Membership.objects.all()), reason=WHY),
    "offboard": lambda ann: offboard(actor=SYSTEM, people=[ann.person], reason=WHY),
    "revoke_devices": lambda ann: revoke_devices(actor=SYSTEM, devices=[ann], reason=WHY),
    "expire_peers": lambda ann: (
        Membership.objects.update(until=timezone.now()),
        Peer.objects.filter(device=ann).update(expires_at=timezone.now()),
        expire_peers(),
    ),
    "settle_strays": lambda ann: (Membership.objects.update(ended_at=timezone.now()), settle_strays()),
    "settle_placements": lambda ann: (
        Membership.objects.update(ended_at=timezone.now()),
        Peer.objects.get(device=ann, server__name="vpn-full").server.placements.update(settled_at=None),
        settle_placements(),
        settle_strays(),
    ),
}


@pytest.mark.parametrize("name", TAKES)
def test_what_takes_access_away_waits_for_no_address(name: str, ann: Device, ben: Device) -> None:
    """D3."""
    TAKES[name](ann)
    assert (live(ann), live(ben)) == ([], ["vpn-wide"])


def test_another_end_or_a_suspension_takes_no_address(ann: Device, ben: Device) -> None:
    """Whoever is given longer, or less, has what they had; who waits goes on waiting."""
    before = list(Peer.objects.order_by("pk").values_list("pk", "ipv4", "preshared_key"))
    later = timezone.now() + 10 * SOON
    prolong_memberships(actor=SYSTEM, memberships=list(Membership.objects.all()), until=later, reason=WHY)
    prolong_grants(actor=SYSTEM, grants=list(Grant.objects.filter(person=ben.person)), until=later, reason=WHY)
    suspend(actor=SYSTEM, targets=[ben.person], reason=WHY)
    assert list(Peer.objects.order_by("pk").values_list("pk", "ipv4", "preshared_key")) == before
    assert set(Peer.objects.values_list("expires_at", "ended_at")) == {(later, None)}


def _second_grant(server: Server) -> object:
    person = make_person("Eve")
    make_device(person)
    before = rows()
    try:
        return grant_access(actor=SYSTEM, person=person, server=server, reason=WHY, until=timezone.now() + SOON)
    finally:
        assert server.name == "vpn-wide" or rows() == before


def _join(server: Server) -> object:
    team, person = add_team(actor=SYSTEM, name=f"of {server}".replace(" ", "-")), make_person("Eve")
    grant_access(actor=SYSTEM, team=team, server=server, reason=WHY)
    make_device(person)
    return join_team(actor=SYSTEM, team=team, people=[person])


def _move(server: Server) -> object:
    person = make_person("Eve")
    grant = grant_access(actor=SYSTEM, person=person, server=make_server(server.environment), reason=WHY)
    make_device(person)
    before = (rows(), set(Peer.objects.filter(ended_at=None).values_list("pk", flat=True)))
    try:
        return move_grant(actor=SYSTEM, grant=grant, server=server, reason=WHY)
    finally:
        now = (rows(), set(Peer.objects.filter(ended_at=None).values_list("pk", flat=True)))
        assert server.name == "vpn-wide" or now == before


@pytest.mark.parametrize("give", [_second_grant, _join, _move])
def test_what_gives_is_refused_whole_where_there_is_no_room(
    give: Callable[[Server], object], ann: Device, full: Server, wide: Server
) -> None:
    """Also a move, which would end the old side: whoever asked sees it, and asks again. Elsewhere it goes through."""
    with pytest.raises(PoolExhausted, match="vpn-full has no free address"):
        give(full)
    assert (live(ann), Team.objects.filter(memberships__person__name="Eve").count()) == (["vpn-full", "vpn-wide"], 0)
    give(wide)
    assert Peer.objects.filter(device__person__name="Eve", server=wide, ended_at=None).count() == 1


def test_a_new_key_takes_over_where_the_old_one_is_and_waits_where_it_waits(ann: Device, ben: Device) -> None:
    """To be rid of an old key needs no room anywhere; a key more does."""
    for device in (ann, ben):
        new = register_device(
            actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device
        )
        assert live(new) == live(device)
    with pytest.raises(PoolExhausted):
        register_device(actor=SYSTEM, person=ann.person, name="phone", public_key=new_public_key())


def test_a_device_s_own_address_needs_no_other_one(ann: Device, ben: Device, full: Server) -> None:
    """Its peer stays; and where another address is asked for that somebody has, nothing ends."""
    before = Peer.objects.get(device=ann, server=full)
    other = Peer.objects.get(device=ben)
    with pytest.raises(Exception, match="This is in the way"):
        assign_address(actor=SYSTEM, device=ben, server=other.server, reason=WHY, ipv4=f"{other.server.pool4[2]}")
    assert live(ben) == ["vpn-wide"]
    assign_address(actor=SYSTEM, device=ann, server=full, reason=WHY, ipv4="10.9.0.2")
    assert Peer.objects.get(device=ann, server=full, ended_at=None).pk == before.pk
