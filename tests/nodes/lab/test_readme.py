"""The README's main job, line by line in a shell as it is written, against machines of the lab."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.lab.demo import exports
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.running import ROOT, RunningConsole

pytestmark = pytest.mark.lab
CONFIRMED = """until muster revocations/$REVOCATION | grep -q '"state":"confirmed"'; do sleep 0.1; done"""


@pytest.fixture
def console() -> Iterator[RunningConsole]:
    with tempfile.TemporaryDirectory(prefix="muster-readme-") as name, RunningConsole(Path(name)) as running:
        yield running


def main_job() -> tuple[str, str, str]:
    """The functions, the lines that add a server, and those from the person on."""
    functions, server, person = re.split(r"^(?=ENVIRONMENT=|PERSON=)", lines_of("The main job"), flags=re.MULTILINE)
    return functions, server, person


def lines_of(section: str) -> str:
    text = (ROOT / "README.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return "\n".join(line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ") or not line)


def on_machine(server: str, lab: Lab, machine: Server) -> str:
    """With what a reader puts in place of the examples."""
    mine = {
        '"198.51.100.7"': f'"{machine.address}"',
        '"vpn.example.com"': f'"{machine.address}"',
        '"SHA256:..."': f'"{machine.host_key_fingerprint}"',
        '"debian"': '"root"',
        '"password": "for ssh and sudo, used once, then gone"': f'"private_key": {json.dumps(lab.ssh_key.read_text())}',
    }
    for example, real in mine.items():
        assert server.count(example) == 1
        server = server.replace(example, real)
    return server


def in_a_shell(folder: Path, *parts: str) -> str:
    script = "\n".join(["set -eu", *parts, CONFIRMED])
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_of_the_readme_run_as_written(lab: Lab, console: RunningConsole, tmp_path: Path) -> None:
    """All of them on an empty Console; then from the person on, as on the demo, by the line that the demo prints."""
    machine = lab.add_server()
    console.manage("add_user", "alice", "--admin", input="correct horse battery\n")
    token = console.manage("add_token", "alice", "script", "--scope", "operate").strip()
    functions, server, person = main_job()
    given = f"CONSOLE={console.url} TOKEN={token}"
    teams = lines_of("Teams, hours and leavers")
    said = in_a_shell(tmp_path, given, functions, on_machine(server, lab, machine), person, teams)
    words = ('"state":"done"', "PASTE-THE-PRIVATE-KEY", '"receipts":[{', '"label":"everything of Bob"', '"Bob"')
    assert [word in said for word in words] == [True] * len(words)
    line = exports(console, Api(console.url, token))
    again = in_a_shell(tmp_path, line, "ENVIRONMENT=1", functions, person)
    assert "PASTE-THE-PRIVATE-KEY" in again


def test_the_line_of_the_demo_leads_a_shell_to_its_console(console: RunningConsole) -> None:
    console.manage("add_user", "alice", "--admin", input="correct horse battery\n")
    api = Api(console.url, console.manage("add_token", "alice", "script", "--scope", "operate").strip())
    staging = [api.post("environments", name=name)["id"] for name in ("production", "staging")][1]
    line = f"{exports(console, api)}; {sys.executable} manage.py add_token alice other; echo $CONSOLE $ENVIRONMENT"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[1:] == [f"{console.url} {staging}"]
