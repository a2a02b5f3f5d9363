"""A fleet of any size, written in bulk: what its grants say, with real address ranges and sealed preshared keys."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from django.db import transaction
from django.utils import timezone

from fleet.keyrings import PRESHARED_KEYS, sealer
from fleet.models import AddressRange, Environment, Placement, Server, ServerStatus, User
from fleet.pools import Network, to_hex
from peers.entitlement import Terms
from peers.issuing import values_of
from peers.keys import new_preshared_key
from peers.models import Device, Grant, Membership, Peer, PeerStatus, Person, Team
from peers.settle import compare
from tests.lab.tunnels import dummy_public_keys

PLACES = 19  # environments that each has some people in, beside the one that all are in
EACH = 4  # of them for each person, the first two by a team
HOURS = "mon-fri 08:00-18:00"


@dataclass(frozen=True)
class Crowd:
    """Everybody is in the first environment, half of them by the first team; teams[n] has environments[n]."""

    environments: list[Environment]
    teams: list[Team]
    people: list[Person]


@transaction.atomic
def build(people: int, servers: int) -> Crowd:
    """Each person has one device, and peers on a quarter of the servers."""
    names = ["everywhere", *(f"place-{number}" for number in range(PLACES))]
    environments = Environment.objects.bulk_create(Environment(name=name) for name in names)
    _servers(environments, servers)
    users = User.objects.bulk_create(User(username=f"user-{number}", is_staff=True) for number in range(people))
    crowd = Person.objects.bulk_create(
        Person(name=f"Person {number}", user=user, email=f"person-{number}@example.com")
        for number, user in enumerate(users)
    )
    keys = dummy_public_keys(people, seed=7)
    Device.objects.bulk_create(
        Device(person=person, name="laptop", public_key=key) for person, key in zip(crowd, keys, strict=True)
    )
    teams = Team.objects.bulk_create(Team(name=name) for name in names)
    _grants(environments, teams, crowd)
    _peers()
    return Crowd(environments, teams, crowd)


def _servers(environments: Sequence[Environment], count: int) -> None:
    made = Server.objects.bulk_create(
        new_server(number, environments[number % len(environments)]) for number in range(count)
    )
    now = timezone.now()
    Placement.objects.bulk_create(Placement(server=s, environment=s.environment, settled_at=now) for s in made)
    ServerStatus.objects.bulk_create(ServerStatus(server=server) for server in made)
    AddressRange.objects.bulk_create(
        AddressRange(server=server, first=own, last=own, kind=AddressRange.Kind.SERVER)
        for server in made
        for own in (to_hex(ip_address(server.ipv4_address)), to_hex(ip_address(server.ipv6_address)))
    )


def new_server(number: int, environment: Environment) -> Server:
    host = f"198.51.100.{number}"
    return Server(
        name=f"vpn-{number}",
        environment=environment,
        host=host,
        endpoint_host=host,
        ipv4_pool=f"10.{number}.0.0/16",
        ipv6_pool=f"fd00:{number:x}::/64",
        ipv4_address=f"10.{number}.0.1",
        ipv6_address=f"fd00:{number:x}::1",
        enrolled_at=timezone.now(),
    )


def _grants(environments: Sequence[Environment], teams: Sequence[Team], crowd: Sequence[Person]) -> None:
    singly, members = [], []
    for number, person in enumerate(crowd):
        places = [0, *(1 + (number + 5 * step) % PLACES for step in range(EACH))]
        by_team = {places[1], places[2]} | ({0} if number % 2 else set())
        members += [Membership(person=person, team=teams[place]) for place in places if place in by_team]
        singly += [(person, environments[place]) for place in places if place not in by_team]
    Membership.objects.bulk_create(members)
    terms = {"reason": "benchmark", "begun_at": timezone.now()}
    Grant.objects.bulk_create(Grant(person=person, environment=place, **terms) for person, place in singly)
    Grant.objects.bulk_create(
        Grant(team=team, environment=place, networks=["10.0.0.0/8"], hours=HOURS if n == PLACES else "", **terms)
        for n, (team, place) in enumerate(zip(teams, environments, strict=True))
    )


def _peers() -> None:
    wanted = compare(list(Device.objects.select_related("person")), timezone.now()).to_issue
    by_server: defaultdict[int, list[tuple[int, Terms]]] = defaultdict(list)
    for (device, place), terms in wanted.items():
        by_server[place].append((device, terms))
    sealing = sealer(PRESHARED_KEYS)
    for server in Server.objects.filter(pk__in=by_server):
        here = by_server[server.pk]
        fours, sixes = (_ranges(server, pool, len(here)) for pool in (server.pool4, server.pool6))
        peers = [
            Peer(device_id=device, server=server, ipv4=four, ipv6=six, issued_by="benchmark", **values_of(terms))
            for (device, terms), four, six in zip(here, fours, sixes, strict=True)
        ]
        for peer in peers:
            peer.preshared_key = sealing.seal(new_preshared_key(), peer.pk)
        Peer.objects.bulk_create(peers)
        PeerStatus.objects.bulk_create(PeerStatus(peer=peer) for peer in peers)


def _ranges(server: Server, pool: Network, count: int) -> list[AddressRange]:
    found = [to_hex(pool[number]) for number in range(2, 2 + count)]
    return AddressRange.objects.bulk_create(AddressRange(server=server, first=one, last=one) for one in found)
