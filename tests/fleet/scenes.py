"""A Console with a row of every kind, for the tests that open all of its pages."""

import uuid
from typing import Any

from audit.services import SYSTEM
from fleet.models import ApiToken, Bastion, Environment, Role, Server, User
from fleet.named_pools import add_pool
from fleet.services import add_bastion, give_role
from fleet.tokens import add_token
from nodes.models import Enrolment, HeldPush, Hold, PlanRequest, Run
from peers.models import Device, Peer, Team
from peers.reserving import reserve_addresses
from peers.revocation import revoke_devices
from peers.routing import route_network
from peers.static import assign_address
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_person, make_request, make_review, make_server

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Z"


def furnish(environment: Environment, user: User, count: int = 1) -> None:
    """`count` rows of every kind that the Console shows, in one environment."""
    for _ in range(count):
        server, person = make_server(environment), make_person()
        make_grant(person, environment)
        make_request(person, environment)
        make_device(person)
        _address_all(server, make_device(person, "router"))
        team = add_team(actor=SYSTEM, name=f"team-{Team.objects.count()}")
        join_team(actor=SYSTEM, team=team, people=[person])
        suspend(actor=SYSTEM, targets=[make_device(person, "tablet")], reason="ill")
        old = make_device(person, "old phone")
        revoke_devices(actor=SYSTEM, devices=[old], reason="lost")
        Run.objects.create(server=server, epoch=1, generation=1, outcome=Run.Outcome.APPLIED)
        Enrolment.objects.create(server=server, confirmed_host_key="SHA256:x", requested_by="alice")
        PlanRequest.objects.create(server=server, requested_by=user)
        hold = Hold.objects.create(act=uuid.uuid4(), cause="grant.end by alice")
        HeldPush.objects.create(hold=hold, server=server, removals=12, held=50)
        make_review(Peer.objects.filter(server=server, ended_at=None)[0])
        _people_of_the_console(environment, user)


def _address_all(server: Server, router: Device) -> None:
    four, six = server.pool4, server.pool6
    asked: dict[str, Any] = {"actor": SYSTEM, "server": server, "reason": "a branch"}
    reserve_addresses(addresses=f"{four[200]}-{four[210]}", **asked)
    add_pool(actor=SYSTEM, server=server, name="contractors", ipv4=f"{four[1024]}/24", ipv6=f"{six[4096]}/116")
    assign_address(device=router, ipv4=str(four[99]), **asked)
    route_network(device=router, network="192.168.7.0/24", **asked)


def _people_of_the_console(environment: Environment, user: User) -> None:
    name = f"x{Device.objects.count()}-{Bastion.objects.count()}"
    add_bastion(actor=SYSTEM, name=name, host="198.51.100.9", host_key=HOST_KEY)
    other = User.objects.create(username=name)
    give_role(actor=SYSTEM, user=other, name=Role.Name.AUDITOR, environment=environment)
    add_token(actor=SYSTEM, user=user, name=name, scope=ApiToken.Scope.READ)
