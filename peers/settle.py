"""Makes Peers follow from Grants: issues what is missing, ends what has no grant any more."""

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from audit.services import SYSTEM, Act, Actor, act
from audit.verbs import Verb
from fleet.addresses import free_ranges
from fleet.changes import lock_servers, mark_changed
from fleet.models import Placement
from fleet.pools import PoolExhausted
from peers.entitlement import Terms, open_grants, wanted_peers
from peers.issuing import issue_peers
from peers.models import Device, Grant, Peer, Person


@dataclass(frozen=True)
class Settled:
    """How many peers were issued, ended and given other terms."""

    issued: int = 0
    ended: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Ending:
    """Why peers end: the word for it, and whether it was a decision about one person (which no brake holds up)."""

    end: str = Peer.End.WITHDRAWN
    is_decided: bool = False


EXPIRED = Ending(Peer.End.EXPIRED, is_decided=True)


def lock_keys(keys: Iterable[str]) -> None:
    """Until the transaction ends, nobody else registers or revokes these keys, known to us or not."""
    if connection.vendor != "postgresql":
        return  # SQLite's transactions are IMMEDIATE: there is no second writer.
    with connection.cursor() as cursor:
        for key in sorted(set(keys)):
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])


def lock_devices(people: Collection[int]) -> list[Device]:
    """Live devices, locked in one order by all. Read under the lock, so a revocation that won is seen; the people
    are locked before, so that of a grant and a device made at once the second sees the first."""
    list(Person.objects.select_for_update(no_key=True).filter(pk__in=people).order_by("pk").values_list("pk"))
    rows = Device.objects.select_for_update(of=("self",), no_key=True).filter(person__in=people, revoked_at=None)
    return list(rows.select_related("person", "replaces").order_by("pk"))


def settle(people: Collection[int], *, this: Act, ending: Ending, issue_on: Collection[int] | None = None) -> Settled:
    """Inside the caller's act: makes the Peers of these people what their Grants say. `issue_on` names the servers
    that new peers are for, where not all are meant: so no full pool elsewhere stands against the act."""
    now = timezone.now()
    devices = lock_devices(people)
    wanted = wanted_peers(devices, now)
    live = _live_peers(devices)
    to_end = [peer for place, peer in live.items() if place not in wanted]
    to_issue = {place: terms for place, terms in wanted.items() if place not in live}
    if issue_on is not None:
        to_issue = {place: terms for place, terms in to_issue.items() if place[1] in issue_on}
    to_change = _with_other_terms(live, wanted)
    touched = {peer.server_id for peer in to_end} | {server for _, server in to_issue} | set(to_change)
    servers = {server.pk: server for server in lock_servers(touched)}
    # Whoever comes first after their end: they expired, and nobody withdrew them.
    over = {peer.pk: peer for peer in to_end if peer.expires_at and peer.expires_at <= now}
    end_peers(over.values(), this=this, ending=EXPIRED, now=now)
    end_peers([peer for peer in to_end if peer.pk not in over], this=this, ending=ending, now=now)
    kept = {place: peer for place, peer in live.items() if place in wanted}
    issue_peers(to_issue, devices=devices, live=kept, servers=servers, issued_by=str(this.actor))
    mark_changed(touched)
    return Settled(len(to_issue), len(to_end), len(to_change))


def _live_peers(devices: list[Device]) -> dict[tuple[int, int], Peer]:
    rows = Peer.objects.filter(device__in=devices, ended_at=None)
    return {(peer.device_id, peer.server_id): peer for peer in rows}


def _with_other_terms(live: dict[tuple[int, int], Peer], wanted: dict[tuple[int, int], Terms]) -> set[int]:
    """Writes new networks and ends of peers that stay; the servers where the end is another."""
    changed, touched = [], set()
    for place, peer in live.items():
        terms = wanted.get(place)
        if terms is None or (list(terms.networks), terms.expires_at) == (peer.networks, peer.expires_at):
            continue
        if peer.expires_at != terms.expires_at:
            touched.add(peer.server_id)
        peer.networks, peer.expires_at = list(terms.networks), terms.expires_at
        changed.append(peer)
    Peer.objects.bulk_update(changed, ["networks", "expires_at"])
    return touched


def end_peers(peers: Collection[Peer], *, this: Act, ending: Ending, now: dt.datetime) -> None:
    """These peers end now; their addresses begin to rest, but for those that a new key has taken over."""
    Peer.objects.filter(pk__in=[peer.pk for peer in peers], ended_at=None).update(
        ended_at=now, end=ending.end, ended_act=this.id, is_decided=ending.is_decided
    )
    ranges = {pk for peer in peers for pk in (peer.ipv4_id, peer.ipv6_id)}
    staying = Peer.objects.filter(Q(ipv4__in=ranges) | Q(ipv6__in=ranges), ended_at=None)
    free_ranges(ranges - {pk for pair in staying.values_list("ipv4", "ipv6") for pk in pair}, now)


def settle_placements() -> dict[int, str]:
    """Servers that are new in their environment get the peers that grants give them. Returns those whose pool is
    too small for that, with why; they wait, and hold up no other."""
    full = {}
    for placement in Placement.objects.filter(settled_at=None, ended_at=None).select_related("server__environment"):
        try:
            _settle_placement(placement, actor=SYSTEM)
        except PoolExhausted as error:
            full[placement.server_id] = str(error)
    return full


def _settle_placement(placement: Placement, *, actor: Actor) -> None:
    server = placement.server
    with act(Verb.PEER_SETTLE, actor=actor, reason="the server is new in its environment") as this:
        if not Placement.objects.filter(pk=placement.pk, settled_at=None).update(settled_at=timezone.now()):
            this.on(server, changes={}, environment=server.environment.name)
            return
        grants = open_grants(timezone.now())
        people = set(grants.filter(environment=placement.environment_id).values_list("person", flat=True))
        done = settle(people, this=this, ending=Ending(), issue_on={server.pk})
        this.on(server, changes={"peers": ["0", str(done.issued)]}, environment=server.environment.name)


def expire_peers() -> int:
    """Peers whose time is over end here; their servers hear of it at the next push. How many people it touched."""
    now = timezone.now()
    due = Peer.objects.filter(ended_at=None, expires_at__lte=now).values_list("device__person", flat=True)
    people = list(Person.objects.filter(pk__in=set(due)))
    for person in people:
        with act(Verb.PEER_EXPIRE, actor=SYSTEM, reason="the grant's end came") as this:
            done = settle([person.pk], this=this, ending=EXPIRED, issue_on=())
            this.on(person, changes={"peers ended": ["", str(done.ended)]})
    return len(people)


def people_of(grants: Iterable[Grant]) -> set[int]:
    return {grant.person_id for grant in grants}
