"""What a push changes, and how much of it no single decision covers; pure."""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from nodes.state import Content, Desired, Removal

FLOOR = 5
SHARE = 10  # one in ten


def brake_limit(held: int) -> int:
    """How many undecided removals one push may make on a server that holds `held` peers."""
    return max(FLOOR, held // SHARE)


def undecided(removals: Iterable[Removal], approved: Collection[uuid.UUID]) -> Counter[uuid.UUID]:
    """Cause -> peers it would remove that neither one person's case nor an approval covers."""
    return Counter(removal.act for removal in removals if removal.stays and removal.act not in approved)


def is_braked(causes: Counter[uuid.UUID], held: int) -> bool:
    return causes.total() > brake_limit(held)


def hold_in(desired: Desired, acts: Collection[uuid.UUID]) -> Desired:
    """What goes out meanwhile: the peers that these acts would remove stay as they are, all else is as wanted."""
    held = tuple(one for one in (*desired.removals, *desired.shut) if one.stays and one.act in acts)
    peers = {**desired.content.peers, **{one.public_key: one.stays for one in held if one.stays}}
    for one in held:
        if one.heir in peers and one.heir != one.public_key:  # while the old key is there, the addresses are its own
            peers[one.heir] = replace(peers[one.heir], replaces=one.public_key)
    ids = {one.peer_id for one in held}
    return replace(
        desired,
        content=Content(desired.content.interface, peers),
        removals=tuple(one for one in desired.removals if one.peer_id not in ids),
        shut=tuple(one for one in desired.shut if one.peer_id not in ids),
        held=held,
    )
