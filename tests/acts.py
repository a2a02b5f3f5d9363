"""Every act that a person can ask for, each on a world of its own, for tests that hold for all of them."""

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connection
from django.utils import timezone

from audit.services import SYSTEM, Actor
from fleet import named_pools, rotation, tokens
from fleet import services as fleet
from fleet.keyrings import PRESHARED_KEYS
from fleet.models import AddressRange, ApiToken, Environment, Pool, Role, Server, User
from nodes.models import HeldPush, Hold, ReviewItem
from nodes.reviews import decide_review
from nodes.services import approve_hold, request_enrolment
from peers import granting, linking, requests, reserving, revocation, routing, static
from peers import services as people
from peers.models import AccessRequest, Device, Grant, Peer, Person, RoutedNetwork, StaticAddress
from tests.build import make_device, make_grant, make_person, make_request, make_review, make_server, new_public_key

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPHsUrqbpUg/9ZfP1jI0tuLQCkmVpXySYcqc3ROLWSe"
WHY = "ticket 4711"


@dataclass(frozen=True)
class World:
    """One environment with a server, a person on it, a hold, a review item, a request that two have to approve, and
    what belongs to an administrator."""

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
    pool: Pool
    reservation: AddressRange
    static: StaticAddress
    route: RoutedNetwork


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
    own = _addresses(server, make_device(person, "router"))
    return World(environment, server, person, device, grant, request, hold, review, user, leaver, role, token, *own)


def _addresses(server: Server, router: Device) -> tuple[Pool, AddressRange, StaticAddress, RoutedNetwork]:
    """A named pool, a reservation, and what a second device of the person has for itself."""
    asked: dict[str, Any] = {"actor": SYSTEM, "server": server, "reason": WHY}
    return (
        named_pools.add_pool(actor=SYSTEM, server=server, name="contractors", ipv4=f"{server.pool4[1024]}/24"),
        reserving.reserve_addresses(addresses=f"{server.pool4[60]}-{server.pool4[69]}", **asked),
        static.assign_address(device=router, ipv4=str(server.pool4[99]), **asked),
        routing.route_network(device=router, network="192.168.7.0/24", **asked),
    )


@dataclass(frozen=True)
class Asked:
    """One act: how it is asked for, what the ledger then says, and who may ask."""

    verb: str
    ask: Callable[[World, Actor], object]
    target: Callable[[World], str]
    reason: str = ""
    # place: operators of the environment; helpdesk: these and its helpdesk; operator: of any; admin: superusers
    who: str = "place"

    def __str__(self) -> str:
        return self.ask.__name__


def _in_a_month() -> dt.datetime:
    return timezone.now() + dt.timedelta(days=30)


def _server(world: World, actor: Actor) -> object:
    pools = {"ipv4_pool": "10.200.0.0/16", "ipv6_pool": "fd00:200::/64"}
    host = "198.51.100.200"
    return fleet.add_server(
        actor=actor, environment=world.environment, name="new", host=host, endpoint_host=host, **pools
    )


def _asked(verb: str, target: Callable[[World], str], service: Callable[..., object], **rest: Any) -> Asked:
    """`rest`: reason and who; all else are arguments, called with the world where they are functions."""
    reason, who = rest.pop("says", ""), rest.pop("who", "place")

    def ask(world: World, actor: Actor) -> object:
        return service(actor=actor, **{name: v(world) if callable(v) else v for name, v in rest.items()})

    ask.__name__ = service.__name__
    return Asked(verb, ask, target, reason, who)


ACTS = [
    _asked("environment.add", lambda w: "lab", fleet.add_environment, name="lab", who="admin"),
    _asked(
        "environment.change",
        lambda w: w.environment.name,
        fleet.change_environment,
        environment=lambda w: w.environment,
        description="other",
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "bastion.add", lambda w: "gate", fleet.add_bastion, name="gate", host="gate", host_key=HOST_KEY, who="admin"
    ),
    Asked("server.add", _server, lambda w: "new"),
    _asked(
        "server.change",
        lambda w: w.server.name,
        fleet.change_server,
        server=lambda w: w.server,
        dns=lambda w: ["10.0.0.53"],
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "user.add",
        lambda w: "dave",
        fleet.add_user,
        username="dave",
        email="dave@example.com",
        password="a long enough word",
        is_superuser=False,
        who="admin",
    ),
    _asked(
        "user.disable",
        lambda w: str(w.user),
        fleet.disable_user,
        user=lambda w: w.user,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "user.enable",
        lambda w: str(w.leaver),
        fleet.enable_user,
        user=lambda w: w.leaver,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "role.give",
        lambda w: f"{w.user} operator of {w.environment}",
        fleet.give_role,
        user=lambda w: w.user,
        name="operator",
        environment=lambda w: w.environment,
        who="admin",
    ),
    _asked("role.end", lambda w: str(w.role), fleet.end_role, role=lambda w: w.role, who="admin"),
    _asked(
        "token.add", lambda w: "robot", tokens.add_token, user=lambda w: w.user, name="robot", scope="read", who="admin"
    ),
    _asked(
        "token.revoke",
        lambda w: w.token.name,
        tokens.revoke_token,
        token=lambda w: w.token,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "pool.add",
        lambda w: f"temps on {w.server}",
        named_pools.add_pool,
        server=lambda w: w.server,
        name="temps",
        ipv4=lambda w: f"{w.server.pool4[2048]}/24",
    ),
    _asked("pool.end", lambda w: str(w.pool), named_pools.end_pool, pool=lambda w: w.pool, reason=WHY, says=WHY),
    _asked(
        "address.reserve",
        lambda w: f"{w.server.pool4[77]}/32 on {w.server}",
        reserving.reserve_addresses,
        server=lambda w: w.server,
        addresses=lambda w: str(w.server.pool4[77]),
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "address.release",
        lambda w: f"{w.reservation} on {w.server}",
        reserving.release_addresses,
        reservation=lambda w: w.reservation,
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "static_address.add",
        lambda w: f"static address of {w.device} on {w.server}",
        static.assign_address,
        device=lambda w: w.device,
        server=lambda w: w.server,
        ipv4=lambda w: str(w.server.pool4[78]),
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "static_address.end",
        lambda w: str(w.static),
        static.end_static_address,
        static=lambda w: w.static,
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "routed_network.add",
        lambda w: f"192.168.8.0/24 behind {w.device} on {w.server}",
        routing.route_network,
        device=lambda w: w.device,
        server=lambda w: w.server,
        network="192.168.8.0/24",
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "routed_network.end", lambda w: str(w.route), routing.end_route, route=lambda w: w.route, reason=WHY, says=WHY
    ),
    _asked("person.add", lambda w: "Erin", people.add_person, name="Erin", who="operator"),
    _asked(
        "person.change",
        lambda w: "Caroline",
        people.change_person,
        person=lambda w: w.person,
        name="Caroline",
        reason=WHY,
        says=WHY,
        who="operator",
    ),
    _asked(
        "device.register",
        lambda w: f"{w.person.name}'s phone",
        people.register_device,
        person=lambda w: w.person,
        name="phone",
        public_key=lambda w: new_public_key(),
        who="operator",
    ),
    _asked(
        "grant.add",
        lambda w: f"{w.person.name} to {w.server}",
        granting.grant_access,
        person=lambda w: w.person,
        server=lambda w: w.server,
        reason=WHY,
        until=lambda w: _in_a_month(),
        says=WHY,
    ),
    _asked(
        "grant.end",
        lambda w: str(w.grant),
        granting.end_grants,
        grants=lambda w: [w.grant],
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "revocation.add",
        lambda w: str(w.device),
        revocation.revoke_devices,
        devices=lambda w: [w.device],
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "revocation.add",
        lambda w: f"everything of {w.person}",
        revocation.revoke_person,
        person=lambda w: w.person,
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "revocation.add",
        lambda w: str(w.device),
        revocation.revoke_key,
        public_key=lambda w: w.device.public_key,
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "request.add",
        lambda w: f"{w.person.name} to {w.server}",
        requests.request_access,
        person=lambda w: w.person,
        server=lambda w: w.server,
        duration=dt.timedelta(days=3),
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    *(
        _asked(verb, lambda w: str(w.request), service, request=lambda w: w.request, reason=WHY, says=WHY)
        for verb, service in (
            ("request.approve", requests.approve_request),
            ("request.deny", requests.deny_request),
            ("request.cancel", requests.cancel_request),
        )
    ),
    _asked(
        "person.link",
        lambda w: w.person.name,
        linking.link_user,
        person=lambda w: w.person,
        user=lambda w: w.user,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "server.enrol",
        lambda w: w.server.name,
        request_enrolment,
        server=lambda w: w.server,
        host_key=HOST_KEY,
        user="root",
        password="a bootstrap password",
    ),
    _asked("push.approve", lambda w: w.hold.cause, approve_hold, hold=lambda w: w.hold, reason=WHY, says=WHY),
    _asked(
        "keyring.rotate",
        lambda w: "keyring nodes",
        rotation.retire_keys,
        keyring="nodes",
        old=lambda w: ("k1",),
        new="k2",
        who="admin",
    ),
    _asked(
        "keyring.clear",
        lambda w: str(w.device.peers.get()),
        rotation.clear_broken,
        row=lambda w: rotation.Broken(PRESHARED_KEYS, w.device.peers.get().pk, w.device.peers.get().preshared_key),
        who="admin",
    ),
    _asked(
        "review.decide",
        lambda w: str(w.review),
        decide_review,
        item=lambda w: w.review,
        decision="resume",
        reason=WHY,
        says=WHY,
    ),
]


def everything() -> dict[str, list[dict[str, Any]]]:
    """All rows of our own tables."""
    models = [model for app in ("audit", "fleet", "peers", "nodes") for model in apps.get_app_config(app).get_models()]
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


def fill_the_ledger() -> None:
    """From now on, until the transaction ends, the database takes no Event; as where its disk is full."""
    statement = "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE audit_event ADD CONSTRAINT full_up CHECK (false) NOT VALID"
    if connection.vendor == "sqlite":
        statement = "CREATE TRIGGER full_up BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'full'); END"
    with connection.cursor() as cursor:
        cursor.execute(statement)
