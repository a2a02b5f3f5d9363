"""The command line where nothing is set up: a sentence, and nothing left behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parent.parent


def said_by(python: list[str], *words: str, **variables: str) -> str:
    """Of a command that is refused."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    command = [*python, str(ROOT / "manage.py"), *words]
    done = subprocess.run(
        command, env={**kept, **variables}, input="correct horse battery\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr.strip()


@pytest.mark.parametrize(
    "words", [["add_user", "dora", "--admin"], ["add_token", "dora", "x"], ["enrol_server", "x"], ["reconcile"]]
)
def test_a_command_without_a_console_says_so_and_leaves_nothing(tmp_path: Path, words: list[str]) -> None:
    data = tmp_path / "data"
    said = said_by([sys.executable], *words, MUSTER_DATA=str(data))
    assert said == f"{data} has no Console: start one with `make run`, or set MUSTER_DATA to the folder of yours."
    assert not data.exists()


def test_a_database_that_was_not_migrated_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "muster.sqlite3").touch()
    said = said_by([sys.executable], "add_token", "dora", "x", MUSTER_DATA=str(tmp_path))
    assert (
        said == "no such table: fleet_user: set MUSTER_DATA and MUSTER_DATABASE as the Console has them, and migrate."
    )


def test_a_python_without_django_is_told_which_one_to_use() -> None:
    said = said_by([sys.executable, "-S"], "add_token", "dora", "x")
    assert said == "Django is not here: run `make install` once, and then `.venv/bin/python manage.py`."


def test_every_command_of_the_guides_is_there_and_written_as_it_is_typed() -> None:
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert len(re.findall(r"manage\.py", text)) == len(re.findall(r"\.venv/bin/python manage\.py \w", text)) > 5
    assert set(re.findall(r"manage\.py (\w+)", text)) - set(get_commands()) == set()
