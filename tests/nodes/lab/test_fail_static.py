"""With the whole Console gone, tunnels stay as they are. Takes more than three minutes: a rekey has to pass."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import OperationalError, connection, connections

from fleet.models import Environment
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import Parts
from tests.nodes.lab.scene import Scene, contractor

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

WATCH = 200


@contextmanager
def database_stopped() -> Iterator[None]:
    """PostgreSQL's processes stand still. SQLite has none of its own: what would ask it is dead already."""
    if connection.vendor == "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        folder = Path(cursor.fetchone()[0])
    first = (folder / "postmaster.pid").read_text().split()[0]
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", first], capture_output=True, text=True, check=True)
    pids = [int(pid) for pid in (first, *children.stdout.split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert not postgresql_answers()
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def postgresql_answers() -> bool:
    other = connections.create_connection("default")
    other.settings_dict["OPTIONS"] = {**other.settings_dict["OPTIONS"], "connect_timeout": 2}
    try:
        other.ensure_connection()
    except OperationalError:
        return False
    other.close()
    return True


def test_tunnels_stay_up_past_a_rekey_with_no_console_at_all(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, production: Environment
) -> None:
    """E11, F7: web, worker, beat and broker killed, the database stopped; not a packet is lost for 200 s."""
    dave = console.issue(contractor(staging, production, name="Dave"), lab.add_clients(1)[0])
    fleet.wait_in_sync()
    fleet.connect(dave, rate=20)
    handshakes = [int(moment) for moment in fleet.handshakes(dave)]
    console.kill()
    fleet.console.crew.close()
    with database_stopped():
        began = time.monotonic()
        wait_for(lambda: time.monotonic() > began + WATCH, WATCH + 5, "the watch to end", interval=1)
    assert dave.lost(began, began + WATCH) == [0, 0, 0]
    renewed = [int(moment) for moment in fleet.handshakes(dave)]
    assert [new - old >= 100 for old, new in zip(handshakes, renewed, strict=True)] == [True, True, True]
