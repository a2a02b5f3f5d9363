"""The database's own refusal of overlapping address ranges on one server, while they are not released."""

from django.db.backends.base.base import BaseDatabaseWrapper

TABLE = "fleet_addressrange"
REFUSAL = "address range overlaps another on this server"

# Those that are there do not overlap: of all that begin before the new one ends, the last alone may reach into it.
_CLASH = (
    f"SELECT 1 FROM (SELECT last FROM {TABLE} WHERE server_id = NEW.server_id AND released_at IS NULL "
    "AND id IS NOT NEW.id AND first <= NEW.last ORDER BY first DESC LIMIT 1) WHERE last >= NEW.first"
)
SQLITE = [
    statement
    for name, when in (("insert", "INSERT"), ("update", "UPDATE OF id, server_id, first, last, released_at"))
    for statement in (
        f"DROP TRIGGER IF EXISTS {TABLE}_overlap_{name}",
        f"CREATE TRIGGER {TABLE}_overlap_{name} BEFORE {when} ON {TABLE} "
        f"WHEN NEW.released_at IS NULL AND EXISTS ({_CLASH}) BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    )
]
POSTGRESQL = [
    "CREATE EXTENSION IF NOT EXISTS btree_gist",
    """DO $$ BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'hexrange') THEN
            CREATE TYPE hexrange AS RANGE (subtype = text, collation = "C");
        END IF;
    END $$""",
    f"""DO $$ BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = '{TABLE}_overlap') THEN
            ALTER TABLE {TABLE} ADD CONSTRAINT {TABLE}_overlap EXCLUDE USING gist
                (server_id WITH =, hexrange(first, last, '[]') WITH &&) WHERE (released_at IS NULL);
        END IF;
    END $$""",
]


def put_in_place(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        for statement in SQLITE if connection.vendor == "sqlite" else POSTGRESQL:
            cursor.execute(statement)
