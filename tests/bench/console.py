"""A real Console for the benchmark: web, broker, worker and beat as `manage.py up` starts them, driven over HTTP."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.lab.machines import Server
from tests.lab.tunnels import dummy_public_keys
from tests.lab.waiting import wait_for

PORT = 8321
TOKEN_SCRIPT = """
from audit.services import SYSTEM
from fleet.services import add_user
from fleet.tokens import add_token
user = add_user(actor=SYSTEM, username="bench", email="bench@example.com", password=None, is_superuser=True)
print(add_token(actor=SYSTEM, user=user, name="bench", scope="operate")[1])
"""


@dataclass
class BenchConsole:
    """The API of a running Console, and its database file to see receipts the moment they are committed."""

    data: Path
    process: subprocess.Popen[bytes]
    token: str = ""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read()[:500]!r}") from None

    def query(self, sql: str, *values: object) -> Any:
        with closing(sqlite3.connect(f"file:{self.data}/muster.sqlite3?mode=ro", uri=True)) as database:
            return database.execute(sql, values).fetchone()[0]

    def pending(self) -> int:
        return int(self.query("SELECT count(*) FROM peers_receipt WHERE confirmed_at IS NULL"))

    def moment(self, expression: str, revocation: str) -> float:
        """A time of the revocation's receipts, in seconds since 1970."""
        text = self.query(f"SELECT {expression} FROM peers_receipt WHERE revocation_id = ?", revocation)
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    def behind(self) -> int:
        """How many servers have not confirmed their newest generation."""
        return int(
            self.query(
                "SELECT count(*) FROM fleet_server s JOIN fleet_serverstatus t ON t.server_id = s.id "
                "WHERE t.observed_generation < s.generation"
            )
        )

    def worker_pid(self) -> int:
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "celery.* worker"], capture_output=True, text=True, check=True
        )
        return int(found.stdout.split()[0])


def manage(data: Path, *words: str, text: str = "") -> str:
    command = [sys.executable, "manage.py", *words]
    env = {**os.environ, "MUSTER_DATA": str(data), "MUSTER_TLS": "0"}
    done = subprocess.run(command, env=env, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"manage.py {words[0]}: {done.stderr[-800:]}")
    return done.stdout


@contextmanager
def running_console(data: Path) -> Iterator[BenchConsole]:
    env = {**os.environ, "MUSTER_DATA": str(data), "MUSTER_TLS": "0", "MUSTER_LOG_LEVEL": "WARNING"}
    with (data / "up.log").open("wb") as log:
        command = [sys.executable, "manage.py", "up", "--bind", f"127.0.0.1:{PORT}"]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        console = BenchConsole(data, process)
        try:
            wait_for(lambda: _answers(console), 60, f"the Console to answer; see {data}/up.log")
            console.token = manage(data, "shell", "-v0", "-c", TOKEN_SCRIPT).split()[-1]
            yield console
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _answers(console: BenchConsole) -> bool:
    if console.process.poll() is not None:
        raise RuntimeError(f"the Console ended: {(console.data / 'up.log').read_text()[-1500:]}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def populate(console: BenchConsole, servers: list[Server], ssh_key: str, people: int) -> list[int]:
    """People with a grant and a device each, then the servers, enrolled over the API. The devices' ids."""
    environment = console.call("POST", "environments", {"name": "bench"})["id"]
    devices = [_person(console, environment, key) for key in dummy_public_keys(people, seed=7)]
    enrolments = [_server(console, environment, machine, ssh_key) for machine in servers]
    wait_for(lambda: not _unfinished(console, enrolments), 600, "all servers to be enrolled")
    wait_for(lambda: console.behind() == 0, 300, "all servers to hold their peers")
    return devices


def _person(console: BenchConsole, environment: int, public_key: str) -> int:
    person = console.call("POST", "people", {"name": f"Person {public_key[:6]}"})["id"]
    console.call("POST", "grants", {"person": person, "environment": environment, "reason": "benchmark"})
    device = {"person": person, "name": "laptop", "public_key": public_key}
    return int(console.call("POST", "devices", device)["id"])


def _server(console: BenchConsole, environment: int, machine: Server, ssh_key: str) -> str:
    number = int(machine.name.removeprefix("s"))
    row = console.call(
        "POST",
        "servers",
        {
            "name": machine.name,
            "environment": environment,
            "host": machine.address,
            "endpoint_host": machine.address,
            "ipv4_pool": f"10.{number}.0.0/16",
            "ipv6_pool": f"fd00:{number:x}::/64",
        },
    )
    login = {"host_key": machine.host_key, "user": "root", "private_key": ssh_key}
    return str(console.call("POST", f"servers/{row['id']}/enrol", login)["id"])


def _unfinished(console: BenchConsole, enrolments: list[str]) -> int:
    failed = console.query("SELECT group_concat(error) FROM nodes_enrolment WHERE state = 'failed'")
    if failed:
        raise RuntimeError(f"enrolment failed: {failed[:800]}")
    return len(enrolments) - int(console.query("SELECT count(*) FROM nodes_enrolment WHERE state = 'done'"))


@dataclass(frozen=True)
class Timing:
    """Seconds from the API call: its answer, the first and the last group of receipts written, and all of it seen."""

    answered: float
    first_receipts: float
    last_receipts: float
    seen: float


def revoke(console: BenchConsole, device: int, servers: int) -> Timing:
    """From the API call to the last receipt, as any reader of the database sees it."""
    wall, began = time.time(), time.monotonic()
    answer = console.call("POST", "revocations", {"device": device, "reason": "benchmark"})
    answered = time.monotonic()
    wait_for(lambda: console.pending() == 0, 30, "all receipts")
    done = time.monotonic()
    if len(answer["receipts"]) != servers:
        raise RuntimeError(f"{len(answer['receipts'])} receipts for {servers} servers")
    row = answer["id"].replace("-", "")
    first, last = (console.moment(f"{which}(confirmed_at)", row) - wall for which in ("min", "max"))
    return Timing(answered - began, first, last, done - began)
