"""Takes each guard of mutants.toml out of a copy of the tree in turn; its tests must fail.

`python -m tests.mutants [WORD]`: WORD picks the mutants whose file or guard holds it. The checkout is never touched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600


@dataclass(frozen=True)
class Mutant:
    """`pattern` is plain text that stands exactly once in `file`; `guards` says in words what it keeps, and
    `database` which one its tests need to notice."""

    guards: str
    file: str
    pattern: str
    replacement: str
    tests: tuple[str, ...]
    database: str = "sqlite"

    def apply(self, tree: Path) -> str:
        """Write the mutated file; the text it had."""
        path = tree / self.file
        before = path.read_text()
        count = before.count(self.pattern)
        if count != 1:
            raise SystemExit(f"{self.file}: the pattern of {self.guards!r} stands there {count} times, not once")
        path.write_text(before.replace(self.pattern, self.replacement))
        return before


def read(word: str = "") -> list[Mutant]:
    """The mutants whose file or guard holds `word`."""
    rows = tomllib.loads((ROOT / "tests/mutants.toml").read_text())["mutant"]
    all_of_them = [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]
    return [mutant for mutant in all_of_them if word in f"{mutant.file} {mutant.guards}"]


@contextmanager
def copy_of_tree() -> Iterator[Path]:
    """What is not ignored, in a folder of its own."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="muster-mutants-") as folder:
        tree = Path(folder) / "tree"
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        (tree / ".venv").symlink_to(ROOT / ".venv")
        yield tree


def run_tests(tree: Path, tests: Sequence[str], database: str = "sqlite") -> tuple[int, str]:
    """pytest's exit status, and its last line."""
    runner = ["pytest"] if database == "sqlite" else ["tests.databases", database]
    command = [sys.executable, "-B", "-m", *runner, "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    with tempfile.TemporaryDirectory(prefix="muster-mutant-") as data:
        variables = {**os.environ, "MUSTER_DATA": data}
        done = subprocess.run(
            command, cwd=tree, env=variables, check=False, capture_output=True, text=True, timeout=LIMIT
        )
    return done.returncode, (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]


def judge(mutant: Mutant, tree: Path) -> bool:
    """Whether its tests noticed. Status 1 is a failed test; any other error proves nothing."""
    began = time.monotonic()
    before = mutant.apply(tree)
    try:
        status, last = run_tests(tree, mutant.tests, mutant.database)
    finally:
        (tree / mutant.file).write_text(before)
    verdict = "noticed" if status == 1 else "SURVIVED" if status == 0 else f"ERROR {status}"
    print(f"{verdict:9} {time.monotonic() - began:6.1f} s  {mutant.file:28} {mutant.guards}", flush=True)
    if status != 1:
        print(f"          {last}")
    return status == 1


def main(words: Sequence[str]) -> int:
    mutants = read(*words[:1])
    with copy_of_tree() as tree:
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        status, last = run_tests(tree, tests)
        print(f"{'unchanged':9} {len(tests)} tests: {last}", flush=True)
        if status != 0:
            return 1
        survivors = [mutant for mutant in mutants if not judge(mutant, tree)]
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} guards are noticed when they are gone")
    return 1 if survivors or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
