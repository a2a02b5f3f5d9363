"""A broker that is dead or silent costs whoever acts less than a second, and the act stands."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: Celery reads its broker once. It prints the seconds that one hint took.
HINT = """
import time, django
django.setup()
from fleet.changes import DRAIN, _send
began = time.monotonic()
_send(DRAIN, 0, "nodes.0")
print(time.monotonic() - began)
"""


@contextmanager
def silent(path: Path) -> Iterator[None]:
    """Takes every connection and never says a word."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        yield


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """The socket of a broker that died."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    yield


@contextmanager
def missing(path: Path) -> Iterator[None]:
    yield


@pytest.mark.alone
@pytest.mark.parametrize("broker", [silent, refusing, missing])
def test_a_hint_to_a_broker_that_does_not_answer_is_soon_given_up(broker: object, tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "MUSTER_DATA": str(tmp_path),
        "MUSTER_BROKER": f"redis+socket://{path}",
    }
    with broker(path):  # type: ignore[operator]
        done = subprocess.run(
            [sys.executable, "-c", HINT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
    assert "no hint for shard 0" in done.stderr


def test_tasks_are_json_and_leave_no_result() -> None:
    """B15: no pickle"""
    assert settings.BROKER_URL.startswith("redis")
    assert (current_app.conf.task_serializer, list(current_app.conf.accept_content)) == ("json", ["json"])
    assert current_app.conf.task_ignore_result is True
