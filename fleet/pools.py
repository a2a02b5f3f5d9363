"""Pure address arithmetic: both families in one ordered space of 32 hex digits, and the next free address."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAPPED = 0xFFFF << 32


class PoolExhausted(Exception):
    """No address of the pool is free; the message says which pool and how to go on."""

    server_id = 0


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


def bounds(pool: Network) -> tuple[int, int]:
    """First and last address that a peer may have; network, gateway and (IPv4) broadcast are left out."""
    first = int(pool.network_address) + 2
    last = int(pool.broadcast_address) - (1 if pool.version == 4 else 0)
    return first, last


def free_addresses(pool: Network, taken: Iterable[tuple[str, str]]) -> Iterator[Address]:
    """Free addresses in rising order; `taken` are (first, last) as hex. Ends with PoolExhausted."""
    make = IPv4Address if pool.version == 4 else IPv6Address
    candidate, last = bounds(pool)
    for low, high in _within(pool, taken):
        yield from (make(number) for number in range(candidate, min(low, last + 1)))
        candidate = max(candidate, high + 1)
    yield from (make(number) for number in range(candidate, last + 1))
    raise PoolExhausted(f"Pool {pool} has no free address: widen it, or wait until released ones have rested.")


def _within(pool: Network, taken: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    ranges = [(from_hex(low), from_hex(high)) for low, high in taken]
    return sorted((int(low), int(high)) for low, high in ranges if low.version == pool.version)
