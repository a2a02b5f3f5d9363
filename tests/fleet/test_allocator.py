"""Which free addresses there are: pure arithmetic, judged against counting on one's fingers."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.pools import (
    BadRange,
    Network,
    Span,
    free_addresses,
    from_hex,
    holds,
    is_widened,
    meet,
    name_of,
    parse_range,
    size_of,
    span_of,
    usable,
)

Networks = st.one_of(
    st.integers(8, 30).flatmap(lambda p: st.integers(0, 2**p - 1).map(lambda n: IPv4Network((n << (32 - p), p)))),
    st.integers(120, 126).flatmap(lambda p: st.integers(1, 2**30).map(lambda n: IPv6Network((n << (128 - p), p)))),
)
LOOKED_AT = 300


def spans(pool: Network) -> st.SearchStrategy[list[Span]]:
    """Ranges at the beginning of a pool, which may overlap, and reach beyond it."""
    base = span_of(pool)[0]
    one = st.tuples(st.integers(-3, 60), st.integers(0, 20)).map(lambda s: (base + s[0], base + s[0] + s[1]))
    return st.lists(one, max_size=12).map(sorted)


@given(Networks.flatmap(lambda pool: st.tuples(st.just(pool), spans(pool))))
def test_every_free_address_is_found_in_order_and_none_that_is_taken(case: tuple[Network, list[Span]]) -> None:
    pool, taken = case
    found = [number for number, _ in zip(free_addresses(usable(pool), taken), range(LOOKED_AT), strict=False)]
    first, last = span_of(pool)
    never = {first} | ({last} if pool.version == 4 else set())
    used = {number for low, high in taken for number in range(low, high + 1)}
    expected = [n for n in range(first, min(last, first + 700) + 1) if n not in never | used]
    assert found == expected[: len(found)]
    assert len(found) == min(LOOKED_AT, len(expected))


@given(Networks, st.data())
def test_a_part_of_a_pool_gives_what_both_may(pool: Network, data: st.DataObject) -> None:
    longest = 32 if pool.version == 4 else 128
    prefix = data.draw(st.integers(pool.prefixlen, min(longest, pool.prefixlen + 6)))
    number = data.draw(st.integers(0, 2 ** (prefix - pool.prefixlen) - 1))
    low = span_of(pool)[0] + number * 2 ** (longest - prefix)
    part = type(pool)((int(from_hex(f"{low:032x}")), prefix))
    assert holds(pool, part)
    assert usable(pool, part) == meet(usable(pool), span_of(part))
    assert size_of(usable(pool, part)) >= size_of(span_of(part)) - 2
    assert is_widened(str(part), str(pool)) == (part != pool)
    assert not is_widened(str(pool), str(part))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("10.1.0.7", "10.1.0.7/32"),
        ("10.1.0.0/28", "10.1.0.0 to 10.1.0.15"),
        ("10.1.0.7-10.1.0.19", "10.1.0.7 to 10.1.0.19"),
        ("10.1.0.7 - 10.1.0.7", "10.1.0.7/32"),
        ("fd00::5", "fd00::5/128"),
        ("fd00::/126", "fd00:: to fd00::3"),
    ],
)
def test_a_range_is_read_as_people_write_it(text: str, name: str) -> None:
    assert name_of(parse_range(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "x", "5", "10.1.0.5/28", "10.1.0.9-10.1.0.1", "10.1.0.1-fd00::1", "10.1.0.0/30-10.1.0.9"),
        *("1-2-3", "::ffff:a01:5", "::ffff:10.1.0.5", "fd00::5%eth0", "010.1.0.7", "10.1.0.7\n10.1.0.8", "10.1.0.7;id"),
    ],
)
def test_what_is_no_range_is_refused_with_the_mend(text: str) -> None:
    """A3."""
    with pytest.raises(BadRange):
        parse_range(text)


def test_pools_of_two_families_are_never_one_another() -> None:
    assert not is_widened("10.0.0.0/8", "::/0")
    assert not holds(IPv6Network("fd00::/8"), IPv4Network("10.0.0.0/8"))
