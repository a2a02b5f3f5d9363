"""The rules of the house that a machine can check: who imports whom, and what is never written."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("audit", "fleet", "peers", "nodes")
DOORS = {"tasks", "admin", "api", "views", "forms", "questions", "dashboard", "apps", "management", "templatetags"}
# These know nothing of Django: text or values in, values out.
PURE = (
    "audit/verbs.py",
    "fleet/pools.py",
    "fleet/sealing.py",
    "nodes/bootstrap.py",
    "nodes/chain.py",
    "nodes/faults.py",
    "nodes/hostkeys.py",
    "nodes/lanes.py",
    "nodes/observe.py",
    "nodes/plan.py",
    "nodes/pool.py",
    "nodes/render.py",
    "nodes/state.py",
    "nodes/supervisor.py",
    "nodes/transport.py",
    "peers/client_config.py",
    "peers/entitlement.py",
    "peers/keys.py",
    "peers/windows.py",
)
SCRIPT, INSTALLER = "nodes/script/muster_node.py", "nodes/script/muster_install.py"
LONGEST_SCRIPTS = {SCRIPT: 1800, INSTALLER: 400}
SCRIPT_PYTHON = (3, 9)
BANNED_NAMES = {"utils", "helpers", "common", "misc", "base", "manager", "core"}
LONGEST_FUNCTION, LONGEST_FILE, LONGEST_SCRIPT_FUNCTION = 60, 400, 30
NEVER = (
    ("shell=True", r"shell\s*=\s*True"),
    ("a policy that trusts unknown host keys", r"AutoAddPolicy|WarningPolicy"),
    ("pickle", r"\bpickle\b"),
    ("mark_safe", r"\bmark_safe\b"),
    ("verify=False", r"verify\s*=\s*False"),
    ("signals by @receiver", r"@receiver\b"),
)
NEVER_IN_TESTS = (
    ("a skipped or expected failure", r"pytest\.(mark\.)?(skip|xfail|skipif|importorskip)\b|unittest\.skip"),
    ("sleeping; wait for a condition with tests.lab.waiting", r"\btime\.sleep\("),
)
# The one helper that waits, programs that run on machines of the lab, and the bench, which measures idle time.
MAY_SLEEP = {
    *("tests/lab/waiting.py", "tests/lab/relay.py", "tests/lab/systemctl.py", "tests/lab/node_init.py"),
    "tests/bench/measure.py",
}


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "migrations" not in path.parts]


OURS = python_files(*LAYERS, "config")
TESTS = python_files("tests")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import; `from a import b` counts as a.b."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: write the whole name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def rank_of(app: str, dotted: str) -> int:
    """0 for models, 1 for what works on them, 2 for doors; pure modules may be imported by all."""
    words = dotted.split(".")
    module = words[1] if len(words) > 1 else ""
    if f"{app}/{module}.py" in PURE:
        return 0
    return 0 if module == "models" else 2 if module in DOORS else 1


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


@pytest.mark.parametrize("app", LAYERS)
def test_an_app_imports_only_to_its_left(app: str) -> None:
    forbidden = {*LAYERS[LAYERS.index(app) + 1 :], "config", "tests"}
    wrong = [
        f"{name_of(path)}:{line} imports {dotted}"
        for path in python_files(app)
        for line, dotted in imports_of(path)
        if dotted.split(".")[0] in forbidden
    ]
    assert wrong == []


def test_no_part_of_the_console_imports_the_tests() -> None:
    wrong = [name_of(path) for path in OURS for _, dotted in imports_of(path) if dotted.split(".")[0] == "tests"]
    assert wrong == []


@pytest.mark.parametrize("app", LAYERS)
def test_inside_an_app_nothing_imports_its_doors_but_doors(app: str) -> None:
    wrong = []
    for path in python_files(app):
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        wrong += [
            f"{own}:{line} imports {dotted}"
            for line, dotted in imports_of(path)
            if rank_of(app, own) == 1 and dotted.split(".")[0] in LAYERS and rank_of(dotted.split(".")[0], dotted) == 2
        ]
    assert wrong == []


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_knows_nothing_of_django(name: str) -> None:
    heads = {dotted.split(".")[0] for _, dotted in imports_of(ROOT / name)}
    assert heads & {"django", "rest_framework", "celery", "auditlog", "unfold"} == set()


def test_a_pure_module_imports_no_models() -> None:
    wrong = [name for name in PURE for _, dotted in imports_of(ROOT / name) if ".models." in dotted]
    assert wrong == []


@pytest.mark.parametrize("script", LONGEST_SCRIPTS)
def test_what_runs_on_a_server_needs_nothing_but_an_old_python(script: str) -> None:
    """And the installer needs muster-node, which it finds on the server."""
    text = (ROOT / script).read_text()
    ast.parse(text, feature_version=SCRIPT_PYTHON)
    heads = {dotted.removeprefix("nodes.script.").split(".")[0] for _, dotted in imports_of(ROOT / script)}
    allowed = {"__future__", *sys.stdlib_module_names, *(["muster_node"] if script == INSTALLER else [])}
    assert heads - allowed == set()
    assert len(text.splitlines()) <= LONGEST_SCRIPTS[script]
    long = [f"{f.name}: {length_of(f)}" for f in functions_of(ROOT / script) if length_of(f) > LONGEST_SCRIPT_FUNCTION]
    assert long == []


def test_no_module_is_named_for_nothing() -> None:
    assert [name_of(path) for path in [*OURS, *TESTS] if path.stem in BANNED_NAMES] == []


def test_every_function_fits_on_a_screen() -> None:
    long = [
        f"{name_of(path)}: {function.name} has {length_of(function)} lines"
        for path in [*OURS, *TESTS]
        for function in functions_of(path)
        if length_of(function) > LONGEST_FUNCTION
    ]
    assert long == []


def test_every_file_can_be_read_in_one_sitting() -> None:
    files = [path for path in [*OURS, *TESTS] if name_of(path) != SCRIPT]
    counts = {name_of(path): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in counts.items() if count > LONGEST_FILE} == {}


def test_no_rule_hides_in_save_or_delete() -> None:
    hidden = [
        f"{name_of(path)}: {owner.name}.{item.name}"
        for path in OURS
        if path.stem != "forms"
        for owner in ast.walk(tree_of(path))
        if isinstance(owner, ast.ClassDef)
        for item in owner.body
        if isinstance(item, ast.FunctionDef) and item.name in {"save", "delete"}
    ]
    assert hidden == []


def late_imports_of(path: Path) -> set[int]:
    """Lines of imports inside functions."""
    inner = [node for function in functions_of(path) for node in ast.walk(function)]
    return {node.lineno for node in inner if isinstance(node, ast.Import | ast.ImportFrom)}


def test_late_imports_say_why() -> None:
    silent = []
    for path in OURS:
        lines = path.read_text().splitlines()
        late = sorted(late_imports_of(path))
        silent += [f"{name_of(path)}:{n}" for n in late if not re.search(r"# noqa: PLC0415 - \w+", lines[n - 1])]
    assert silent == []


@pytest.mark.parametrize(("what", "pattern"), NEVER)
def test_the_code_never_has(what: str, pattern: str) -> None:
    found = [name_of(path) for path in OURS if re.search(pattern, path.read_text())]
    assert found == [], what


@pytest.mark.parametrize(("what", "pattern"), NEVER_IN_TESTS)
def test_the_tests_never_have(what: str, pattern: str) -> None:
    files = [path for path in TESTS if path != Path(__file__) and name_of(path) not in MAY_SLEEP]
    found = [name_of(path) for path in files if re.search(pattern, path.read_text())]
    assert found == [], what


def test_no_broad_catch_only_logs() -> None:
    """What is caught broadly is raised again. The node script alone answers it, as a session must go on."""
    wrong = []
    for path in OURS:
        if name_of(path) == SCRIPT:
            continue
        for node in [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]:
            caught = ast.unparse(node.type) if node.type else "BaseException"
            is_broad = caught in {"Exception", "BaseException"}
            if is_broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert wrong == []
