"""manage.py add_token USER NAME: a script's way into the API; the token is printed once and kept nowhere."""

import datetime as dt
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from audit.context import acting_from
from audit.services import SYSTEM
from fleet.models import ApiToken, User
from fleet.tokens import add_token


class Command(BaseCommand):
    help = "Add an API token that acts as USER, and print it. Send it as `Authorization: Bearer TOKEN`."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("name", help="what the token is called in the ledger")
        parser.add_argument("--scope", choices=ApiToken.Scope.values, default=ApiToken.Scope.READ)
        parser.add_argument("--days", type=int, default=90, help="how long it works (default: 90)")

    def handle(self, *args: Any, username: str, name: str, scope: str, days: int, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"No user is called {username}.")
        if not 1 <= days <= 3650:
            raise CommandError("Give 1 to 3650 days.")
        expires_at = timezone.now() + dt.timedelta(days=days)
        try:
            with acting_from("command", "add_token"):
                _, text = add_token(actor=SYSTEM, user=user, name=name, scope=scope, expires_at=expires_at)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(text)
