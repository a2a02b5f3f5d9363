"""Each process of the Console by itself: with a wrong keyring it does not start, says why, and writes nothing."""

import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings

from fleet.models import Environment
from fleet.sealing import Keyring, new_key
from nodes.targets import keep, new_key_for
from tests.build import make_peers, make_server
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import QUEUES, Part, console_environment
from tests.running import free_port
from tests.worlds import everything

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
MEND = "put the file back that belongs to this database."


@pytest.fixture
def console(own_keyrings: Path, staging: Environment) -> Iterator[dict[str, str]]:
    """The environment of a process on a database with three sealed preshared keys and a sealed login key."""
    settings.KEYRING_PEERS.write_text(Keyring({"k1": b"1" * 32}).text())
    server = make_server(staging)
    make_peers(staging, 3)
    keep(new_key_for(server), server=server)
    with tempfile.TemporaryDirectory(prefix="muster-wrong-") as folder:
        broker = f"redis+socket://{folder}/broker.sock"
        yield {**console_environment(), "MUSTER_DATA": folder, "MUSTER_BROKER": broker, "MUSTER_TLS": "0"}


def web() -> list[str]:
    bind = f"127.0.0.1:{free_port()}"
    return [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", bind, "--no-control-socket"]


def worker() -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "config", "worker", "--pool", "threads", "--queues", QUEUES]


def up() -> list[str]:
    return [sys.executable, "manage.py", "up", "--bind", f"127.0.0.1:{free_port()}"]


def lose(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_text(path.read_text()[:-10])


def replace(path: Path) -> None:
    path.write_text(Keyring(new_key()).text())


def give_its_name_to_another(path: Path) -> None:
    path.write_text(Keyring({"k1": b"2" * 32}).text())


@pytest.mark.parametrize(
    ("process", "status", "keyring", "fault", "what"),
    [
        (web, 3, "peers", lose, "PATH cannot be read (No such file or directory). 3 rows"),
        (web, 3, "peers", give_its_name_to_another, "the key k1 of PATH does not open the 3 rows of"),
        (worker, 1, "peers", replace, "PATH lacks the key k1, which 3 rows of peers_peer.preshared_key are"),
        (worker, 1, "nodes", damage, "PATH holds no keyring, or a damaged one. 1 rows"),
        (up, 1, "nodes", lose, "PATH cannot be read (No such file or directory). 1 rows"),
        (up, 1, "peers", replace, "PATH lacks the key k1, which 3 rows of peers_peer.preshared_key are"),
    ],
    ids=["web-lost", "web-another-key", "worker-replaced", "worker-nodes-damaged", "up-nodes-lost", "up-replaced"],
)
def test_a_wrong_keyring_stops_the_start_and_nothing_is_written(
    console: dict[str, str],
    process: Callable[[], list[str]],
    status: int,
    keyring: str,
    fault: Callable[[Path], None],
    what: str,
) -> None:
    """C7"""
    path = settings.KEYRING_PEERS if keyring == "peers" else settings.KEYRING_NODES
    before, right = everything(), path.read_text()
    fault(path)
    wrong = path.read_bytes() if path.exists() else b""
    done = subprocess.run(process(), cwd=ROOT, env=console, check=False, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if "The keyring" in line]
    assert done.returncode == status
    assert len(said) == 1
    assert f"The keyring {keyring} is wrong: {what.replace('PATH', str(path))}" in said[0]
    assert said[0].endswith(MEND)
    assert "Traceback" not in done.stderr + done.stdout
    assert everything() == before
    assert (path.read_bytes() if path.exists() else b"") == wrong
    path.write_text(right)
    assert everything() == before


def is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_web_is_not_asked_for_the_keyring_of_the_workers(console: dict[str, str]) -> None:
    """And starts with its own, the right one; its neighbour in the same state does not."""
    own = {**console, "MUSTER_KEYRING_NODES": os.devnull}
    command = web()
    part = Part(command, own, Path(console["MUSTER_DATA"]) / "web.log", "Booting worker")
    part.start()
    try:
        part.wait()
        wait_for(lambda: is_healthy(command[command.index("--bind") + 1]), 30, "an answer from /healthz", interval=0.05)
    finally:
        part.stop()
    before = everything()
    done = subprocess.run(worker(), cwd=ROOT, env=own, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, everything()) == (1, before)
    assert f"The keyring nodes is wrong: {os.devnull} holds no keyring" in done.stderr
