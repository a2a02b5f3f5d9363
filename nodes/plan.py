"""What a push changes, and how much of it no single decision covers; pure."""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable

from nodes.state import Removal

FLOOR = 5
SHARE = 10  # one in ten


def brake_limit(held: int) -> int:
    """How many undecided removals one push may make on a server that holds `held` peers."""
    return max(FLOOR, held // SHARE)


def undecided(removals: Iterable[Removal], approved: Collection[uuid.UUID]) -> Counter[uuid.UUID]:
    """Cause -> peers it would remove that neither one person's case nor an approval covers."""
    return Counter(removal.act for removal in removals if not removal.is_decided and removal.act not in approved)


def is_braked(causes: Counter[uuid.UUID], held: int) -> bool:
    return causes.total() > brake_limit(held)
