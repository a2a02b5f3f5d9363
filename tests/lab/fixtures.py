"""Pytest fixtures: a lab for a test, or for a module. Where no lab can run they fail, never skip."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab, missing


def _open_lab() -> Iterator[Lab]:
    if lacks := missing():
        pytest.fail(f"the lab needs {', '.join(lacks)}", pytrace=False)
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab, gone after the test."""
    yield from _open_lab()


@pytest.fixture(scope="module")
def module_lab() -> Iterator[Lab]:
    """An empty lab that the tests of a module share."""
    yield from _open_lab()
