"""How the entries of a node's journal follow each other; pure."""

from dataclasses import dataclass

from nodes.observe import Entry

FIRST = "0" * 64


@dataclass(frozen=True)
class Cursor:
    """How far a journal was read: the number of the last entry, and its hash."""

    seq: int = 0
    hash: str = ""


def after(kept: Cursor, entry: Entry) -> Cursor:
    """Never backwards, or a journal whose numbers do could be read for ever."""
    return Cursor(entry.seq, entry.hash) if entry.seq > kept.seq else kept


def fault(kept: Cursor, entry: Entry) -> str:
    """Empty where `entry` follows what was read, else what is wrong. Of a journal that was never read, the oldest
    entries may be forgotten: another Console had them."""
    if not kept.seq:
        is_good = entry.seq > 1 or (entry.seq == 1 and entry.previous == FIRST)
        return "" if is_good else f"its first entry, {entry.seq}, continues from another one."
    if entry.seq != kept.seq + 1:
        return f"entry {entry.seq} came after entry {kept.seq}."
    if entry.previous != kept.hash:
        return f"entry {entry.seq} does not continue from entry {kept.seq} as that was read."
    return ""
