"""Plain typed builders of rows, through the services; no factory magic."""

import base64
import datetime as dt
import itertools
import os

from django.utils import timezone

from audit.services import SYSTEM, Actor
from fleet.models import Environment, Server, ServerStatus
from fleet.services import add_server
from nodes.models import ReviewItem
from peers.granting import grant_access
from peers.models import AccessRequest, Device, Grant, Peer, Person
from peers.requests import request_access
from peers.services import add_person, register_device

_numbers = itertools.count(1)


def new_public_key() -> str:
    """Any 32 bytes name a key that nobody holds."""
    raw = bytearray(os.urandom(32))
    raw[0] |= 2
    raw[31] &= 127
    return base64.b64encode(bytes(raw)).decode()


def make_server(environment: Environment, name: str = "", *, is_set_up: object = True, **values: object) -> Server:
    """Enrolled long ago, as far as rows say; nothing was pushed yet."""
    number = next(_numbers)
    fields = {
        "name": name or f"vpn-{number}",
        "host": f"198.51.{number // 250}.{number % 250 + 1}",
        "endpoint_host": f"vpn{number}.example.com",
        "ipv4_pool": f"10.{number % 250}.0.0/16",
        "ipv6_pool": f"fd00:{number:x}::/64",
    }
    server = add_server(actor=SYSTEM, environment=environment, **{**fields, **values})
    if is_set_up:
        server.enrolled_at = timezone.now()
        Server.objects.filter(pk=server.pk).update(enrolled_at=server.enrolled_at)  # no Event tells of it
    return server


def read_back(*servers: Server) -> None:
    """As if these, or all, had been pushed to and were read back as they are wanted now."""
    for row in Server.objects.filter(pk__in=[one.pk for one in servers]) if servers else Server.objects.all():
        wanted = {"confirmed_epoch": row.epoch, "confirmed_generation": row.generation}
        wanted |= {"observed_epoch": row.epoch, "observed_generation": row.generation}
        ServerStatus.objects.filter(server=row).update(**wanted)


def make_person(name: str = "Carol Contractor", kind: str = Person.Kind.EMPLOYEE) -> Person:
    return add_person(actor=SYSTEM, name=name, kind=kind)


def make_device(person: Person, name: str = "laptop", public_key: str = "") -> Device:
    return register_device(actor=SYSTEM, person=person, name=name, public_key=public_key or new_public_key())


def make_grant(person: Person, environment: Environment, *, days: int = 30) -> Grant:
    until = timezone.now() + dt.timedelta(days=days)
    return grant_access(actor=SYSTEM, person=person, environment=environment, reason="project work", until=until)


def make_request(person: Person, environment: Environment, *, actor: Actor = SYSTEM, days: int = 30) -> AccessRequest:
    duration = dt.timedelta(days=days)
    return request_access(actor=actor, person=person, environment=environment, reason="project", duration=duration)


def make_peers(environment: Environment, count: int) -> list[Peer]:
    """`count` people with one device each and a grant to the environment."""
    for _ in range(count):
        person = make_person(f"Person {next(_numbers)}")
        make_grant(person, environment)
        make_device(person)
    return list(Peer.objects.filter(server__environment=environment, ended_at=None))


def make_review(peer: Peer) -> ReviewItem:
    """As a journal's entry opens it: somebody suspended the peer at its machine."""
    said = {"what": "suspended", "detail": "laptop stolen", "by": "dora", "at": timezone.now()}
    return ReviewItem.objects.create(server=peer.server, peer=peer, entry="0" * 64, **said)
