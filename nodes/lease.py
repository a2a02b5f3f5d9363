"""One reconcile per server at a time, by compare-and-swap. It saves work; the node's fence is what is safe."""

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from nodes.models import Lease

HOLD = dt.timedelta(seconds=15)


@contextlib.contextmanager
def lease(server_id: int) -> Iterator[bool]:
    """Yields whether this caller has the server now. It runs out by itself when the holder dies."""
    holder = uuid.uuid4()
    is_ours = _claim(server_id, holder)
    try:
        yield is_ours
    finally:
        if is_ours:
            Lease.objects.filter(server=server_id, holder=holder).update(holder=None, until=timezone.now())


def _claim(server_id: int, holder: uuid.UUID) -> bool:
    now = timezone.now()
    free = Lease.objects.filter(Q(holder=None) | Q(until__lte=now), server=server_id)
    if free.update(holder=holder, until=now + HOLD):
        return True
    try:
        with transaction.atomic():
            Lease.objects.create(server_id=server_id, holder=holder, until=now + HOLD)
    except IntegrityError:
        return False
    return True
