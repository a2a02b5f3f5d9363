"""The suite on both databases: `python -m tests.databases [sqlite|postgresql] [PYTEST ARGUMENTS]`; both without a name.

PostgreSQL and Redis are private ones on Unix sockets in a folder of their own, gone when the tests have ended. There
only tests that touch a database run, as the others would do the same again. Both databases are run side by side, each
in several lanes (see tests/lanes.py) with servers and folders of their own; one database alone is one plain pytest.
"""

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

from tests.lab.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
STOP_LIMIT = 20
DATABASES = ("sqlite", "postgresql")
# More than there are cores, as the tests of the lab wait most of their time.
LANES = ("sqlite 1", "sqlite 2", "postgresql 1", "postgresql 2")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Loaded as a plugin for PostgreSQL: leave out what never opens a database."""
    kept = [item for item in items if _touches_database(item)]
    config.hook.pytest_deselected(items=[item for item in items if not _touches_database(item)])
    items[:] = kept


def _touches_database(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("django_db") is not None or bool(fixtures & {"db", "transactional_db"})


@pytest.fixture(scope="session", autouse=True)
def no_swapped_out_table(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """django-auditlog's migrations make its own log's table too, which Django then does not know how to empty."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS auditlog_logentry")


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server for this block; it dies with this process, whatever happens to it."""
    with log.open("wb") as file:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


@contextmanager
def private_redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis that keeps nothing."""
    socket = folder / "redis.sock"
    options = [
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--unixsocketperm",
        "700",
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    with running(["redis-server", *options], folder / "redis.log") as process:
        _wait_for_socket(socket, process, folder / "redis.log")
        yield f"redis+socket://{socket}"


@contextmanager
def private_postgresql(folder: Path, options: Sequence[str] = FAST) -> Iterator[str]:
    """The URL of a PostgreSQL that nobody else can reach; as root it runs as the user postgres."""
    programs, data = _postgresql_programs(), folder / "data"
    owner = _as_postgres() if os.geteuid() == 0 else []
    if owner:
        shutil.chown(folder, "postgres", "postgres")
    subprocess.run(
        [*owner, programs / "initdb", "-D", data, "-U", "muster", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
        check=True,
        cwd=folder,
        capture_output=True,
    )
    command = [
        # What computes gives way to machines and sockets, which look at the clock; it does so in the database, too.
        *("nice", "-n", "5"),
        *owner,
        str(programs / "postgres"),
        "-D",
        str(data),
        "-k",
        str(folder),
        "-c",
        "listen_addresses=",
        *options,
    ]
    log = folder / "postgresql.log"
    with running(command, log) as process:
        _wait_for_socket(folder / ".s.PGSQL.5432", process, log)
        yield f"postgresql://muster@/muster?host={folder}"


def _as_postgres() -> list[str]:
    # Changing the user clears the death signal, so it is asked for again.
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--pdeathsig", "INT"]


def _postgresql_programs() -> Path:
    found = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    for path in filter(None, found):
        return Path(path).resolve().parent
    raise SystemExit("PostgreSQL's initdb is needed: apt-get install postgresql")


def _wait_for_socket(socket: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    def is_there() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{log.name} says: {log.read_text()}")
        return socket.is_socket()

    wait_for(is_there, 30, f"{socket}")


@contextmanager
def environment(database: str) -> Iterator[dict[str, str]]:
    """Variables of a Console on this database, with a data folder of its own."""
    with ExitStack() as stack:
        variables = {**os.environ, "MUSTER_DATA": stack.enter_context(_folder())}
        # The tests start hundreds of Python processes: what one has compiled the others need not.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        if database == "postgresql":
            variables["MUSTER_BROKER"] = stack.enter_context(private_redis(Path(stack.enter_context(_folder()))))
            url = stack.enter_context(private_postgresql(Path(stack.enter_context(_folder()))))
            variables["MUSTER_DATABASE"] = url
        yield variables


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="muster-tests-")


def run(database: str, arguments: Sequence[str]) -> int:
    """Run pytest on one database; its exit status."""
    with environment(database) as variables:
        print(f"--- {database} ---", flush=True)
        # Ctrl-C reaches pytest by itself, and it needs its time to put things back.
        signal.signal(signal.SIGINT, lambda *_: None)
        return subprocess.run(command_on(database, arguments), cwd=ROOT, env=variables, check=False).returncode


def command_on(database: str, arguments: Sequence[str]) -> list[str]:
    plugin = ["-p", "tests.databases"] if database == "postgresql" else []
    return [sys.executable, "-m", "pytest", *plugin, *arguments]


class Lanes:
    """All lanes at once, each with an environment of its own; what pytest says is shown when the last has ended."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder, self.arguments = folder, arguments
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        """0 when every lane ended well: each test was then run, by the lane that had taken its module."""
        for database in DATABASES:
            (self.folder / database).mkdir()
        with ThreadPoolExecutor(len(LANES)) as pool:
            statuses = list(pool.map(self._run_one, LANES))
        for lane in LANES:
            print(f"--- {lane} ---\n{self._log(lane).read_text(errors='replace')}", flush=True)
        return 1 if any(statuses) else 0

    def _run_one(self, lane: str) -> int:
        database = lane.split()[0]
        # In one word each: pytest looks for its settings near any path that stands alone.
        options = ["-p", "tests.lanes", f"--lane={lane}", f"--lanes-of={self.folder / database}"]
        command = command_on(database, [*options, "-p", "no:cacheprovider", "--no-header", *self.arguments])
        with environment(database) as variables, self._log(lane).open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log)
            self.running.append(process)
            return process.wait()

    def _log(self, lane: str) -> Path:
        return self.folder / f"{lane}.log"

    def end(self, _number: int, _frame: object) -> None:
        """Ends the lanes as Ctrl-C does; they take their servers and labs with them."""
        for process in self.running:
            process.send_signal(signal.SIGINT)


def main(words: Sequence[str]) -> int:
    if words[:1] and words[0] in DATABASES:
        return run(words[0], words[1:])
    with _folder() as folder:
        lanes = Lanes(Path(folder), words)
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lanes.end)
        return lanes.run()


if __name__ == "__main__":
    # By default SIGTERM would leave folders behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
