"""What acts on a big fleet take, in a process of its own that talks to one database and one broker."""

import json
import statistics
import time
from collections.abc import Callable

from django.conf import settings
from django.db import connection
from django.db.models import Count
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.sealing import make_keyring
from fleet.services import add_server
from nodes.desired import desired_state
from peers.due import settle_due, settle_placements
from peers.granting import end_grants
from peers.leaving import offboard
from peers.models import Device, Grant, Peer, Person, Team
from peers.settle import compare
from peers.suspending import suspend
from peers.teams import join_team
from tests.bench.crowd import Crowd, build, new_server

WHY = "benchmark"


class Trials:
    """Each act once cold and then `rounds` times, on other people and servers each time; the median counts."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.figures = rounds, dict[str, float]()

    def __call__(self, name: str, one: Callable[[int], object]) -> None:
        found = [self._time(one, number) for number in range(self.rounds + 1)]
        scale = 1000 if name.endswith("_ms") else 1
        stem, unit = name.rsplit("_", 1)
        self.figures[f"{stem}_cold_{unit}"] = found[0] * scale
        self.figures[name] = statistics.median(found[1:]) * scale

    @staticmethod
    def _time(one: Callable[[int], object], number: int) -> float:
        began = time.monotonic()
        one(number)
        return time.monotonic() - began


def run(people: int, servers: int, rounds: int) -> None:
    make_keyring(settings.KEYRING_PEERS)
    began = time.monotonic()
    crowd = build(people, servers)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    trials = Trials(rounds)
    trials.figures["build_s"] = time.monotonic() - began
    trials.figures["peers"] = Peer.objects.count()
    measure(trials, crowd, servers)
    devices = list(Device.objects.filter(revoked_at=None).select_related("person"))
    found = compare(devices, timezone.now())
    check(not found.ending and not found.lacking, "all peers are what the grants say")
    print(json.dumps(trials.figures))


def measure(trials: Trials, crowd: Crowd, servers: int) -> None:
    """The sweep first, while nothing is due; those who leave last."""
    people = crowd.people
    busiest = Peer.objects.order_by().values("server").annotate(n=Count("pk")).order_by("-n")[0]["server"]
    trials("sweep_ms", lambda _: check(settle_due() == {}, "no pool is full"))
    trials("desired_ms", lambda _: check(len(desired_state(busiest).content.peers) >= len(people) // 2, "its peers"))
    trials("suspend_ms", lambda n: suspend(actor=SYSTEM, targets=[people[n]], reason=WHY))
    joined = [stranger_to(crowd.environments[1 + n], people) for n in range(trials.rounds + 1)]
    trials("join_team_ms", lambda n: join_team(actor=SYSTEM, team=crowd.teams[1 + n], people=[joined[n]]))
    trials("end_team_grant_s", lambda n: end_grants(actor=SYSTEM, grants=[grant_of(crowd.teams[-1 - n])], reason=WHY))
    trials("add_server_s", lambda n: add_one(servers + n, crowd))
    trials("offboard_ms", lambda n: offboard(actor=SYSTEM, people=[people[-1 - n]], reason=WHY))
    added = Peer.objects.filter(
        server__environment=crowd.environments[0],
        server__name__in=[f"vpn-{servers + n}" for n in range(trials.rounds + 1)],
    )
    check(added.count() == len(people) * (trials.rounds + 1), "everybody is on each new server")


def add_one(number: int, crowd: Crowd) -> None:
    """Until all of its peers are committed."""
    wanted = new_server(number, crowd.environments[0])
    names = ("name", "host", "endpoint_host", "ipv4_pool", "ipv6_pool")
    add_server(actor=SYSTEM, environment=wanted.environment, **{name: getattr(wanted, name) for name in names})
    check(settle_placements() == {}, "the pool has room")


def stranger_to(environment: Environment, people: list[Person]) -> Person:
    """Whom joining gives peers."""
    there = Peer.objects.filter(server__environment=environment, ended_at=None).values("device__person")
    return Person.objects.exclude(pk__in=there).filter(pk__in=[person.pk for person in people])[environment.pk]


def grant_of(team: Team) -> Grant:
    return Grant.objects.get(team=team, ended_at=None)


def check(holds: object, what: str) -> None:
    if not holds:
        raise RuntimeError(f"no: {what}")
