"""The Console as it really runs, for a test: broker, web, worker and beat as processes, on the test's own database."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from celery import Celery
from django.conf import settings
from django.db import connection

from audit.services import SYSTEM
from fleet.models import ApiToken, User
from fleet.tokens import add_token
from peers.models import Device, Person
from tests.lab.machines import Client
from tests.lab.tunnels import new_keypair
from tests.lab.waiting import wait_for
from tests.nodes.lab.scene import Seat

ROOT = Path(__file__).resolve().parents[3]
QUEUES = "nodes.0.revocations,nodes.0"
WORKER = ["worker", "--pool", "threads", "--concurrency", "8", "--queues", QUEUES, "-l", "INFO"]
ALONE = ["--without-mingle", "--without-gossip", "--without-heartbeat"]
START_LIMIT, STOP_LIMIT = 40, 20


class Part:
    """One process of the Console. It dies with the test, whatever happens to that."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, ready: str) -> None:
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._environment, self._ready, self.log = dict(environment), ready, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Begins, and returns at once."""
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=file, stderr=subprocess.STDOUT
            )

    def wait(self) -> None:
        """Until it says that it is ready."""
        wait_for(self._is_ready, START_LIMIT, f"{self.log.name}: {self._ready}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.log.name} says: {self.said()[-2000:]}")
        return self._ready in self.said()

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_LIMIT)
        self._process = None


@dataclass
class Parts:
    """Broker, web, worker and beat, each to be started, stopped and killed by itself."""

    folder: Path
    broker: Part = field(init=False)
    web: Part = field(init=False)
    worker: Part = field(init=False)
    beat: Part = field(init=False)
    token: str = ""

    def __post_init__(self) -> None:
        environment = self._environment()
        celery = [sys.executable, "-m", "celery", "-A", "config"]
        socket_file = str(self.folder / "broker.sock")
        redis_options = ["--port", "0", "--unixsocket", socket_file, "--save", "", "--dir", str(self.folder)]
        web_options = ["--bind", f"unix:{self._web_socket}", "--threads", "4", "--no-control-socket"]
        self.broker = self._part("broker", ["redis-server", *redis_options], environment, "ready to accept connections")
        self.worker = self._part("worker", [*celery, *WORKER, *ALONE], environment, " ready.")
        self.beat = self._part("beat", [*celery, "beat", "-l", "INFO"], environment, "beat: Starting")
        gunicorn = [sys.executable, "-m", "gunicorn", "config.wsgi", *web_options]
        self.web = self._part("web", gunicorn, environment, "Booting worker")

    def _part(self, name: str, command: list[str], environment: Mapping[str, str], ready: str) -> Part:
        return Part(command, environment, self.folder / f"{name}.log", ready)

    @property
    def _web_socket(self) -> Path:
        return self.folder / "web.sock"

    @property
    def _broker_url(self) -> str:
        return f"redis+socket://{self.folder / 'broker.sock'}"

    def _environment(self) -> dict[str, str]:
        own = {"MUSTER_DATA": str(self.folder), "MUSTER_BROKER": self._broker_url}
        return {**console_environment(), **own, "MUSTER_POLL_SECONDS": "3", "MUSTER_TLS": "0"}

    def every(self) -> list[Part]:
        return [self.broker, self.worker, self.beat, self.web]

    def start(self) -> None:
        """All of them, side by side."""
        for part in self.every():
            part.start()
        for part in self.every():
            part.wait()

    def kill(self) -> None:
        for part in self.every():
            part.kill()

    def flush_broker(self) -> None:
        """FLUSHALL: every hint, and every queue, is forgotten."""
        with redis.Redis(unix_socket_path=str(self.folder / "broker.sock")) as client:
            client.flushall()

    def send(self, task: str, *arguments: object, queue: str = "nodes.0") -> None:
        """Delivers a task as any process with the broker's socket could."""
        with Celery("tests", broker=self._broker_url, set_as_current=False) as app:
            app.send_task(task, args=list(arguments), queue=queue)

    def post(self, path: str, **values: object) -> tuple[int, Any]:
        """One call of the API over a real connection: (status, answer)."""
        link = _UnixConnection(str(self._web_socket))
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        link.request("POST", path, body=json.dumps(values), headers={**headers, "Host": "localhost"})
        answer = link.getresponse()
        body = json.loads(answer.read() or b"null")
        link.close()
        return answer.status, body

    def issue(self, person: Person, client: Client, name: str = "laptop") -> Seat:
        """A new device of the person, by the API."""
        pair = new_keypair()
        values = {"person": person.pk, "name": name, "public_key": pair.public_key}
        assert self.post("/api/v1/devices", **values)[0] == 201
        return Seat(person, Device.objects.get(public_key=pair.public_key), pair, client)

    def revoke(self, seat: Seat) -> float:
        """By the API; when it had answered, by time.monotonic()."""
        status, _ = self.post("/api/v1/revocations", device=seat.device.pk, reason="contract ended")
        assert status == 201
        return time.monotonic()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


def console_environment() -> dict[str, str]:
    """What a process needs to work on the test's own database and keyrings."""
    return {
        **os.environ,
        "MUSTER_DATABASE": database_url(),
        "MUSTER_KEYRING_PEERS": str(settings.KEYRING_PEERS),
        "MUSTER_KEYRING_NODES": str(settings.KEYRING_NODES),
        "MUSTER_KEYRING_NODES_PUBLIC": str(settings.KEYRING_NODES_PUBLIC),
    }


def database_url() -> str:
    """The test's own database, as an environment variable names it."""
    values = connection.settings_dict
    name = quote(str(values["NAME"]), safe="/")
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return f"postgresql://{values['USER']}@/{name}?host={quote(str(values['HOST']), safe='/')}"


@contextmanager
def parts(user: User) -> Iterator[Parts]:
    """All parts, with a token for `user`; none of them is running yet."""
    _, token = add_token(actor=SYSTEM, user=user, name="tests", scope=ApiToken.Scope.OPERATE)
    with tempfile.TemporaryDirectory(prefix="muster-parts-") as folder:
        console = Parts(Path(folder), token=token)
        try:
            yield console
        finally:
            for part in reversed(console.every()):
                part.stop()
            print(console.worker.said()[-20_000:])
