"""Which tombstones a server has not had yet: a cursor for each server, outside generation and digest."""

import datetime as dt
from dataclasses import dataclass

from django.utils import timezone

from fleet.models import ServerStatus
from peers.models import Tombstone

BATCH = 1000
# Ids are given before they are committed: a row younger than this may still be overtaken by a smaller id.
SETTLING = dt.timedelta(minutes=1)


@dataclass(frozen=True)
class Batch:
    """Keys to hand over, as the protocol carries them, and the cursor once the node has taken them."""

    keys: list[dict[str, str]]
    cursor: int

    def was_taken(self, server_id: int) -> None:
        waiting = ServerStatus.objects.filter(server=server_id, tombstone_cursor__lt=self.cursor)
        waiting.update(tombstone_cursor=self.cursor)


def due_tombstones(server_id: int) -> Batch:
    """None for a server that the Console only looks at: it would refuse them."""
    columns = ("tombstone_cursor", "server__is_observe_only")
    cursor, is_observe_only = ServerStatus.objects.values_list(*columns).get(server=server_id)
    if is_observe_only:
        return Batch([], cursor)
    found = list(Tombstone.objects.filter(pk__gt=cursor).select_related("revocation").order_by("pk")[:BATCH])
    settled = [row.pk for row in found if row.created_at < timezone.now() - SETTLING]
    keys = [{"public_key": row.public_key, "reason": row.revocation.reason} for row in found]
    return Batch(keys, max(settled, default=cursor))
