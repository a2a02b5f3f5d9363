"""The one seam to the right: desired state changed, so the generation grows and, on commit, a hint goes out by name."""

import logging
from collections.abc import Iterable

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import F
from kombu.exceptions import OperationalError

from fleet.models import Server

logger = logging.getLogger(__name__)

DRAIN = "nodes.tasks.drain"
SETTLE = "nodes.tasks.settle"
DRAIN_REVOCATIONS = "nodes.tasks.drain_revocations"


def lock_servers(ids: Iterable[int]) -> list[Server]:
    """The servers, locked in one order by all, so that two changes wait for each other and never deadlock."""
    return list(Server.objects.select_for_update(of=("self",)).filter(pk__in=set(ids)).order_by("pk"))


def hold_servers(ids: Iterable[int]) -> None:
    """Locks as `lock_servers` does, where nothing of them is asked."""
    list(Server.objects.select_for_update().filter(pk__in=set(ids)).order_by("pk").values_list("pk"))


def mark_changed(server_ids: Iterable[int]) -> None:
    """Desired state of these servers changed. Call it last in the transaction."""
    ids = set(server_ids)
    raise_generation(ids)
    hint(DRAIN, ids)


def raise_generation(server_ids: Iterable[int]) -> None:
    """As `mark_changed`, where the caller gives the hint itself: the push after a revoke must not race with it."""
    Server.objects.filter(pk__in=set(server_ids)).update(generation=F("generation") + 1)


def outgrow(server_id: int, generation: int) -> None:
    """Where this generation is still the newest: what is pushed next is of another one."""
    Server.objects.filter(pk=server_id, generation=generation).update(generation=F("generation") + 1)


def hint(task: str, server_ids: Iterable[int]) -> None:
    """Ask workers to look soon. A lost hint loses nothing: the sweep finds what is due."""
    for shard in sorted({pk % settings.SHARDS for pk in server_ids}):
        queue = f"nodes.{shard}.revocations" if task == DRAIN_REVOCATIONS else f"nodes.{shard}"
        transaction.on_commit(lambda s=shard, q=queue: _send(task, s, q), robust=True)  # type: ignore[misc]


def _send(task: str, shard: int, queue: str) -> None:
    try:
        current_app.send_task(task, args=[shard], queue=queue, retry=False, expires=60)
    except (OperationalError, OSError) as error:
        logger.warning("no hint for shard %s (%s): the sweep will find it", shard, type(error).__name__)
