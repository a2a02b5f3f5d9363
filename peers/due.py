"""What comes due by itself: new servers, grants that begin, access that is over, windows of the next weeks, moves."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Mod
from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from fleet.attempts import do_all
from fleet.models import Placement, Server
from fleet.pools import PoolExhausted
from peers.entitlement import monday
from peers.granting import servers_of
from peers.models import Device, Grant, Peer, Person
from peers.moving import let_moved_in
from peers.rights import holders_of, open_grants
from peers.settle import EXPIRED, Ending, compare, lock_people, settle
from peers.suspending import suspend_disabled

Row = TypeVar("Row", Placement, Grant, Person, Server)
LOOKED_AT = 200  # devices at once


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
    looks at another part of the people, all within minutes; nothing is locked or written where nothing differs."""
    now = timezone.now()
    parts = Device.objects.filter(revoked_at=None).count() // LOOKED_AT + 1
    part = int(now.timestamp()) // 15 % parts
    rows = Device.objects.filter(revoked_at=None).annotate(part=Mod(F("person"), parts)).filter(part=part)
    devices = {device.pk: device for device in rows.select_related("person")}
    found = compare(list(devices.values()), now)
    ending, lacking = ({devices[device].person_id for device in part} for part in (found.ending, found.lacking))
    _each(Person.objects.filter(pk__in=ending), partial(_settle_stray, issues=False))  # waits for no full pool
    return _each(Person.objects.filter(pk__in=lacking), partial(_settle_stray, issues=True))


def _settle_stray(person: Person, *, issues: bool) -> None:
    with act(Verb.PEER_SETTLE, actor=SYSTEM, reason="the peers were not what the grants say") as this:
        done = settle([person.pk], this=this, ending=Ending(), issues=issues)
        this.on(person, changes={"peers": [str(done.ended), str(done.issued)], "other terms": ["", str(done.changed)]})


def settle_placements() -> dict[int, str]:
    """Servers that are new in their environment, or whose hours mean other times now, get the peers they should."""
    waiting = Placement.objects.filter(settled_at=None, ended_at=None).select_related("server", "environment")
    return _each(waiting, _settle_placement)


def begin_grants() -> dict[int, str]:
    """Grants whose time has come get their peers."""
    waiting = Grant.objects.filter(begun_at=None, ended_at=None, begins_at__lte=timezone.now())
    return _each(waiting.select_related("person", "team", "environment", "server__environment"), _begin_grant)


def _each(rows: Iterable[Row], settle_one: Callable[[Row], None]) -> dict[int, str]:
    """One row that cannot be settled holds up none of the others. The servers whose pool is too small, with why."""
    full: dict[int, str] = {}

    def settle_or_tell(row: Row) -> None:
        try:
            settle_one(row)
        except PoolExhausted as error:
            full[error.server_id] = str(error)

    do_all(partial(settle_or_tell, row) for row in rows)
    return full


def _settle_placement(placement: Placement) -> None:
    server, environment, now = placement.server, placement.environment, timezone.now()
    with act(Verb.PEER_SETTLE, actor=SYSTEM, reason="the server is new there, or hours mean other times") as this:
        if not Placement.objects.filter(pk=placement.pk, settled_at=None).update(settled_at=now):
            this.on(server, changes={}, environment=environment.name)
            return
        grants = open_grants(now).filter(Q(environment=environment) | Q(server=server))
        there = Peer.objects.filter(server=server, ended_at=None).values_list("device__person", flat=True)
        done = settle(holders_of(grants, now) | set(there), this=this, ending=Ending(), on={server.pk})
        changes = {"peers": [str(done.ended), str(done.issued)], "other terms": ["", str(done.changed)]}
        this.on(server, changes=changes, environment=environment.name)


def _begin_grant(grant: Grant) -> None:
    now = timezone.now()
    with act(Verb.GRANT_BEGIN, actor=SYSTEM, reason=grant.reason) as this:
        done, people = 0, holders_of([grant], now)
        lock_people(people)
        if Grant.objects.filter(pk=grant.pk, begun_at=None, ended_at=None).update(begun_at=now):
            done = settle(people, this=this, ending=Ending(), on=servers_of([grant])).issued
        this.on(grant, changes={"peers": ["0", str(done)]}, environment=grant.place.name)


def expire_peers() -> int:
    """Peers whose time is over end here; their servers hear of it at the next push. How many people it touched."""
    now = timezone.now()
    due = Peer.objects.filter(ended_at=None, expires_at__lte=now).values_list("device__person", flat=True)
    people = list(Person.objects.filter(pk__in=set(due)))
    _each(people, _expire)
    return len(people)


def _expire(person: Person) -> None:
    with act(Verb.PEER_EXPIRE, actor=SYSTEM, reason="the grant's end came") as this:
        done = settle([person.pk], this=this, ending=EXPIRED, issues=False)
        this.on(person, changes={"peers ended": ["", str(done.ended)]})


def renew_windows() -> int:
    """Each Monday nodes are told the access windows of one more week. How many servers it was done for."""
    due = Peer.objects.filter(ended_at=None, windows_from__lt=monday(timezone.now()))
    servers = Server.objects.filter(pk__in=due.values("server")).select_related("environment")
    _each(servers, partial(_renew_windows, due))
    return len(servers)


def _renew_windows(due: QuerySet[Peer], server: Server) -> None:
    with act(Verb.PEER_SETTLE, actor=SYSTEM, reason="the access windows of another week") as this:
        people = set(due.filter(server=server).values_list("device__person", flat=True))
        done = settle(people, this=this, ending=Ending(), on={server.pk}, issues=False)
        this.on(server, changes={"other terms": ["", str(done.changed)]}, environment=server.environment.name)
