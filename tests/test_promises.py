"""Every promise of promises.toml is held by tests that exist and run; every id that a test cites is a promise."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import mutants

ROOT = Path(__file__).resolve().parent.parent
PROMISES: list[dict[str, Any]] = tomllib.loads((ROOT / "tests/promises.toml").read_text())["promise"]
IDS = [str(promise["id"]) for promise in PROMISES]
# Ids of this form are cited by the docstrings of their tests; M ids name steps of the main job and are not.
CITED = re.compile(r"\b[A-GL]\d{1,2}\b")
SKIPS = re.compile(r"\b(skip|skipif|xfail)\b")


@cache
def named_tests(path: Path) -> dict[str, ast.FunctionDef]:
    found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return {node.name: node for node in found if node.name.startswith("test_")}


def find(name: str) -> ast.FunctionDef:
    """The test of that name; fails where there is none."""
    file, _, function = name.partition("::")
    assert (ROOT / file).is_file(), f"{file} is not there"
    tests = named_tests(ROOT / file)
    assert function in tests, f"{file} has no {function}"
    return tests[function]


def marks_of(name: str) -> list[str]:
    """Decorators of the test, and what its module marks all tests with."""
    module = ast.parse((ROOT / name.partition("::")[0]).read_text())
    assigned = [node for node in module.body if isinstance(node, ast.Assign)]
    of_all = [node.value for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"]
    return [ast.unparse(mark) for mark in [*of_all, *find(name).decorator_list]]


@pytest.mark.parametrize("promise", PROMISES, ids=IDS)
def test_a_promise_is_held_by_tests_that_run(promise: dict[str, Any]) -> None:
    assert sorted(promise) == ["id", "says", "tests"]
    assert promise["tests"] and promise["says"]
    for name in promise["tests"]:
        find(name)
        assert [mark for mark in marks_of(name) if SKIPS.search(mark)] == [], name


@pytest.mark.parametrize("promise", [one for one in PROMISES if CITED.fullmatch(one["id"])], ids=lambda one: one["id"])
def test_a_test_says_which_promise_it_holds(promise: dict[str, Any]) -> None:
    silent = [
        name for name in promise["tests"] if promise["id"] not in CITED.findall(ast.get_docstring(find(name)) or "")
    ]
    assert silent == []


@pytest.mark.parametrize("mutant", mutants.read(), ids=lambda one: one.guards)
def test_a_guard_stands_where_its_mutant_takes_it_out(mutant: mutants.Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.pattern) == 1
    for name in mutant.tests:
        assert (ROOT / name.partition("::")[0]).is_file()
        if "::" in name:
            find(name.partition("[")[0])


def test_an_id_is_given_once() -> None:
    assert len(IDS) == len(set(IDS))


def test_what_a_test_cites_is_a_promise() -> None:
    cited = {
        cite
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in named_tests(path).values()
        for cite in CITED.findall(ast.get_docstring(function) or "")
    }
    assert cited - set(IDS) == set()
