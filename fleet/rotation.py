"""A new key for a keyring, while everybody works on. Each step can be cut short anywhere: doing it again goes on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.db import OperationalError, connection, transaction

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_admin
from fleet.keyrings import COLUMNS, Column, check_keyring, file_of, lock_keyring, names_in_use
from fleet.models import RetiredKey
from fleet.sealing import Keyring, SealBroken, is_name, new_key
from fleet.whole_files import alone_with, replace

STEPS = ("add", "seal", "drop")
BATCH = 500
# SQLite lets nobody in fairly: between batches the others get as much of it as they can use.
PAUSE = 0.02
ROUNDS, PATIENCE = 10, "2s"


class RotationStopped(Exception):
    """It cannot go on as it is; the text says what to do. What was done stays done and harmless."""


@dataclass(frozen=True)
class Rotation:
    """One keyring's file, and whom to tell how it goes."""

    keyring: str
    actor: Actor
    say: Callable[[str], None]
    clears_broken: bool

    @property
    def path(self) -> Path:
        return file_of(self.keyring)


def rotate_keyring(
    *, actor: Actor, keyring: str, step: str = "", clears_broken: bool = False, say: Callable[[str], None]
) -> None:
    """All steps that are still to be taken, or the one that is named."""
    require_admin(actor)
    rotation = Rotation(keyring, actor, say, clears_broken)
    try:
        with alone_with(rotation.path):
            check_keyring(keyring)
            for name in [step] if step else STEPS:
                {"add": _add, "seal": _seal, "drop": _drop}[name](rotation)
    except BlockingIOError:
        raise RotationStopped("a keyring in this folder is being rotated just now: wait for that to end") from None
    except OSError as error:
        raise RotationStopped(f"{rotation.path}: {error.strerror}; run it again once that is mended") from None


def _add(rotation: Rotation) -> None:
    """The new key is in the file behind the others: it opens, and does not seal yet."""
    found = Keyring.read(rotation.path)
    if not found.retiring:
        found = Keyring({**found.keys, **new_key()}, tuple(found.keys), found.box)
        replace(rotation.path, found.text())
    rotation.say(f"{rotation.path}: key {_new(found)} is there beside {', '.join(found.retiring)}")


def _seal(rotation: Rotation) -> None:
    """The new key is first in the file: it seals."""
    found = _under_way(rotation)
    new = _new(found)
    if next(iter(found.keys)) != new:
        replace(rotation.path, Keyring({new: found.keys[new], **found.keys}, found.retiring, found.box).text())
    rotation.say(f"{rotation.path}: key {new} seals from now on")


def _drop(rotation: Rotation) -> None:
    """Every row is sealed with the new key, the old ones are retired for all, and then out of the file."""
    found = _under_way(rotation)
    new = _new(found)
    if next(iter(found.keys)) != new:
        raise RotationStopped("the new key does not seal yet: take --step seal first, on every machine")
    _reseal_and_retire(rotation, found)
    replace(rotation.path, Keyring({new: found.keys[new]}, (), found.box).text())
    rotation.say(f"{rotation.path}: {', '.join(found.retiring)} taken out; {new} is the only key")


def _under_way(rotation: Rotation) -> Keyring:
    found = Keyring.read(rotation.path)
    if not found.retiring:
        raise RotationStopped(f"no rotation of {rotation.path} is under way: begin with --step add")
    return found


def _new(found: Keyring) -> str:
    [name] = set(found.keys) - set(found.retiring)
    return name


def _reseal_and_retire(rotation: Rotation, found: Keyring) -> None:
    """In rounds: until the first of them is over, somebody may still have sealed a row with an old key."""
    for _ in range(ROUNDS):
        broken = [row for column in _columns(rotation.keyring) for row in _reseal(rotation, column, found)]
        for row in broken if rotation.clears_broken else ():
            clear_broken(actor=rotation.actor, row=row)
        if broken and not rotation.clears_broken:
            raise RotationStopped(_told(broken))
        try:
            retire_keys(actor=rotation.actor, keyring=rotation.keyring, old=found.retiring, new=_new(found))
            return
        except StillNeeded as error:
            rotation.say(str(error))
    raise RotationStopped(
        f"rows are sealed with {', '.join(found.retiring)} all the time: a machine has an older copy of the keyring. "
        f"Copy {rotation.path} to it, then run this again"
    )


@dataclass(frozen=True)
class Broken:
    """A row that no key of its keyring opens."""

    column: Column
    pk: object
    sealed: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.column} of {self.pk}"


def _told(broken: list[Broken]) -> str:
    named = ", ".join(map(str, broken[:5])) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
    return (
        f"no key opens {named}, so the old keys stay. Put back what was there, or run this again with --clear-broken: "
        "what such a row holds is lost, and a device or server that needs it is given a new one"
    )


def _columns(keyring: str) -> list[Column]:
    return [column for column in COLUMNS if column.keyring == keyring]


def _reseal(rotation: Rotation, column: Column, found: Keyring) -> list[Broken]:
    """Seals with the first key what another one sealed; returns the rows that no key opens."""
    names = names_in_use(column)
    total, done, broken = sum(names.values()), names.get(_new(found), 0), []
    for batch in _batches(column, _new(found)):
        fresh = [(pk, sealed, _fresh(column, pk, sealed, found)) for pk, sealed in batch]
        done += _swap(column, [(pk, sealed, text) for pk, sealed, text in fresh if text])
        broken += [Broken(column, pk, sealed) for pk, sealed, text in fresh if not text]
        rotation.say(f"{column}: {done} of {total} rows are sealed with {_new(found)}")
        time.sleep(PAUSE)
    return broken


def _batches(column: Column, new: str) -> Iterator[list[tuple[object, str]]]:
    """Rows that another key has sealed, in the order of their ids; never more than a batch in memory."""
    rows = column.rows.exclude(sealed_by__in=["", f"{new}:"]).order_by("pk").values_list("pk", column.name)
    batch = list(rows[:BATCH])
    while batch:
        yield [(pk, sealed) for pk, sealed in batch if is_name(sealed.partition(":")[0])]
        batch = list(rows.filter(pk__gt=batch[-1][0])[:BATCH])


def _fresh(column: Column, pk: object, sealed: str, found: Keyring) -> str:
    place = column.place(pk)
    try:
        return found.seal(found.open(sealed, place), place)
    except SealBroken:
        return ""


def _swap(column: Column, texts: list[tuple[object, str, str]]) -> int:
    """How many; where somebody was faster, what they wrote stays and is seen in the next round."""
    meta = column.rows.model._meta
    swap = f'UPDATE "{column.table}" SET "{column.name}" = %s WHERE "{meta.pk.column}" = %s AND "{column.name}" = %s'
    values = [(new, meta.pk.get_db_prep_value(pk, connection), old) for pk, old, new in texts]
    with transaction.atomic(), connection.cursor() as cursor:
        if values:
            cursor.executemany(swap, values)
        return int(max(cursor.rowcount, 0))


def clear_broken(*, actor: Actor, row: Broken) -> None:
    """What no key opens is taken out of its row, so that no key has to stay for it."""
    require_admin(actor)
    with act(Verb.KEYRING_CLEAR, actor=actor) as this:
        column = row.column
        target = column.rows.get(pk=row.pk)
        column.rows.filter(pk=row.pk, **{column.name: row.sealed}).update(**{column.name: ""})
        this.on(target, changes={column.name: ["sealed", "lost"]})


class StillNeeded(Exception):
    """A row needs a key that was to be retired, or may do so when a transaction under way commits."""


def retire_keys(*, actor: Actor, keyring: str, old: tuple[str, ...], new: str) -> None:
    """From the end of this on nobody seals with the old keys, whatever their file says. Done once and recorded once."""
    require_admin(actor)
    if RetiredKey.objects.filter(keyring=keyring, name__in=old).count() == len(old):
        return
    with act(Verb.KEYRING_ROTATE, actor=actor) as this:
        _lock_out_sealers(keyring)
        used = {str(column): names_in_use(column) for column in _columns(keyring)}
        left = {name: sum(names.values()) - names.get(new, 0) for name, names in used.items()}
        if any(left.values()):
            raise StillNeeded(", ".join(f"{name}: {count} rows to go" for name, count in left.items()))
        RetiredKey.objects.bulk_create([RetiredKey(keyring=keyring, name=name) for name in old], ignore_conflicts=True)
        rows = sum(names.get(new, 0) for names in used.values())
        changes = {"key": [", ".join(old), new], "rows": ["", str(rows)]}
        this.on(RetiredKey.objects.get(keyring=keyring, name=old[0]), changes=changes, label=f"keyring {keyring}")


def _lock_out_sealers(keyring: str) -> None:
    """Not at any price: who wants to seal waits behind us."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
    try:
        lock_keyring(keyring, shared=False)
    except OperationalError:
        raise StillNeeded(f"keyring {keyring}: a transaction that seals rows is still open") from None
