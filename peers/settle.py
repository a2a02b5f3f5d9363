"""Makes Peers follow from rights: issues what is missing, ends what has no right any more."""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Case, DateTimeField, Exists, OuterRef, Value, When
from django.utils import timezone

from audit.services import Act
from fleet.changes import lock_servers, mark_changed
from fleet.models import Server
from fleet.pools import PoolExhausted
from peers.entitlement import Spot, Terms, wanted_peers
from peers.holders import free_left
from peers.issuing import issue_peers, values_of
from peers.models import Device, Peer, Person
from peers.rights import rights_of


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


def lock_people(people: Collection[int]) -> None:
    """Whoever is to end or change rows of people that others end under this lock takes it before these rows."""
    list(Person.objects.select_for_update(no_key=True).filter(pk__in=people).order_by("pk").values_list("pk"))


def lock_devices(people: Collection[int]) -> list[Device]:
    """Live devices, locked in one order by all. Read under the lock, so a revocation that won is seen; the people
    are locked before, so that of a grant and a device made at once the second sees the first."""
    lock_people(people)
    rows = Device.objects.select_for_update(of=("self",), no_key=True).filter(person__in=people, revoked_at=None)
    return list(rows.select_related("person", "replaces").order_by("pk"))


@dataclass(frozen=True)
class Difference:
    """Between the peers that devices have and those that they should have."""

    to_end: list[Peer]
    to_issue: dict[Spot, Terms]
    to_change: dict[Terms, list[Peer]]
    kept: dict[Spot, Peer]

    @property
    def ending(self) -> set[int]:
        """Devices that lose a peer, or have one on other terms: this takes no address."""
        changing = (peer for peers in self.to_change.values() for peer in peers)
        return {peer.device_id for peer in (*self.to_end, *changing)}

    @property
    def lacking(self) -> set[int]:
        """Devices that are to have a peer and have none."""
        return {device for device, _ in self.to_issue}


def compare(devices: Collection[Device], now: dt.datetime, on: Collection[int] | None = None) -> Difference:
    """`on` names the servers that are looked at, where not all are. Five queries, however many devices there are."""
    spots = [(device.pk, device.person_id) for device in devices if device.person.left_at is None]
    wanted = wanted_peers(spots, rights_of({person for _, person in spots}, now, on), now)
    live = _live_peers(devices, on)
    to_change: defaultdict[Terms, list[Peer]] = defaultdict(list)
    for spot, peer in live.items():
        if spot in wanted and any(getattr(peer, name) != value for name, value in values_of(wanted[spot]).items()):
            to_change[wanted[spot]].append(peer)
    return Difference(
        to_end=[peer for spot, peer in live.items() if spot not in wanted],
        to_issue={spot: terms for spot, terms in wanted.items() if spot not in live},
        to_change=to_change,
        kept={spot: peer for spot, peer in live.items() if spot in wanted},
    )


def settle(
    people: Collection[int],
    *,
    this: Act,
    ending: Ending,
    on: Collection[int] | None = None,
    issues: bool = True,
    full: Collection[int] = (),
) -> Settled:
    """Inside the caller's act: makes the Peers of these people what their rights say, on the servers `on` where not on
    all. Without `issues` no new peer is made, so no full pool stands against the act; on `full` servers none is."""
    devices = lock_devices(people)
    now = timezone.now()  # after the locks: what was waited for has happened
    found = compare(devices, now, on)
    to_issue = {spot: terms for spot, terms in found.to_issue.items() if issues and spot[1] not in full}
    heard = _change_terms(found.to_change)
    touched = heard | {peer.server_id for peer in found.to_end} | {server for _, server in to_issue}
    servers = {server.pk: server for server in lock_servers(touched)}
    # Whoever comes first after their end: they expired, and nobody withdrew them.
    over = {peer.pk: peer for peer in found.to_end if peer.expires_at and peer.expires_at <= now}
    end_peers(over.values(), this=this, ending=EXPIRED, now=now)
    end_peers([peer for peer in found.to_end if peer.pk not in over], this=this, ending=ending, now=now)
    issue_peers(to_issue, devices=devices, live=found.kept, servers=servers, issued_by=str(this.actor))
    mark_changed(touched)
    return Settled(len(to_issue), len(found.to_end), sum(map(len, found.to_change.values())))


def settle_where_room(
    people: Collection[int], *, this: Act, ending: Ending, on: Collection[int] | None = None
) -> tuple[Settled, dict[int, str]]:
    """As `settle`, where a full pool is to undo nothing: on its server nobody gets a new peer, until the sweep finds
    room. Also returns these servers, with why."""
    full: dict[int, str] = {}
    while True:
        try:
            with transaction.atomic():
                return settle(people, this=this, ending=ending, on=on, full=full), full
        except PoolExhausted as error:
            full[error.server_id] = str(error)


def _live_peers(devices: Collection[Device], on: Collection[int] | None) -> dict[Spot, Peer]:
    rows = Peer.objects.order_by().filter(device__in=[device.pk for device in devices], ended_at=None)
    rows = rows if on is None else rows.filter(server__in=on)
    return {(peer.device_id, peer.server_id): peer for peer in rows.defer("preshared_key")}


def _change_terms(to_change: dict[Terms, list[Peer]]) -> set[int]:
    """Writes other terms to peers that stay. The servers that have to hear of it: networks are the client's alone."""
    heard = set()
    for terms, peers in to_change.items():
        values = values_of(terms)
        told = {name: value for name, value in values.items() if name != "networks"}
        heard |= {peer.server_id for peer in peers if any(getattr(peer, name) != told[name] for name in told)}
        Peer.objects.filter(pk__in=[peer.pk for peer in peers]).update(**values)
    return heard


def end_peers(peers: Collection[Peer], *, this: Act, ending: Ending, now: dt.datetime) -> None:
    """These peers end now; their addresses begin to rest, but for those that a new key has taken over, and those that
    are their device's own."""
    mark_ended(peers, this=this, ending=ending, now=now)
    free_left({pk for peer in peers for pk in (peer.ipv4_id, peer.ipv6_id)}, now)


def mark_ended(peers: Collection[Peer], *, this: Act, ending: Ending, now: dt.datetime) -> None:
    """The same, where the caller sees to the addresses, and holds the servers: one that was never set up has nothing to
    be seen without."""
    never = Exists(Server.objects.filter(pk=OuterRef("server"), enrolled_at=None))
    gone_at = Case(When(never, then=Value(now)), output_field=DateTimeField())
    Peer.objects.filter(pk__in=[peer.pk for peer in peers], ended_at=None).update(
        ended_at=now, end=ending.end, ended_act=this.id, is_decided=ending.is_decided, gone_at=gone_at
    )
