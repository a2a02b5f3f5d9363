"""manage.py rotate_keyring peers|nodes: a new key for all that is sealed, while the Console works on."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from audit.context import acting_from
from audit.services import SYSTEM
from fleet.keyrings import KEYRINGS
from fleet.rotation import STEPS, RotationStopped, rotate_keyring
from fleet.sealing import SealBroken

HELP = """Give a keyring a new key, seal every row with it, and take the old keys out of the file.

Web, workers and pushes work on meanwhile. Cut short anywhere, it goes on when it is run again. Where the Console's
parts have copies of the file on several machines, take the steps one by one on one of them, and after each copy the
file to all others (with owner and rights as it has there):

  --step add    the new key is there and opens; nothing is sealed with it yet
  --step seal   the new key seals
  --step drop   every row is sealed anew, and the old keys are gone; a copy that still has them seals with them no more

Keep a copy of the old file for as long as you keep backups of the database that are older than the rotation.
"""


class Command(BaseCommand):
    help = HELP

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keyring", choices=KEYRINGS)
        parser.add_argument("--step", choices=STEPS, default="", help="only this one (default: all that are due)")
        told = "give up what no key opens, instead of keeping the old keys for it"
        parser.add_argument("--clear-broken", action="store_true", help=told)

    def handle(self, *args: Any, keyring: str, step: str, clear_broken: bool, **options: Any) -> None:
        try:
            with acting_from("command", "rotate_keyring"):
                rotate_keyring(actor=SYSTEM, keyring=keyring, step=step, clears_broken=clear_broken, say=self._say)
        except (RotationStopped, SealBroken) as error:
            raise CommandError(str(error)) from None

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
