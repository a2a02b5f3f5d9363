"""How much room is left in the pools of a server."""

from dataclasses import dataclass

from fleet.addresses import open_pools
from fleet.models import AddressRange, Server
from fleet.pools import Network, Span, meet, size_of, usable


@dataclass
class Room:
    """One pool of one family: how many addresses it has for peers, and how they are used."""

    name: str
    network: Network
    span: Span
    size: int
    taken: int = 0
    resting: int = 0

    @property
    def has(self) -> str:
        return _told(self.size)

    @property
    def free(self) -> str:
        return _told(self.size - self.taken - self.resting)


def _told(number: int) -> str:
    """In words where nobody would count that far."""
    return str(number) if number < 10**9 else "more than a billion"


def rooms_of(server: Server) -> list[Room]:
    """The server's pools without their named parts, then these. Three queries, however many addresses are taken."""
    parts = open_pools([server.pk])[server.pk]
    found = []
    for family, whole in (("ipv4", server.pool4), ("ipv6", server.pool6)):
        inner = [_room(pool.name, whole, part) for pool in parts if (part := pool.network(family))]
        general = _room("for anybody", whole, whole)
        for room in inner:
            general.size -= room.size
        found += _filled(server, general, inner)
    return found


def _room(name: str, whole: Network, part: Network) -> Room:
    span = usable(whole, part)
    return Room(name, part, span, size_of(span))


def _filled(server: Server, general: Room, inner: list[Room]) -> list[Room]:
    first, last = (f"{number:032x}" for number in general.span)
    rows = AddressRange.objects.filter(server=server, released_at=None, first__lte=last, last__gte=first)
    for low, high, freed_at in rows.values_list("first", "last", "freed_at"):
        span = int(low, 16), int(high, 16)
        counted = 0
        for room in inner:
            counted += _count(room, size_of(meet(span, room.span)), freed_at is not None)
        _count(general, size_of(meet(span, general.span)) - counted, freed_at is not None)
    return [general, *inner]


def _count(room: Room, number: int, is_resting: bool) -> int:
    if is_resting:
        room.resting += number
    else:
        room.taken += number
    return number
