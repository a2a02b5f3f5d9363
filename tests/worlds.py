"""A world of its own for each act of tests/acts.py: one of everything in an environment."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connection

from audit.services import SYSTEM
from fleet import named_pools, tokens
from fleet import services as fleet
from fleet.models import AddressRange, ApiToken, Environment, Pool, Role, Server, User
from nodes.models import HeldPush, Hold, ReviewItem
from peers import granting, moving, reserving, routing, static, suspending, teams
from peers.models import (
    AccessRequest,
    Device,
    Grant,
    Membership,
    Peer,
    Person,
    RoutedNetwork,
    StaticAddress,
    Suspension,
    Team,
)
from tests.build import make_device, make_grant, make_person, make_request, make_review, make_server

WHY = "ticket 4711"


@dataclass(frozen=True)
class World:
    """One environment with a server, a person on it, a hold, a review item and what belongs to an administrator."""

    environment: Environment
    server: Server
    person: Person
    device: Device
    grant: Grant
    request: AccessRequest
    hold: Hold
    review: ReviewItem
    user: User
    leaver: User
    role: Role
    token: ApiToken
    team: Team
    empty: Team
    membership: Membership
    guest: Person
    moving: Grant
    other: Server
    suspension: Suspension
    waiting: Peer
    pool: Pool
    reservation: AddressRange
    static: StaticAddress
    route: RoutedNetwork


Worlds = dict[str, World]  # by the name of its environment


def make_world(environment: Environment) -> World:
    server = make_server(environment)
    person = make_person(f"Carol of {environment}")
    grant = make_grant(person, environment)
    device = make_device(person)
    Environment.objects.filter(pk=environment.pk).update(needs_second=True)
    request = make_request(person, environment)
    hold = Hold.objects.create(act=uuid.uuid4(), cause=f"a cause in {environment}")
    HeldPush.objects.create(hold=hold, server=server, removals=9, held=50)
    review = make_review(Peer.objects.get(device=device, server=server))
    user = fleet.add_user(actor=SYSTEM, username=f"u-{environment}", email="", password=None, is_superuser=False)
    leaver = fleet.add_user(actor=SYSTEM, username=f"l-{environment}", email="", password=None, is_superuser=False)
    fleet.disable_user(actor=SYSTEM, user=leaver, reason=WHY)
    role = fleet.give_role(actor=SYSTEM, user=user, name=Role.Name.AUDITOR, environment=environment)
    token, _ = tokens.add_token(actor=SYSTEM, user=user, name=f"t-{environment}", scope=ApiToken.Scope.READ)
    shared = _make_team(environment)
    held = _make_held(environment)
    own = environment, server, person, device, grant, request, hold, review, user, leaver, role, token
    return World(*own, *shared, *held, *_addresses(server, make_device(person, "router")))


def _addresses(server: Server, router: Device) -> tuple[Pool, AddressRange, StaticAddress, RoutedNetwork]:
    """A named pool, a reservation, and what a second device of the person has for itself."""
    asked: dict[str, Any] = {"actor": SYSTEM, "server": server, "reason": WHY}
    return (
        named_pools.add_pool(actor=SYSTEM, server=server, name="contractors", ipv4=f"{server.pool4[1024]}/24"),
        reserving.reserve_addresses(addresses=f"{server.pool4[60]}-{server.pool4[69]}", **asked),
        static.assign_address(device=router, ipv4=str(server.pool4[99]), **asked),
        routing.route_network(device=router, network="192.168.7.0/24", **asked),
    )


def _make_team(environment: Environment) -> tuple[Team, Team, Membership, Person]:
    """One with access to the environment, one without anything; a member of the first, and somebody who may join."""
    empty = teams.add_team(actor=SYSTEM, name=f"empty-{environment}")
    team = teams.add_team(actor=SYSTEM, name=f"team-{environment}")
    granting.grant_access(actor=SYSTEM, team=team, environment=environment, reason=WHY)
    (membership,) = teams.join_team(actor=SYSTEM, team=team, people=[make_person(f"Mia of {environment}")])
    make_device(membership.person)
    return team, empty, membership, make_person(f"Gus of {environment}")


def _make_held(environment: Environment) -> tuple[Grant, Server, Suspension, Peer]:
    """A grant to one server and another server, a suspension, and a peer that waits for the server it moved from."""
    old, new = make_server(environment), make_server(environment)
    grants = []
    for name in ("Max", "Nia"):
        person = make_person(f"{name} of {environment}")
        grants.append(granting.grant_access(actor=SYSTEM, person=person, server=old, reason=WHY))
        make_device(person)
    (held,) = suspending.suspend(actor=SYSTEM, targets=[grants[1].person or make_person()], reason=WHY)
    moving.move_grant(actor=SYSTEM, grant=grants[1], server=new, reason=WHY)
    waiting = Peer.objects.get(server=new, device__person=grants[1].person, ended_at=None)
    return grants[0], new, held, waiting


def everything() -> dict[str, list[dict[str, Any]]]:
    """All rows of our own tables."""
    models = [model for app in ("audit", "fleet", "peers", "nodes") for model in apps.get_app_config(app).get_models()]
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


def fill_the_ledger() -> None:
    """The database takes no Event any more."""
    fill_up("audit_event")


def fill_up(table: str) -> None:
    """From now on, until the transaction ends, the database takes no row of this table; as where its disk is full."""
    statement = f"SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE {table} ADD CONSTRAINT full_up CHECK (false) NOT VALID"
    if connection.vendor == "sqlite":
        statement = f"CREATE TRIGGER full_up BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
    with connection.cursor() as cursor:
        cursor.execute(statement)
