"""Triggers that make the ledger append-only, put in place after each migrate (SQLite drops them with a table)."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

TABLE = "audit_event"
REFUSAL = "the ledger is append-only"

SQLITE = [
    f"CREATE TRIGGER IF NOT EXISTS {TABLE}_no_{name} BEFORE {name.upper()} ON {TABLE} "
    f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    for name in ("update", "delete")
]
POSTGRESQL = [
    f"CREATE OR REPLACE FUNCTION {TABLE}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
    f"CREATE OR REPLACE TRIGGER {TABLE}_no_update BEFORE UPDATE OR DELETE ON {TABLE} "
    f"FOR EACH ROW EXECUTE FUNCTION {TABLE}_refuse()",
    f"CREATE OR REPLACE TRIGGER {TABLE}_no_delete BEFORE TRUNCATE ON {TABLE} "
    f"FOR EACH STATEMENT EXECUTE FUNCTION {TABLE}_refuse()",
]


def put_in_place(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        for statement in SQLITE if connection.vendor == "sqlite" else POSTGRESQL:
            cursor.execute(statement)


def lift(connection: BaseDatabaseWrapper) -> None:
    """For the test set-up alone, which must empty tables between tests."""
    on = "" if connection.vendor == "sqlite" else f" ON {TABLE}"
    with connection.cursor() as cursor:
        for name in ("update", "delete"):
            cursor.execute(f"DROP TRIGGER IF EXISTS {TABLE}_no_{name}{on}")


def is_in_place(connection: BaseDatabaseWrapper) -> bool:
    catalogue = (
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s AND name IN (%s, %s)"
        if connection.vendor == "sqlite"
        # O and A fire for everybody; D is off, and R fires in a replica alone.
        else "SELECT count(*) FROM pg_trigger WHERE tgenabled IN ('O', 'A')"
        " AND tgrelid = to_regclass(%s) AND tgname IN (%s, %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute(catalogue, [TABLE, f"{TABLE}_no_update", f"{TABLE}_no_delete"])
        row = cursor.fetchone()
    return bool(row and row[0] == 2)


@register(Tags.database)
def check_append_only(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """audit.E001: somebody, or a table that SQLite remade, took the triggers away."""
    messages: list[CheckMessage] = []
    for alias in databases or []:
        connection = connections[alias]
        if TABLE in connection.introspection.table_names() and not is_in_place(connection):
            messages.append(Error("The ledger is not append-only.", hint="Run manage.py migrate.", id="audit.E001"))
    return messages
