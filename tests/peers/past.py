"""A world with a clock of its own, in which acts happen one after another and each moment is written down."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from django.db import transaction
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server
from fleet.refusal import REFUSED
from fleet.scope import Scope
from peers.due import begin_grants, settle_due
from peers.entitlement import merge_terms
from peers.granting import end_grants, grant_access
from peers.history import access_at
from peers.history_rows import State
from peers.leaving import offboard
from peers.models import Device, Grant, Membership, Peer, Person, Suspension, Team
from peers.moving import let_moved_in, move_grant
from peers.revocation import revoke_devices
from peers.rights import rights_of
from peers.suspending import kept_out, resume, suspend
from peers.teams import add_team, join_team, leave_team
from peers.windows import is_within
from tests.build import make_device, make_person, make_server, new_public_key

EVERYTHING = Scope(is_admin=True, sees=None, operates=None)
WEDNESDAY = dt.datetime(2026, 3, 4, 5, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
NETWORKS: tuple[list[str], ...] = ([], ["10.0.0.0/8"], ["192.0.2.0/24", "fd00::/8"])
HOURS = ("", "", "mon-fri 08:00-18:00")
ACTS: dict[str, Callable[["World", int, int], object]] = {}
Moment = dict[tuple[str, str, str], Any]


@contextmanager
def clock_at(start: dt.datetime) -> Iterator[Callable[[dt.datetime], None]]:
    """What the Console takes for now, the defaults of its columns too. It stands still until it is set."""
    current = [start]

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return current[0].astimezone(tz)

    def turn(to: dt.datetime) -> None:
        current[0] = to

    with mock.patch("django.utils.timezone.datetime", Clock):
        yield turn


@dataclass
class World:
    staging: Environment
    production: Environment
    turn: Callable[[dt.datetime], None]
    servers: list[Server] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    teams: list[Team] = field(default_factory=list)

    def __post_init__(self) -> None:
        places = (self.staging, self.staging, self.production)
        self.servers = [make_server(place) for place in places]
        self.people = [make_person(name) for name in ("Ann", "Ben")]
        self.teams = [add_team(actor=SYSTEM, name=name) for name in ("blue", "red")]
        make_device(self.people[0])

    def do(self, name: str, one: int, other: int) -> None:
        """Refusals are part of life: nothing happens then."""
        try:
            with transaction.atomic():
                ACTS[name](self, one, other)
        except REFUSED:
            pass


def act_of(function: Callable[[World, int, int], object]) -> Callable[[World, int, int], object]:
    ACTS[function.__name__] = function
    return function


def pick(rows: Any, number: int) -> Any:
    found = list(rows)
    return found[number % len(found)] if found else None


@act_of
def give(world: World, one: int, other: int) -> None:
    holder: dict[str, Any] = {"person": pick(world.people, one)} if one % 3 else {"team": pick(world.teams, one)}
    place: dict[str, Any] = (
        {"server": pick(world.servers, other)} if other % 2 else {"environment": pick(_environments(world), other // 2)}
    )
    until = timezone.now() + HOUR * (other + 1) * 2 if one % 2 else None
    begins_at = timezone.now() + HOUR * 3 if one == 7 else None
    terms: dict[str, Any] = {"networks": NETWORKS[other % 3], "hours": HOURS[(one + other) % 3]}
    grant_access(actor=SYSTEM, reason="work", until=until, begins_at=begins_at, **holder, **place, **terms)


def _environments(world: World) -> list[Environment]:
    return [world.staging, world.production]


@act_of
def end(world: World, one: int, other: int) -> None:
    if grant := pick(Grant.objects.filter(ended_at=None).order_by("pk"), one):
        end_grants(actor=SYSTEM, grants=[grant], reason="over")


@act_of
def move(world: World, one: int, other: int) -> None:
    if grant := pick(Grant.objects.filter(ended_at=None).exclude(server=None).order_by("pk"), one):
        move_grant(actor=SYSTEM, grant=grant, server=pick(world.servers, other), reason="move")


@act_of
def join(world: World, one: int, other: int) -> None:
    until = timezone.now() + HOUR * 4 if other % 2 else None
    join_team(actor=SYSTEM, team=pick(world.teams, one), people=[pick(world.people, other)], until=until)


@act_of
def leave(world: World, one: int, other: int) -> None:
    if membership := pick(Membership.objects.filter(ended_at=None).order_by("pk"), one):
        leave_team(actor=SYSTEM, memberships=[membership], reason="left")


@act_of
def register(world: World, one: int, other: int) -> None:
    make_device(Person.objects.get(pk=pick(world.people, one).pk), f"device {one}", new_public_key())


@act_of
def revoke(world: World, one: int, other: int) -> None:
    if device := pick(Device.objects.filter(revoked_at=None).order_by("pk"), one):
        revoke_devices(actor=SYSTEM, devices=[device], reason="lost")


@act_of
def shut_out(world: World, one: int, other: int) -> None:
    kinds = (Person.objects.all(), Device.objects.all(), Peer.objects.filter(ended_at=None).order_by("issued_at"))
    if target := pick(kinds[one % 3].order_by("pk"), other):
        suspend(actor=SYSTEM, targets=[target], reason="lost")


@act_of
def let_in(world: World, one: int, other: int) -> None:
    if suspension := pick(Suspension.objects.filter(ended_at=None).order_by("pk"), one):
        resume(actor=SYSTEM, suspension=suspension, reason="found")


@act_of
def go(world: World, one: int, other: int) -> None:
    offboard(actor=SYSTEM, people=[Person.objects.get(pk=pick(world.people, one).pk)], reason="gone")


@act_of
def build(world: World, one: int, other: int) -> None:
    make_server(pick(_environments(world), one))


@act_of
def sweep(world: World, one: int, other: int) -> None:
    settle_due()


@act_of
def see_gone(world: World, one: int, other: int) -> None:
    """As `nodes/status.py` writes what a server answers."""
    ended = Peer.objects.filter(server=pick(world.servers, one), gone_at=None).exclude(ended_at=None)
    ended.update(gone_at=timezone.now())
    let_moved_in()


def seen_now() -> Moment:
    """Who has what by the columns of the present: none of them is an interval looked back at."""
    begin_grants()
    now = timezone.now()
    found: Moment = {}
    shut = {pk for server in Server.objects.all() for pk in kept_out(server.pk)}
    people = {person.pk: person for person in Person.objects.filter(left_at=None)}
    rights = rights_of(people, now)
    peers = Peer.objects.filter(gone_at=None).select_related("device__person", "server", "ipv4").order_by("issued_at")
    for peer in peers:
        spot = (peer.device.person.name, peer.device.name + str(peer.device.pk), peer.server.name)
        networks = rights.get(peer.device.person_id, {}).get(peer.server_id) if peer.ended_at is None else None
        carried = merge_terms(networks, now).networks if networks else None
        state = _state(peer, now, peer.pk in shut)
        found[spot] = (state, str(peer.ipv4), None if state == State.PENDING else carried)
    for pk, places in rights.items():
        for server in Server.objects.filter(pk__in=places):
            live = list(people[pk].devices.filter(revoked_at=None))
            for device in live:
                found.setdefault((people[pk].name, device.name + str(device.pk), server.name), State.NO_PEER)
            if not live:
                found[people[pk].name, "", server.name] = State.NO_DEVICE
    return found


def _state(peer: Peer, now: dt.datetime, is_shut: bool) -> State:
    if peer.ended_at is not None or (peer.expires_at is not None and peer.expires_at <= now):
        return State.PENDING
    if peer.waits_for_id is not None:
        return State.WAITING
    if is_shut:
        return State.SUSPENDED
    return State.HAS if is_within(peer.windows, now) else State.OUTSIDE


def said_of(at: dt.datetime) -> Moment:
    """The same, of a time that is over, as the Console answers."""
    found: Moment = {}
    for row in access_at(at, EVERYTHING):
        spot = (row.person.name, row.device.name + str(row.device.pk) if row.device else "", row.place.server)
        if row.peer is None:
            found[spot] = row.state
        else:
            networks = None if row.state == State.PENDING else tuple(row.networks)
            found[spot] = (row.state, str(row.peer.ipv4), networks)
    return found
