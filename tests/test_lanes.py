"""Lanes share a suite: each test is run once, by one of them, and one marked `alone` while no other is."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from tests import databases, lanes
from tests.lab.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
MODULE = """
import os
from pathlib import Path
import pytest

NOTES = Path(__file__).parent / "notes"

def note(word):
    with NOTES.open("a") as file:
        file.write(f"{{word}} {name} {{os.getpid()}}\\n")

@pytest.fixture(scope="module", autouse=True)
def machine():
    note("up")
    yield
    note("down")

@pytest.mark.alone
def test_alone():
    note("alone-begins")
    sum(range(6_000_000))
    note("alone-ends")

@pytest.mark.parametrize("number", range(3))
def test_any(number):
    note("begins")
    sum(range(3_000_000))
    note("ends")
    assert {holds}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Four modules; the last one fails."""
    (tmp_path / "suite").mkdir()
    for name in "abcd":
        (tmp_path / f"suite/test_{name}.py").write_text(MODULE.format(name=name, holds=name != "d"))
    return tmp_path / "suite"


def run_lanes(suite: Path) -> list[int]:
    """Two of them at once; their exit statuses."""
    shared = suite.parent / "shared"
    shared.mkdir()
    options = ["-c", "/dev/null", "--rootdir", str(suite), "-p", "no:django", "-p", "no:cacheprovider", "-q"]
    words = [sys.executable, "-m", "pytest", *options, "-p", "tests.lanes", "--lanes-of", str(shared), "--lane"]
    running = [subprocess.Popen([*words, f"lane {number}", str(suite)], cwd=ROOT) for number in (1, 2)]
    wait_for(lambda: all(process.poll() is not None for process in running), 60, "both lanes to end")
    return [process.wait() for process in running]


def notes(suite: Path) -> list[list[str]]:
    return [line.split() for line in (suite / "notes").read_text().splitlines()]


def test_each_test_is_run_once_and_a_failure_is_its_lanes(suite: Path) -> None:
    assert sorted(run_lanes(suite)) == [0, 1]
    found = notes(suite)
    for name in "abcd":
        own = [row for row in found if row[1] == name]
        assert [row[0] for row in own if "begins" in row[0]].count("begins") == 3
        assert [row[0] for row in own].count("alone-begins") == 1
        assert len({row[2] for row in own if row[0] == "begins"}) == 1


def test_what_is_alone_comes_last_and_meets_nothing(suite: Path) -> None:
    run_lanes(suite)
    words = [row[0] for row in notes(suite)]
    first = words.index("alone-begins")
    assert set(words[:first]) == {"up", "begins", "ends", "down"}
    assert [word for word in words[first:] if word.startswith("alone")] == ["alone-begins", "alone-ends"] * 4
    assert {"begins", "ends"} & set(words[first:]) == set()


def test_machines_of_one_database_are_up_one_after_the_other(suite: Path) -> None:
    run_lanes(suite)
    first = next(n for n, row in enumerate(notes(suite)) if row[0] == "alone-begins")
    words = [row[1] for row in notes(suite)[:first] if row[0] in ("begins", "ends")]
    assert words == [name for name in dict.fromkeys(words) for _ in range(6)]


def test_a_modules_fixtures_are_gone_before_the_next_module(suite: Path) -> None:
    run_lanes(suite)
    for pid in {row[2] for row in notes(suite)}:
        words = [row[0] for row in notes(suite) if row[2] == pid and row[0] in ("up", "down")]
        assert words == ["up", "down"] * (len(words) // 2)


@pytest.mark.parametrize(("sqlite", "postgresql", "status"), [("true", "true", 0), ("kill -9 $$", "true", 1)])
def test_a_lane_that_is_killed_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite: str, postgresql: str, status: int
) -> None:
    """What it had taken was run by nobody."""
    commands = {"sqlite": sqlite, "postgresql": postgresql}

    def environment(_database: str) -> AbstractContextManager[Mapping[str, str]]:
        return nullcontext(os.environ)

    monkeypatch.setattr(databases, "environment", environment)
    monkeypatch.setattr(databases, "command_on", lambda database, _: ["sh", "-c", commands[database]])
    assert databases.Lanes(tmp_path, []).run() == status


def test_what_is_begun_first_is_there() -> None:
    assert [path for path in lanes.LONGEST if not (ROOT / path).is_file()] == []
