"""What comes due by itself: new servers, grants that begin, access that is over, windows of the next weeks, moves."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from django.db.models import Q, QuerySet
from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from fleet.attempts import do_all
from fleet.models import Placement, Server
from peers.entitlement import monday
from peers.granting import servers_of
from peers.models import Device, Grant, Peer, Person, SweepMark
from peers.moving import let_moved_in
from peers.rights import holders_of, open_grants
from peers.settle import EXPIRED, Ending, Settled, compare, lock_people, settle, settle_where_room
from peers.suspending import suspend_disabled

Row = TypeVar("Row", Placement, Grant, Person, Server)
LOOKED_AT = 5000  # peers at once, or devices where they have none: all of 100,000 within six minutes


def settle_due() -> dict[int, str]:
    """All of it. Returns the servers whose pool is too small, with why: what waits for them holds up nothing else."""
    full: dict[int, str] = {}
    settling = (partial(_add_to, full, one) for one in (settle_placements, begin_grants, settle_strays))
    do_all((suspend_disabled, expire_peers, renew_windows, let_moved_in, *settling))
    return full


def _add_to(full: dict[int, str], settling: Callable[[], dict[int, str]]) -> None:
    full.update(settling())


def settle_strays() -> dict[int, str]:
    """Whatever acts made of peers: where people's peers are not what their rights say, they are made so. Each call
    looks at another part of the devices; nothing is locked, and no access written, where nothing differs."""
    with _next_part() as part:
        devices = {device.pk: device for device in part}
        found = compare(part, timezone.now())
        people = {devices[device].person_id for device in found.ending | found.lacking}
        return _each(Person.objects.filter(pk__in=people), _settle_stray)


@contextmanager
def _next_part() -> Iterator[list[Device]]:
    """What comes after the part that was looked at last, whenever that was, and after the end the first again. The mark
    moves on once a part was looked at, from where it stood: a sweep that is late, dies or meets another one leaves none
    out, and what is wrong in one part is no reason to look at no other."""
    mark = SweepMark.objects.filter(name="strays")
    seen = mark.values_list("seen", flat=True).first() or 0
    devices = Device.objects.filter(revoked_at=None, pk__gt=seen).select_related("person").order_by("pk")
    peers = Peer.objects.filter(ended_at=None, device__gt=seen).order_by("device").values_list("device", flat=True)
    last = next(iter(peers[LOOKED_AT : LOOKED_AT + 1]), None)
    part = list((devices if last is None else devices.filter(pk__lte=last))[:LOOKED_AT])
    now_seen = part[-1].pk if len(part) == LOOKED_AT else last or 0
    try:
        yield part
    finally:
        if now_seen != seen and not mark.filter(seen=seen).update(seen=now_seen):
            mark.get_or_create(name="strays", defaults={"seen": now_seen})


class _Waits(Exception):
    """Nothing could be done but to wait for an address: no Event tells of it each time."""

    def __init__(self, full: dict[int, str]) -> None:
        self.full = full


def _settle_stray(person: Person) -> dict[int, str]:
    with act(Verb.PEER_SETTLE, actor=SYSTEM, reason="the peers were not what the grants say") as this:
        done, full = settle_where_room([person.pk], this=this, ending=Ending())
        if full and done == Settled():
            raise _Waits(full)
        this.on(person, changes=_told(done))
    return full


def _told(done: Settled) -> dict[str, list[str]]:
    return {"peers": [str(done.ended), str(done.issued)], "other terms": ["", str(done.changed)]}


def settle_placements() -> dict[int, str]:
    """Servers that are new in their environment, or whose hours mean other times now, get the peers they should. Those
    that a full pool has no address for are strays from then on."""
    waiting = Placement.objects.filter(settled_at=None, ended_at=None).select_related("server", "environment")
    return _each(waiting, _settle_placement)


def begin_grants() -> dict[int, str]:
    """Grants whose time has come get their peers."""
    waiting = Grant.objects.filter(begun_at=None, ended_at=None, begins_at__lte=timezone.now())
    return _each(waiting.select_related("person", "team", "environment", "server__environment"), _begin_grant)


def _each(rows: Iterable[Row], settle_one: Callable[[Row], dict[int, str]]) -> dict[int, str]:
    """One row that cannot be settled holds up none of the others. The servers whose pool is too small, with why."""
    full: dict[int, str] = {}

    def settle_or_tell(row: Row) -> None:
        try:
            full.update(settle_one(row))
        except _Waits as error:
            full.update(error.full)

    do_all(partial(settle_or_tell, row) for row in rows)
    return full


def _settle_placement(placement: Placement) -> dict[int, str]:
    server, environment, now = placement.server, placement.environment, timezone.now()
    with act(Verb.PEER_SETTLE, actor=SYSTEM, reason="the server is new there, or hours mean other times") as this:
        if not Placement.objects.filter(pk=placement.pk, settled_at=None).update(settled_at=now):
            this.on(server, changes={}, environment=environment.name)
            return {}
        grants = open_grants(now).filter(Q(environment=environment) | Q(server=server))
        there = Peer.objects.filter(server=server, ended_at=None).values_list("device__person", flat=True)
        people = holders_of(grants, now) | set(there)
        done, full = settle_where_room(people, this=this, ending=Ending(), on={server.pk})
        this.on(server, changes=_told(done), environment=environment.name)
    return full


def _begin_grant(grant: Grant) -> dict[int, str]:
    now, done = timezone.now(), Settled()
    full: dict[int, str] = {}
    with act(Verb.GRANT_BEGIN, actor=SYSTEM, reason=grant.reason) as this:
        people = holders_of([grant], now)
        lock_people(people)
        if Grant.objects.filter(pk=grant.pk, begun_at=None, ended_at=None).update(begun_at=now):
            done, full = settle_where_room(people, this=this, ending=Ending(), on=servers_of([grant]))
        this.on(grant, changes={"peers": ["0", str(done.issued)]}, environment=grant.place.name)
    return full


def expire_peers() -> int:
    """Peers whose time is over end here; their servers hear of it at the next push. How many people it touched."""
    now = timezone.now()
    due = Peer.objects.filter(ended_at=None, expires_at__lte=now).values_list("device__person", flat=True)
    people = list(Person.objects.filter(pk__in=set(due)))
    _each(people, _expire)
    return len(people)


def _expire(person: Person) -> dict[int, str]:
    with act(Verb.PEER_EXPIRE, actor=SYSTEM, reason="the grant's end came") as this:
        done = settle([person.pk], this=this, ending=EXPIRED, issues=False)
        this.on(person, changes={"peers ended": ["", str(done.ended)]})
    return {}


def renew_windows() -> int:
    """Each Monday nodes are told the access windows of one more week. How many servers it was done for."""
    due = Peer.objects.filter(ended_at=None, windows_from__lt=monday(timezone.now()))
    servers = Server.objects.filter(pk__in=due.values("server")).select_related("environment")
    _each(servers, partial(_renew_windows, due))
    return len(servers)


def _renew_windows(due: QuerySet[Peer], server: Server) -> dict[int, str]:
    with act(Verb.PEER_SETTLE, actor=SYSTEM, reason="the access windows of another week") as this:
        people = set(due.filter(server=server).values_list("device__person", flat=True))
        done = settle(people, this=this, ending=Ending(), on={server.pk}, issues=False)
        this.on(server, changes={"other terms": ["", str(done.changed)]}, environment=server.environment.name)
    return {}
