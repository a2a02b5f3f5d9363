"""Which columns are sealed, and the one place where rows are sealed and opened. Files are read at each use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.models import Count, F, QuerySet, Value
from django.db.models.functions import StrIndex, Substr
from django.db.transaction import TransactionManagementError

from fleet.models import RetiredKey
from fleet.sealing import KeyMissing, Keyring, KeyringBroken, Place, SealBroken, is_name

SAMPLE = 20


@dataclass(frozen=True)
class Column:
    """A sealed column of another app, which is named here and not imported."""

    keyring: str
    app: str
    model: str
    name: str

    @property
    def table(self) -> str:
        return f"{self.app}_{self.model}"

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def rows(self) -> QuerySet[Any]:
        """With `sealed_by`: the name of the key and its colon, or nothing where a row is not sealed at all."""
        rows = apps.get_model(self.app, self.model)._default_manager.order_by()
        found: QuerySet[Any] = rows.annotate(sealed_by=Substr(self.name, 1, StrIndex(F(self.name), Value(":"))))
        return found

    def place(self, row: object) -> Place:
        return Place(self.table, self.name, str(row))

    def text_of(self, row: object) -> str | None:
        found: str | None = self.rows.filter(pk=row).values_list(self.name, flat=True).first()
        return found


PRESHARED_KEYS = Column("peers", "peers", "peer", "preshared_key")
LOGIN_KEYS = Column("nodes", "nodes", "credential", "private_key")
COLUMNS = (PRESHARED_KEYS, LOGIN_KEYS)
KEYRINGS = ("peers", "nodes")


def file_of(keyring: str) -> Path:
    path: Path = {"peers": settings.KEYRING_PEERS, "nodes": settings.KEYRING_NODES}[keyring]
    return path


class Opener:
    """Opens what one column holds. Where a rotation went by since the file or the row was read, both are read anew."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._keyring = Keyring.read(file_of(column.keyring))

    def open(self, sealed: str, row: object) -> str:
        """SealBroken where it was not sealed for this row."""
        for _ in range(3):
            try:
                return self._keyring.open(sealed, self._column.place(row))
            except KeyMissing:
                # The row first: the key that it is sealed with by now is not taken out of the file at once.
                sealed = self._column.text_of(row) or sealed
                self._keyring = Keyring.read(file_of(self._column.keyring))
        return self._keyring.open(sealed, self._column.place(row))


@dataclass(frozen=True)
class Sealer:
    """Seals what one column is to hold, in the transaction that it was made in."""

    column: Column
    keyring: Keyring

    def seal(self, secret: str, row: object) -> str:
        return self.keyring.seal(secret, self.column.place(row))


def sealer(column: Column) -> Sealer:
    """Inside the transaction that writes the rows: until it ends, the key that it seals with is not retired."""
    if not connection.in_atomic_block:
        raise TransactionManagementError("seal inside the transaction that writes the row")
    lock_keyring(column.keyring, shared=True)
    found = Keyring.read(file_of(column.keyring))
    retired = set(RetiredKey.objects.filter(keyring=column.keyring).values_list("name", flat=True))
    live = {name: key for name, key in found.keys.items() if name not in retired}
    if not live:
        raise KeyringBroken(f"{file_of(column.keyring)} is an older copy, whose keys were all retired: copy it anew")
    _judge_once(column.keyring, found)
    return Sealer(column, Keyring(live))


def lock_keyring(keyring: str, *, shared: bool) -> None:
    """Until the transaction ends. Who seals shares it; who retires a key has it alone."""
    if connection.vendor != "postgresql":
        return  # SQLite's transactions are IMMEDIATE: there is no second writer.
    lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {lock}(hashtextextended(%s, 0))", [f"muster keyring {keyring}"])


class WrongKeyring(KeyringBroken):
    """Rows are sealed that this keyring does not open. The text says which file, and what to do."""


_judged: set[tuple[str, frozenset[str]]] = set()


def _judge_once(keyring: str, found: Keyring) -> None:
    """However a process came up: with keys that it did not seal with before, it seals nothing unseen."""
    mark = (keyring, frozenset(found.keys))
    if mark not in _judged:
        check_keyring(keyring)
        _judged.add(mark)


def check_keyring(keyring: str) -> None:
    """WrongKeyring where rows are sealed that the file does not open. Reads, and writes nothing; one look at each
    row's key name and a sample of the rows, so a tampered row is no wrong keyring: it stops its own server's pushes."""
    path = file_of(keyring)
    used = {column: names_in_use(column) for column in COLUMNS if column.keyring == keyring and _is_there(column)}
    count = sum(sum(names.values()) for names in used.values())
    if not count and not path.exists():
        return
    try:
        found = Keyring.read(path)
        for column, names in used.items():
            _check_column(column, names, found, path)
    except SealBroken as error:
        raise WrongKeyring(_refusal(keyring, str(error), count)) from None


def _refusal(keyring: str, what: str, count: int) -> str:
    mend = "put the file back that belongs to this database" if count else "delete it and run manage.py make_keyrings"
    return f"The keyring {keyring} is wrong: {what}. {count} rows are sealed with it: {mend}."


def names_in_use(column: Column) -> dict[str, int]:
    """Names of keys, and how many rows are sealed with each; what is not sealed at all is left out."""
    rows = column.rows.values_list("sealed_by").annotate(count=Count("pk"))
    found = {mark.removesuffix(":"): count for mark, count in rows}
    return {name: count for name, count in found.items() if is_name(name)}


def _check_column(column: Column, names: dict[str, int], found: Keyring, path: Path) -> None:
    for name, count in names.items():
        if name not in found.keys:
            raise KeyMissing(f"{path} lacks the key {name}, which {count} rows of {column} are sealed with")
        if found.vouches_for(name):
            continue
        rows = column.rows.filter(sealed_by=f"{name}:").values_list("pk", column.name)[:SAMPLE]
        if not any(opens(found, column, pk, sealed) for pk, sealed in rows):
            raise KeyMissing(f"the key {name} of {path} does not open the {count} rows of {column} that name it")


def opens(keyring: Keyring, column: Column, row: object, sealed: str) -> bool:
    try:
        keyring.open(sealed, column.place(row))
    except SealBroken:
        return False
    return True


def _is_there(column: Column) -> bool:
    """Whether the database has it by now: a Console is judged before its tables are made or changed, too."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and "memory" not in name and not Path(name).exists():
        return False  # and asking would make it
    with connection.cursor() as cursor:
        if column.table not in connection.introspection.table_names(cursor):
            return False
        fields = connection.introspection.get_table_description(cursor, column.table)
    return column.name in {field.name for field in fields}
