"""Where a key, an address or a name was ever seen, first and last: in rows past and present, and in Events."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from peers.address_traces import address_traces
from peers.history import MOST_ROWS
from peers.key_traces import key_traces
from peers.name_traces import name_traces
from peers.trace import Trace

KINDS: dict[str, Callable[[object, str], Iterator[Iterable[Trace]]]] = {
    "key": key_traces,
    "address": address_traces,
    "name": name_traces,
}


@dataclass(frozen=True)
class Traces:
    """`is_cut` says that there are more of a kind than are told: ask for something narrower."""

    rows: list[Trace]
    is_cut: bool

    @property
    def first(self) -> dt.datetime | None:
        return min((one.first for one in self.rows if one.first), default=None)

    @property
    def last(self) -> dt.datetime | None:
        """The latest time that is known of; None where nothing was found or it is there to this day."""
        ends = [one.last for one in self.rows]
        return None if None in ends else max((end for end in ends if end), default=None)


def traces_of(user: object, kind: str, text: str) -> Traces:
    """`kind` is key, address or name. ValidationError names what is too short or none."""
    found = [list(rows) for rows in KINDS[kind](user, text.strip())]
    rows = [one for many in found for one in many[:MOST_ROWS]]
    rows.sort(key=lambda one: (one.first is None, one.first or dt.datetime.max.replace(tzinfo=dt.UTC)))
    return Traces(rows, any(len(many) > MOST_ROWS for many in found))
