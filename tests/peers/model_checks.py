"""Compares what the database and the desired states say with a model's world. It reads rows plainly, by itself."""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from uuid import UUID

from django.db import connection
from django.db.models import F, Q

from fleet.models import AddressRange, Server
from nodes.desired import desired_state
from nodes.state import PeerState
from peers.models import Peer, Suspension, Tombstone
from peers.rights import rights_of
from tests.peers.model import Person, Snapshot, Spot, Target, World

Seen = dict[int, tuple[int, Mapping[str, PeerState]]]  # server -> its generation, and what it is to hold then
Past = list[tuple[dt.datetime, Snapshot, set[tuple[int, int]]]]


def check_present(world: World, seen: Seen) -> Seen:
    """Peers, their terms, what each server is wanted to hold, tombstones and addresses. What a server is to hold is
    read again where its generation is another than was seen: servers are told of nothing else."""
    rows = {
        (row.device.public_key, row.server_id): row
        for row in Peer.objects.filter(ended_at=None).select_related("device")
    }
    assert rows.keys() == {(peer.device.key, peer.server.pk) for peer in world.live()}
    for peer in world.live():
        row = rows[peer.device.key, peer.server.pk]
        assert (row.networks, row.expires_at) == world.terms(peer)
    wanted, now_seen = world.snapshot(), Seen()
    generations = dict(Server.objects.values_list("pk", "generation"))
    for server in world.servers:
        before, peers = seen.get(server.pk, (0, {}))
        if before != generations[server.pk]:
            peers = desired_state(server.pk).content.peers
        now_seen[server.pk] = generations[server.pk], peers
        assert peers.keys().isdisjoint(world.dead_keys)
        open_now = {key for key, peer in peers.items() if is_open(peer, world.now)}
        assert open_now == {key for (key, pk), state in wanted.items() if (pk, state) == (server.pk, "in")}
    assert set(Tombstone.objects.values_list("public_key", flat=True)) == world.dead_keys
    check_suspensions(world)
    check_ranges()
    return now_seen


def check_suspensions(world: World) -> None:
    """Whoever is suspended is so by one open row, also where the peer that it is about has ended."""
    columns = ("person", "device", "peer__device", "peer__server")
    found = sorted(map(str, Suspension.objects.filter(ended_at=None).values_list(*columns)))
    assert found == sorted(str(columns_of(target)) for target in world.suspended)
    ended = Suspension.objects.filter(ended_at=None).exclude(peer__ended_at=None)
    assert not ended.filter(peer__device__peers__server=F("peer__server"), peer__device__peers__ended_at=None).exists()


def columns_of(target: Target) -> tuple[int | None, ...]:
    if isinstance(target, Spot):
        return None, None, target.device.pk, target.server.pk
    return (target.pk, None, None, None) if isinstance(target, Person) else (None, target.pk, None, None)


def is_open(peer: PeerState, now: dt.datetime) -> bool:
    """As its server judges, which knows seconds alone."""
    moment = now.timestamp()
    if peer.expires_at is not None and peer.expires_at <= moment:
        return False
    return peer.windows is None or any(begin <= moment < end for begin, end in peer.windows)


def check_ranges() -> None:
    """What is taken on one server does not overlap, and what a live peer has is taken."""
    taken = defaultdict(list)
    for row in AddressRange.objects.filter(released_at=None):
        taken[row.server_id].append((row.first, row.last))
    for ranges in taken.values():
        assert all(one[1] < other[0] for one, other in pairwise(sorted(ranges)))
    live = Q(peers4__ended_at=None, peers4__isnull=False) | Q(peers6__ended_at=None, peers6__isnull=False)
    assert not AddressRange.objects.filter(live).exclude(freed_at=None).exists()


def check_rests(world: World) -> None:
    """Each address of each server, one holder after another: nobody got it while it rested, but the heir of a key
    that was alive there, be it the second one of that key."""
    rests = {server.pk: server.environment.rest for server in world.servers}
    rows = {row.pk: row for row in Peer.objects.select_related("ipv4", "ipv6")}
    held = defaultdict(list)
    for row in rows.values():
        held[row.server_id, row.ipv4.first].append(row)
        held[row.server_id, row.ipv6.first].append(row)
    for (server, _), holders in held.items():
        holders.sort(key=lambda row: (row.issued_at, row.device_id))  # issued at once: a key comes before its heir
        for before, after in ((one, two) for n, two in enumerate(holders) for one in holders[:n]):
            if line_of(after, rows).isdisjoint({before.pk, *line_of(before, rows)}):
                assert before.ended_at is not None and before.ended_at + rests[server] <= after.issued_at
                assert before.gone_at is not None and before.gone_at <= after.issued_at


def line_of(row: Peer, rows: dict[UUID, Peer]) -> set[UUID]:
    """The peers that had its addresses when it came: its key is to take over from theirs, perhaps by way of others,
    each while the one before it lived."""
    found = set()
    while row.replaces_id is not None:
        replaced = rows[row.replaces_id]
        if replaced.ended_at is not None and replaced.ended_at <= row.issued_at:
            break
        found.add(replaced.pk)
        row = replaced
    return found


def check_past(past: Past) -> None:
    """At each time that was written down: who had a peer where, who was kept out, and who had a right."""
    people = sorted({person for _, _, entitled in past for person, _ in entitled})
    for at, snapshot, entitled in past:
        lasted = Q(Q(ended_at=None) | Q(ended_at__gt=at))
        peers = list(Peer.objects.filter(lasted, issued_at__lte=at).select_related("device"))
        shut = list(Suspension.objects.filter(lasted, began_at__lte=at))
        assert {(peer.device.public_key, peer.server_id): is_shut(peer, shut) for peer in peers} == {
            spot: state == "suspended" for spot, state in snapshot.items()
        }, at
        rights = rights_of(people, at)
        assert {(person, server) for person in rights for server in rights[person]} == entitled, at


def is_shut(peer: Peer, suspensions: list[Suspension]) -> bool:
    return any(
        peer.pk == one.peer_id or peer.device_id == one.device_id or peer.device.person_id == one.person_id
        for one in suspensions
        if one.peer_id or one.device_id or one.person_id
    )


def check_constraints() -> None:
    """Foreign keys too, which databases look at when a transaction is committed; these never are."""
    connection.check_constraints()
