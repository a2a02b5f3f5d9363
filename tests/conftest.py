"""The cast: Alice administers, Bob operates staging, Charlie has no rights. And what every test needs around it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections
from django.test import TransactionTestCase

from audit import append_only
from audit.services import SYSTEM
from fleet import services as fleet
from fleet.models import Environment, Role, User
from fleet.sealing import make_keyring, make_nodes_keyring


@pytest.fixture(scope="session", autouse=True)
def keyrings(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("keyrings")
    settings.KEYRING_PEERS = folder / "peers"
    settings.KEYRING_NODES = folder / "nodes"
    settings.KEYRING_NODES_PUBLIC = folder / "nodes.pub"
    make_keyring(settings.KEYRING_PEERS)
    make_nodes_keyring(settings.KEYRING_NODES, settings.KEYRING_NODES_PUBLIC)


@pytest.fixture
def own_keyrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of keyrings that this test alone has, to change and to lose: `peers`, `nodes` and `nodes.pub`."""
    files = {"KEYRING_PEERS": "peers", "KEYRING_NODES": "nodes", "KEYRING_NODES_PUBLIC": "nodes.pub"}
    for setting, name in files.items():
        monkeypatch.setattr(settings, setting, tmp_path / "keyrings" / name)
    make_keyring(settings.KEYRING_PEERS)
    make_nodes_keyring(settings.KEYRING_NODES, settings.KEYRING_NODES_PUBLIC)
    return tmp_path / "keyrings"


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> None:
    """A slow hash is right for people and makes the cast cost a second a test."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def emptying_tables_lifts_the_ledger() -> Iterator[None]:
    """Tests with real transactions empty all tables afterwards, which the ledger refuses to everybody else."""
    empty = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]

    def lifted(self: TransactionTestCase) -> None:
        for alias in self._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
            append_only.lift(connections[alias])
        empty(self)
        for alias in self._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
            append_only.put_in_place(connections[alias])

    TransactionTestCase._fixture_teardown = lifted  # type: ignore[attr-defined]
    yield
    TransactionTestCase._fixture_teardown = empty  # type: ignore[attr-defined]


@pytest.fixture
def staging(db: None) -> Environment:
    return fleet.add_environment(actor=SYSTEM, name="staging")


@pytest.fixture
def production(db: None) -> Environment:
    return fleet.add_environment(actor=SYSTEM, name="production")


@pytest.fixture
def alice(db: None) -> User:
    return fleet.add_user(
        actor=SYSTEM, username="alice", email="alice@example.com", password="correct horse", is_superuser=True
    )


@pytest.fixture
def bob(staging: Environment) -> User:
    user = fleet.add_user(
        actor=SYSTEM, username="bob", email="bob@example.com", password="battery staple", is_superuser=False
    )
    fleet.give_role(actor=SYSTEM, user=user, name=Role.Name.OPERATOR, environment=staging)
    return user


@pytest.fixture
def charlie(db: None) -> User:
    return fleet.add_user(
        actor=SYSTEM, username="charlie", email="charlie@example.com", password="tr0ub4dor", is_superuser=False
    )
