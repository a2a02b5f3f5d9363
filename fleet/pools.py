"""Pure address arithmetic: both families in one ordered space of 32 hex digits, and the next free address."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAPPED = 0xFFFF << 32


class PoolExhausted(Exception):
    """No address of the pool is free; the message says which pool of which server, and how to go on."""

    def __init__(self, server_id: int, pool: str, server: str) -> None:
        mend = "widen it, or wait until released ones have rested"
        super().__init__(f"Pool {pool} of {server} has no free address: {mend}.")
        self.server_id = server_id


def to_hex(address: Address) -> str:
    """32 hex digits that sort as the addresses do; IPv4 stands at ::ffff:0:0/96."""
    number = int(address) | (MAPPED if address.version == 4 else 0)
    return f"{number:032x}"


def from_hex(text: str) -> Address:
    number = int(text, 16)
    if number >> 32 == 0xFFFF:
        return IPv4Address(number & 0xFFFFFFFF)
    return IPv6Address(number)


def gateway(pool: Network) -> Address:
    """The server's own address: the first after the network's."""
    return pool.network_address + 1


Span = tuple[int, int]  # first and last, as numbers of the one ordered space


def span_of(network: Network) -> Span:
    """All addresses of a network."""
    return int(to_hex(network[0]), 16), int(to_hex(network[-1]), 16)


def usable(pool: Network, part: Network | None = None) -> Span:
    """What may be given of a pool, or of a part of it: all but the pool's network address and (IPv4) broadcast."""
    first, last = span_of(pool)
    room = first + 1, last - (1 if pool.version == 4 else 0)
    low, high = span_of(part) if part else room
    return max(low, room[0]), min(high, room[1])


def size_of(span: Span) -> int:
    return max(0, span[1] - span[0] + 1)


def meet(one: Span, other: Span) -> Span:
    """What both hold; its size may be nothing."""
    return max(one[0], other[0]), min(one[1], other[1])


def free_addresses(room: Span, taken: Iterable[Span]) -> Iterator[int]:
    """Free addresses of `room` in rising order; `taken` rises by the first address, and may overlap."""
    candidate, last = room
    for low, high in taken:
        if low > last:
            break
        yield from range(candidate, low)
        candidate = max(candidate, high + 1)
    yield from range(candidate, last + 1)


def is_widened(old: str, new: str) -> bool:
    """Whether the new pool holds all of the old one, and more."""
    before, after = ip_network(old), ip_network(new)
    if isinstance(before, IPv4Network):
        return isinstance(after, IPv4Network) and before != after and before.subnet_of(after)
    return isinstance(after, IPv6Network) and before != after and before.subnet_of(after)


def holds(outer: Network, inner: Network) -> bool:
    """As `subnet_of`, for networks of either family."""
    low, high = span_of(outer)
    first, last = span_of(inner)
    return low <= first and last <= high


class BadRange(Exception):
    """What was typed is no range of addresses; the message names the mend."""


def parse_range(text: str) -> Span:
    """`10.1.0.7`, `10.1.0.0/28` or `10.1.0.7-10.1.0.19`, in either family."""
    try:
        parts = [ip_network(part.strip()) for part in text.split("-")]
    except ValueError as error:
        raise BadRange(f"{error}. {AS}") from None
    spans = [span_of(part) for part in parts]
    if any(part.version == 6 and span[1] >> 32 == 0xFFFF for part, span in zip(parts, spans, strict=True)):
        raise BadRange("This is an IPv4 address inside IPv6: write it as IPv4.")
    if "%" in text:
        raise BadRange("Leave out the zone: these are no addresses of one link.")
    first, last = spans[0][0], spans[-1][1]
    whole = len(parts) == 1 or (len(parts) == 2 and all(low == high for low, high in spans))
    if not whole or first > last or len({part.version for part in parts}) > 1:
        raise BadRange(f"The lower address comes first, and both are of one family. {AS}")
    return first, last


AS = "Give an address, a network, or first-last, such as 10.1.0.7-10.1.0.19."


def name_of(span: Span) -> str:
    """`10.1.0.7/32`, or `10.1.0.7 to 10.1.0.19`."""
    first, last = (from_hex(f"{number:032x}") for number in span)
    return f"{first}/{first.max_prefixlen}" if first == last else f"{first} to {last}"
