"""The rules that keep the script small enough to be read by whoever lets it run as root."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes.node.machine import SCRIPT

SOURCE = SCRIPT.read_text()
TREE = ast.parse(SOURCE, feature_version=(3, 9))
PYENV = sorted(Path("/root/.pyenv/versions").glob("3.*/bin/python3"))
PYTHONS = [
    path
    for path in [*PYENV, *(Path(f"/usr/bin/python3.{minor}") for minor in range(9, 30))]
    if path.exists() and not any(f"/3.{minor}." in str(path) for minor in range(9))
]


def test_it_imports_the_standard_library_only() -> None:
    names = {alias.name for node in ast.walk(TREE) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == set()


def test_no_function_is_longer_than_30_lines() -> None:
    functions = [node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 50
    long = {node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 30}
    assert long == set()


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(SOURCE.splitlines()) <= 1800


def test_it_never_calls_what_would_stop_a_running_interface() -> None:
    strings = [node.value for node in ast.walk(TREE) if isinstance(node, ast.Constant)]
    assert [word for word in strings if word in ("syncconf", "setconf", "strip", "save")] == []
    assert "shell=True" not in SOURCE


def test_a_python_is_there_to_run_it() -> None:
    assert PYTHONS != []


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_it_runs_under_each_python_from_3_9_on(python: Path) -> None:
    done = subprocess.run([python, "-IS", SCRIPT, "--version"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0.0\n", "")
