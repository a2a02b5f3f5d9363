"""manage.py enrol_server NAME: put muster-node on a machine, with a one-time login read from a file or the terminal."""

import getpass
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from audit.context import acting_from
from audit.services import SYSTEM
from fleet.models import Server
from nodes.crew import Crew
from nodes.enrol import carry_out, claim
from nodes.models import Enrolment
from nodes.services import request_enrolment


class Command(BaseCommand):
    help = "Enrol a server that was added before. The login is used once; the password never stands on a command line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("server", help="the server's name")
        parser.add_argument("--host-key", required=True, help="host key or SHA256 fingerprint, as read on the machine")
        parser.add_argument("--user", default="root", help="login on the machine (default: root)")
        parser.add_argument("--key", type=Path, help="private key file; without it a password is asked for")

    def handle(self, *args: Any, server: str, host_key: str, user: str, key: Path | None, **options: Any) -> None:
        row = Server.objects.filter(name=server).first()
        if row is None:
            raise CommandError(f"No server is called {server}: add it first.")
        password = "" if key else _password()
        private_key = _read(key) if key else ""
        with acting_from("command", "enrol_server"):
            enrolment = _run(row, host_key, user, password, private_key)
        self.stdout.write(enrolment.progress.rstrip())
        if enrolment.state != Enrolment.State.DONE:
            raise CommandError(enrolment.error)
        row.refresh_from_db()
        self.stdout.write(
            f"{row.name} is enrolled. Its public key is {row.public_key}, its endpoint {row.endpoint} (UDP)."
        )


def _password() -> str:
    return getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


def _read(key: Path) -> str:
    try:
        return key.read_text()
    except (OSError, UnicodeDecodeError):
        raise CommandError(f"{key} cannot be read: give the file of an unencrypted private key.") from None


def _run(server: Server, host_key: str, user: str, password: str, private_key: str) -> Enrolment:
    crew = Crew()
    try:
        # Claimed before it is committed: no worker sees it wait.
        with transaction.atomic():
            enrolment = request_enrolment(
                actor=SYSTEM, server=server, host_key=host_key, user=user, password=password, private_key=private_key
            )
            claim(str(enrolment.pk))
        carry_out(str(enrolment.pk), crew.pool)
    except ValidationError as error:
        raise CommandError("; ".join(error.messages)) from None
    finally:
        crew.close()
    enrolment.refresh_from_db()
    return enrolment
