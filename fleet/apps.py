"""Puts the database's own refusal of overlap in place, which SQLite needs again after each migrate."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate

from fleet import overlap


def after_migrate(using: str, **kwargs: Any) -> None:
    overlap.put_in_place(connections[using])


class FleetConfig(AppConfig):
    name = "fleet"

    def ready(self) -> None:
        post_migrate.connect(after_migrate, sender=self, dispatch_uid="fleet.overlap")
