"""manage.py make_keyrings: the two keyrings, where there are none yet; what is there is never touched."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from fleet.keyrings import KEYRINGS, check_keyring
from fleet.sealing import KeyringBroken, make_keyring, make_nodes_keyring


class Command(BaseCommand):
    help = "Make the keyrings `peers` (web and workers) and `nodes` (workers only) with its public half for the web."

    def handle(self, *args: Any, **options: Any) -> None:
        self._refuse_where_rows_need_another()
        made = {
            settings.KEYRING_PEERS: make_keyring(settings.KEYRING_PEERS),
            settings.KEYRING_NODES: make_nodes_keyring(settings.KEYRING_NODES, settings.KEYRING_NODES_PUBLIC),
        }
        for path, is_new in made.items():
            self.stdout.write(f"{path}: {'made' if is_new else 'was there already'}")

    def _refuse_where_rows_need_another(self) -> None:
        """A new keyring in the place of one that is lost would open nothing, and hide that it is lost."""
        try:
            for keyring in KEYRINGS:
                check_keyring(keyring)
        except KeyringBroken as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"The database does not say whether rows are sealed already: {error}".strip()) from None
