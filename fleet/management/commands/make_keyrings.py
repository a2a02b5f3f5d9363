"""manage.py make_keyrings: the two keyrings, where there are none yet; what is there is never touched."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from fleet.sealing import make_keyring, make_nodes_keyring


class Command(BaseCommand):
    help = "Make the keyrings `peers` (web and workers) and `nodes` (workers only) with its public half for the web."

    def handle(self, *args: Any, **options: Any) -> None:
        made = {
            settings.KEYRING_PEERS: make_keyring(settings.KEYRING_PEERS),
            settings.KEYRING_NODES: make_nodes_keyring(settings.KEYRING_NODES, settings.KEYRING_NODES_PUBLIC),
        }
        for path, is_new in made.items():
            self.stdout.write(f"{path}: {'made' if is_new else 'was there already'}")
