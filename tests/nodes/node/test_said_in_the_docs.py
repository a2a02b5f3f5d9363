"""The protocol's page says every request, answer and error; the page of faults names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from nodes.script import muster_node as node
from tests.nodes.node.machine import INSTALLER, SCRIPT

ROOT = Path(__file__).resolve().parents[3]
PROTOCOL = (ROOT / "docs/node-protocol.md").read_text()
FAULTS = (ROOT / "docs/faults.md").read_text()


def first_words(path: Path, *callees: str) -> set[str]:
    """The texts that these are called with first, wherever that is a literal."""
    calls = [found for found in ast.walk(ast.parse(path.read_text())) if isinstance(found, ast.Call) and found.args]
    named = [call.args[0] for call in calls if ast.unparse(call.func) in callees]
    return {str(word.value) for word in named if isinstance(word, ast.Constant)}


def test_every_error_has_its_row() -> None:
    codes = first_words(SCRIPT, "Refused") | {"bad_request"}
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", PROTOCOL, re.MULTILINE))
    assert rows == codes
    assert {code for code in first_words(INSTALLER, "Refused") if f"`{code}`" not in PROTOCOL} - {
        "foreign_conf"
    } == set()
    assert '"code": "foreign_conf"' in PROTOCOL


def test_every_request_and_command_is_there() -> None:
    tree = ast.parse(SCRIPT.read_text())
    [handler] = [item for item in tree.body if isinstance(item, ast.FunctionDef) and item.name == "handler"]
    tables = [item for item in ast.walk(handler) if isinstance(item, ast.Dict)]
    ops = {str(key.value) for table in tables for key in table.keys if isinstance(key, ast.Constant)}
    assert ops == set(re.findall(r"^\*\*([a-z]+)\*\* `\{", PROTOCOL, re.MULTILINE)) - {"install"}
    assert {
        name for name in node.COMMANDS if not re.search(rf"^    muster-node {name} ", PROTOCOL, re.MULTILINE)
    } == set()


def test_every_kind_of_drift_and_entry_is_there() -> None:
    kinds = first_words(SCRIPT, "finding") | first_words(SCRIPT, "self.journal.add", "node.journal.add")
    assert len(kinds) >= 14
    assert {kind for kind in kinds if f"`{kind}`" not in PROTOCOL} == set()


def test_the_page_of_faults_names_tests_that_are_there() -> None:
    faults = FAULTS.partition("## At size")[0].splitlines()
    rows = [row for row in faults if row.startswith("| ") and "---" not in row and "| fault |" not in row]
    named = {row: re.findall(r"`((?:node/|lab/)?test_\w+\.py)`", row.split(" | ")[2]) for row in rows}
    assert [row for row, tests in named.items() if not tests] == []
    files = {name for tests in named.values() for name in tests}
    assert len(files) >= 25
    assert {name for name in files if not (ROOT / "tests/nodes" / name).is_file()} == set()
