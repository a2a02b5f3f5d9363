"""Worlds that all tests of a module share."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.db import transaction
from pytest_django import DjangoDbBlocker

from audit.services import SYSTEM
from fleet.services import add_environment
from tests.worlds import Worlds, make_world


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Worlds]:
    """A world of each environment. Making one takes longer than any act: each test undoes what it did to these."""
    with ExitStack() as undone:
        with django_db_blocker.unblock():
            undone.enter_context(transaction.atomic())
            made = {name: make_world(add_environment(actor=SYSTEM, name=name)) for name in ("staging", "production")}
        yield made
        with django_db_blocker.unblock():
            transaction.set_rollback(True)
            undone.close()


@pytest.fixture
def worlds(made: Worlds, db: None) -> Worlds:
    return copy.deepcopy(made)
