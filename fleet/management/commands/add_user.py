"""manage.py add_user NAME: a sign-in to the Console; the password never stands on a command line."""

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from audit.context import acting_from
from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.services import add_user, give_role


class Command(BaseCommand):
    help = "Add a user. The password is asked for, or is the first line of stdin where that is no terminal."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--email", default="")
        rights = parser.add_mutually_exclusive_group(required=True)
        rights.add_argument("--admin", action="store_true", help="may do everything")
        rights.add_argument("--role", choices=Role.Name.values, help="for --environment, or everywhere without it")
        parser.add_argument("--environment", metavar="NAME", help="where the role holds; every environment if left out")

    def handle(self, *args: Any, username: str, email: str, admin: bool, role: str | None, **options: Any) -> None:
        if admin and options["environment"]:
            raise CommandError("--environment is for --role: an administrator may do everything everywhere.")
        environment = _environment(options["environment"])
        password = _password()
        try:
            validate_password(password, User(username=username, email=email))
            with acting_from("command", "add_user"), transaction.atomic():
                user = add_user(actor=SYSTEM, username=username, email=email, password=password, is_superuser=admin)
                if role:
                    give_role(actor=SYSTEM, user=user, name=role, environment=environment)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(f"{user} can sign in.")


def _environment(name: str | None) -> Environment | None:
    if name is None:
        return None
    found = Environment.objects.filter(name=name).first()
    if found is None:
        raise CommandError(f"No environment is called {name}.")
    return found


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise CommandError("The two passwords differ.")
    return password
