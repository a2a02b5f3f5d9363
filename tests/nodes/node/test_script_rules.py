"""The rules that keep both scripts small enough to be read by whoever lets them run as root."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes.node.machine import INSTALLER, SCRIPT

LONGEST = {SCRIPT: 1800, INSTALLER: 400}
TREES = {path: ast.parse(path.read_text(), feature_version=(3, 9)) for path in LONGEST}
PYENV = sorted(Path("/root/.pyenv/versions").glob("3.*/bin/python3"))
PYTHONS = [
    path
    for path in [*PYENV, *(Path(f"/usr/bin/python3.{minor}") for minor in range(9, 30))]
    if path.exists() and not any(f"/3.{minor}." in str(path) for minor in range(9))
]


each_script = pytest.mark.parametrize("script", LONGEST, ids=lambda path: path.stem)


@each_script
def test_it_imports_the_standard_library_only(script: Path) -> None:
    """And the installer what it finds on the machine: muster-node."""
    nodes = list(ast.walk(TREES[script]))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    found = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert found == ({"nodes.script.muster_node"} if script == INSTALLER else set())


@each_script
def test_no_function_is_longer_than_30_lines(script: Path) -> None:
    functions = [node for node in ast.walk(TREES[script]) if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 20
    long = {node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 30}
    assert long == set()


@each_script
def test_it_can_be_read_in_one_sitting(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= LONGEST[script]


@each_script
def test_it_never_calls_what_would_stop_a_running_interface(script: Path) -> None:
    strings = [node.value for node in ast.walk(TREES[script]) if isinstance(node, ast.Constant)]
    assert [word for word in strings if word in ("syncconf", "setconf", "strip", "save")] == []
    assert "shell=True" not in script.read_text()


def test_a_python_is_there_to_run_it() -> None:
    assert PYTHONS != []


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_it_runs_under_each_python_from_3_9_on(python: Path) -> None:
    done = subprocess.run([python, "-IS", SCRIPT, "--version"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0.0\n", "")


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_the_installer_runs_under_each_of_them_and_leaves_no_bytecode(python: Path, tmp_path: Path) -> None:
    program = tmp_path / "muster-node"
    program.write_bytes(SCRIPT.read_bytes())
    words = [str(python), "-IS", str(INSTALLER), str(program), "wg0"]
    done = subprocess.run(words, input="{}", capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"], done.stderr) == (1, "bad_request", "")
    assert list(tmp_path.iterdir()) == [program]
