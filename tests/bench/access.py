"""A big fleet's acts until they are committed, on both databases: 100,000 peers of 2,000 people on 200 servers."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.measure import Figures, say, settle_down
from tests.databases import DATABASES, ROOT, private_postgresql, private_redis

# As an administrator leaves it who follows the manual; what was committed is on the disk.
POSTGRESQL = ("-c", "shared_buffers=256MB", "-c", "max_connections=50")
MOST = {"add_server_s": 5.0, "suspend_ms": 50.0}
TARGETS = {f"access_{database}_{name}": most for database in DATABASES for name, most in MOST.items()}


def measure(given: argparse.Namespace) -> Figures:
    figures: Figures = {}
    for database in DATABASES:
        say(f"{given.people} people on {given.fleet} servers, on {database} ...")
        settle_down()
        figures |= trial(database, given.people, given.fleet, given.rounds)
    return figures


def trial(database: str, people: int, servers: int, rounds: int) -> Figures:
    """Every figure of one database; RuntimeError where an act did not do what was timed."""
    with console_on(database) as variables:
        _run(variables, "manage.py", "migrate", "--verbosity", "0")
        code = f"from tests.bench.access_trial import run; run({people}, {servers}, {rounds})"
        said = _run(variables, "manage.py", "shell", "-v0", "-c", code)
    found = json.loads(said.splitlines()[-1])
    return {f"access_{database}_{name}": float(value) for name, value in found.items()}


@contextmanager
def console_on(database: str) -> Iterator[dict[str, str]]:
    """Variables of a Console with this database and a broker, none of it shared with anybody."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-bench-"))) for _ in range(3)]
        variables = {"MUSTER_DATA": str(folders[0]), "MUSTER_TLS": "0"}
        variables["MUSTER_BROKER"] = stack.enter_context(private_redis(folders[1]))
        if database == "postgresql":
            url = stack.enter_context(private_postgresql(folders[2], POSTGRESQL))
            variables["MUSTER_DATABASE"] = url.replace("/muster?", "/postgres?")
        yield variables


def _run(variables: dict[str, str], *words: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    done = subprocess.run(
        [sys.executable, *words],
        env={**inherited, **variables},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{words[1]} ended with {done.returncode}")
    return done.stdout


def missed(figures: Figures) -> list[str]:
    """The targets that were measured and not met."""
    return [name for name, most in TARGETS.items() if name in figures and figures[name] > most]


def show(figures: Figures, given: argparse.Namespace) -> None:
    print(f"{given.people} people on {given.fleet} servers, until committed (medians of {given.rounds})\n")
    for name, value in figures.items():
        verdict = "MISSED" if name in missed(figures) else "met"
        target = f"at most {TARGETS[name]:6g}   {verdict}" if name in TARGETS else ""
        print(f"  {name:40} {value:12.3f}   {target}".rstrip())
