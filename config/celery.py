"""The Celery app, its queues and the beat schedule. The broker carries hints; the truth is in the database."""

import os
import sys

from celery import Celery, signals
from django.conf import settings

from config.start import fault_of

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("muster")
app.conf.update(
    broker_url=settings.BROKER_URL,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # A silent broker must cost a person nothing: what they did is already committed, the sweep will find it.
    broker_transport_options={
        **{"socket_timeout": 0.2, "socket_connect_timeout": 0.2},
        **{"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0},
    },
    task_publish_retry=False,
    task_ignore_result=True,
    task_acks_late=True,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    task_default_queue="nodes.0",
    beat_schedule={
        f"{name}-{shard}": {
            "task": f"nodes.tasks.{name}",
            "schedule": seconds,
            "args": [shard],
            # A hint that waited for longer than its own interval says nothing any more.
            "options": {"queue": f"nodes.{shard}", "expires": seconds},
        }
        for shard in range(settings.SHARDS)
        for name, seconds in (("sweep", 15.0), ("poll", float(settings.POLL_SECONDS)))
    },
    beat_schedule_filename=str(settings.DATA_DIR / "beat-schedule"),
)
app.autodiscover_tasks(["nodes"])


def refuse_wrong_keyrings(**_: object) -> None:
    fault = fault_of("peers", "nodes")
    if fault:
        sys.exit(fault)


# Workers alone: beat and whoever sends a hint open nothing.
signals.worker_init.connect(refuse_wrong_keyrings)
