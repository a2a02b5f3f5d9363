"""Which keyring is a right one, who seals with what, and that no sealed column is forgotten."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from fleet.keyrings import (
    COLUMNS,
    LOGIN_KEYS,
    PRESHARED_KEYS,
    Column,
    Opener,
    WrongKeyring,
    check_keyring,
    file_of,
    sealer,
)
from fleet.models import Environment, RetiredKey
from fleet.sealing import Keyring, KeyringBroken, SealBroken, make_keyring, new_key
from nodes.models import Credential
from nodes.targets import keep, new_key_for, private_key_of
from peers.models import Peer
from peers.selectors import config_of
from tests.build import make_peers, make_server
from tests.worlds import everything

ROOT = Path(__file__).resolve().parents[2]
KEY = base64.b64encode(b"1" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "null",
        "{}",
        json.dumps({"keys": {}}),
        json.dumps({"keys": [KEY]}),
        json.dumps({"keys": {"k1": "short"}}),
        json.dumps({"keys": {"k1": KEY[:-4]}}),
        json.dumps({"keys": {"k:1": KEY}}),
        json.dumps({"keys": {"k0123456789abcdef": KEY}}),
        json.dumps({"keys": {"k1": KEY}, "retiring": ["k2"]}),
        json.dumps({"keys": {"k1": KEY}, "box": "short"}),
        json.dumps({"keys": {"k1": KEY}, "other": 1}),
        f'{{"keys": {{"k1": "{KEY}", "k1": "{KEY}"}}}}',
        json.dumps({"keys": {"k1": KEY}})[:-1],
        "[" * 100_000,
    ],
)
def test_a_file_that_is_not_as_we_write_it_is_no_keyring(tmp_path: Path, text: str) -> None:
    """And what it says of it quotes nothing that is in it."""
    path = tmp_path / "peers"
    path.write_text(text)
    with pytest.raises(KeyringBroken) as refused:
        Keyring.read(path)
    assert str(refused.value) == f"{path} holds no keyring, or a damaged one"
    path.write_text(json.dumps({"keys": {"k1": KEY}}))
    assert Keyring.read(path).keys == {"k1": b"1" * 32}


def test_two_keyrings_never_share_a_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_keyring(tmp_path / name)
    assert not set(Keyring.read(tmp_path / "one").keys) & set(Keyring.read(tmp_path / "two").keys)


@pytest.mark.django_db
def test_a_keyring_of_the_first_consoles_goes_on_working(own_keyrings: Path, staging: Environment) -> None:
    (own_keyrings / "peers").write_text(json.dumps({"keys": {"k1": KEY}}))
    make_server(staging)
    [peer] = make_peers(staging, 1)
    assert peer.preshared_key.startswith("k1:")
    check_keyring("peers")
    assert Opener(PRESHARED_KEYS).open(peer.preshared_key, peer.pk)


def sealed_texts() -> dict[str, int]:
    """Columns of any model that hold what a key of ours has sealed, and how often."""
    names = "|".join([*Keyring.read(file_of("peers")).keys, *Keyring.read(file_of("nodes")).keys])
    found: dict[str, int] = {}
    for model in apps.get_models():
        for row in model._default_manager.values():
            for column, value in row.items():
                if re.search(f"({names}):[A-Za-z0-9+/]{{20}}", str(value)):
                    where = f"{model._meta.db_table}.{column}"
                    found[where] = found.get(where, 0) + 1
    return found


@pytest.mark.django_db
def test_every_sealed_column_is_registered_under_its_own_name(staging: Environment) -> None:
    server = make_server(staging)
    make_peers(staging, 2)
    keep(new_key_for(server), server=server)
    assert sealed_texts() == {"peers_peer.preshared_key": 2, "nodes_credential.private_key": 1}
    assert set(sealed_texts()) == {str(column) for column in COLUMNS}
    for column in COLUMNS:
        model = apps.get_model(column.app, column.model)
        assert model._meta.db_table == column.table
        assert "Sealed" in str(model._meta.get_field(column.name).help_text) + str(model.__doc__).title()


def test_nothing_is_sealed_or_opened_but_through_the_registry() -> None:
    """So that no lock is forgotten, and no column."""
    files = [path for app in ("audit", "fleet", "peers", "nodes", "config") for path in (ROOT / app).rglob("*.py")]
    users = {str(path.relative_to(ROOT)) for path in files if re.search(r"Keyring\.read|AESGCM", path.read_text())}
    assert users == {"fleet/sealing.py", "fleet/keyrings.py", "fleet/rotation.py"}
    asked = {word for path in files for word in re.findall(r"(?:sealer|Opener)\((\w+)\)", path.read_text())}
    assert asked == {"PRESHARED_KEYS", "LOGIN_KEYS"}


def test_every_field_that_says_it_is_sealed_is_registered() -> None:
    said = {
        f"{model._meta.db_table}.{field.column}"
        for model in apps.get_models()
        for field in model._meta.fields
        if "sealed" in str(field.help_text).lower()
    }
    assert said <= {str(column) for column in COLUMNS}
    assert "peers_peer.preshared_key" in said


@pytest.mark.django_db(transaction=True)
def test_sealing_outside_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError):
        sealer(PRESHARED_KEYS)
    with transaction.atomic():
        sealed = sealer(PRESHARED_KEYS).seal("secret", 1)
    assert Opener(PRESHARED_KEYS).open(sealed, 1) == "secret"


def replace_key(path: Path, column: Column, row: object) -> None:
    """A whole rotation: another key in the file, the row sealed with it, and the old key gone."""
    fresh = Keyring(new_key())
    text = column.text_of(row)
    assert text is not None
    sealed = fresh.seal(Keyring.read(path).open(text, column.place(row)), column.place(row))
    column.rows.filter(pk=row).update(**{column.name: sealed})
    path.write_text(fresh.text())


@pytest.mark.django_db
def test_what_was_read_before_a_rotation_opens_after_it(own_keyrings: Path, staging: Environment) -> None:
    """C7: the file first, or the row first, or both."""
    server = make_server(staging, public_key=base64.b64encode(b"7" * 32).decode())
    [peer] = make_peers(staging, 1)
    keep(new_key_for(server), server=server)
    credential = Credential.objects.get()
    early, secret, login = Opener(PRESHARED_KEYS), config_of(peer).preshared_key, private_key_of(credential)
    replace_key(own_keyrings / "peers", PRESHARED_KEYS, peer.pk)
    replace_key(own_keyrings / "nodes", LOGIN_KEYS, credential.pk)
    late = Peer.objects.get(pk=peer.pk).preshared_key
    assert late != peer.preshared_key
    assert early.open(late, peer.pk) == Opener(PRESHARED_KEYS).open(peer.preshared_key, peer.pk) == secret
    assert (config_of(peer).preshared_key, private_key_of(credential)) == (secret, login)


@pytest.mark.django_db
def test_an_older_copy_of_a_keyring_seals_nothing_with_a_retired_key(own_keyrings: Path, staging: Environment) -> None:
    """A machine that the new file was not copied to."""
    make_server(staging)
    old, new = new_key(), new_key()
    RetiredKey.objects.create(keyring="peers", name=next(iter(old)))
    RetiredKey.objects.create(keyring="nodes", name=next(iter(new)))
    path = own_keyrings / "peers"
    path.write_text(Keyring({**old, **new}).text())
    [peer] = make_peers(staging, 1)
    assert peer.preshared_key.startswith(f"{next(iter(new))}:")
    path.write_text(Keyring(old).text())
    before = everything()
    with (
        pytest.raises(KeyringBroken, match="is an older copy, whose keys were all retired: copy it anew"),
        transaction.atomic(),
    ):
        sealer(PRESHARED_KEYS)
    assert everything() == before


FAULTS: dict[str, Callable[[Path], object]] = {
    "cannot be read (No such file or directory)": lambda path: path.unlink(),
    "holds no keyring, or a damaged one": lambda path: path.write_text('{"keys": {"k1"'),
    "lacks the key NAME, which 3 rows of peers_peer.preshared_key are sealed with": lambda path: path.write_text(
        Keyring(new_key()).text()
    ),
    "does not open the 3 rows": lambda path: path.write_text(json.dumps({"keys": {"k1": KEY}})),
}


@pytest.mark.django_db
@pytest.mark.parametrize("what", FAULTS)
def test_a_wrong_keyring_is_told_and_seals_nothing(own_keyrings: Path, staging: Environment, what: str) -> None:
    """C7: whoever asks, with one line; nothing is written."""
    path = own_keyrings / "peers"
    if "open" in what:
        path.write_text(json.dumps({"keys": {"k1": base64.b64encode(b"2" * 32).decode()}}))
    make_server(staging)
    name = make_peers(staging, 3)[0].preshared_key.partition(":")[0]
    check_keyring("peers")
    check_keyring("nodes")
    before, right = everything(), path.read_text()
    FAULTS[what](path)
    with pytest.raises(WrongKeyring) as refused:
        check_keyring("peers")
    line = str(refused.value)
    assert what.replace("NAME", name) in line
    assert "The keyring peers is wrong: " in line
    assert str(path) in line
    assert line.endswith("3 rows are sealed with it: put the file back that belongs to this database.")
    if "open" not in what:  # a process that saw the right key of that name does not ask again
        with pytest.raises(SealBroken), transaction.atomic():
            sealer(PRESHARED_KEYS)
    with pytest.raises(CommandError, match="The keyring peers is wrong"):
        call_command("make_keyrings")
    check_keyring("nodes")
    assert everything() == before
    assert path.exists() == ("read" not in what)
    path.write_text(right)
    check_keyring("peers")


@pytest.mark.django_db
def test_tampered_rows_are_no_wrong_keyring(own_keyrings: Path, staging: Environment) -> None:
    """C9: they stop their own server's pushes, and not the workers, who have revocations to send."""
    make_server(staging)
    one, two, three, _ = make_peers(staging, 4)
    for peer, text in [(one, two.preshared_key), (two, "A" * 43 + "="), (three, "")]:
        Peer.objects.filter(pk=peer.pk).update(preshared_key=text)
    check_keyring("peers")


@pytest.mark.django_db
def test_the_look_at_a_keyring_costs_the_same_for_many_rows(own_keyrings: Path, staging: Environment) -> None:
    make_server(staging)
    counts = []
    for number in (1, 30):
        make_peers(staging, number)
        with CaptureQueriesContext(connection) as queries:
            check_keyring("peers")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 30


@pytest.mark.django_db
def test_a_new_console_has_no_wrong_keyring(own_keyrings: Path) -> None:
    (own_keyrings / "peers").unlink()
    check_keyring("peers")
    call_command("make_keyrings")
    check_keyring("peers")
    (own_keyrings / "peers").write_text("")
    with pytest.raises(WrongKeyring, match="delete it and run manage"):
        check_keyring("peers")
