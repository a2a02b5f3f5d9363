"""manage.py up: one process to start and to stop, and nothing that stays down or stays behind."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from nodes.management.commands.up import is_for_this_machine_alone
from tests.lab.processes import starttime
from tests.lab.waiting import wait_for
from tests.running import RunningConsole, cpu_seconds, wait_until_gone

POLLED = r"Task nodes.tasks.poll\[\S+ succeeded"
QUICK = {"MUSTER_LOG_LEVEL": "INFO", "MUSTER_POLL_SECONDS": "1"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="muster-up-") as name:
        yield Path(name) / "data"


@pytest.fixture(scope="module")
def console() -> Iterator[RunningConsole]:
    with (
        tempfile.TemporaryDirectory(prefix="muster-up-") as name,
        RunningConsole(Path(name), environment=QUICK) as running,
    ):
        running.wait_to_say(POLLED)
        yield running


def environment_of(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def count_polls(console: RunningConsole) -> int:
    return console.said().count("Task nodes.tasks.poll") // 2


def refusal(folder: Path, *words: str) -> str:
    """What `up` says where it does not start."""
    variables = {**os.environ, "MUSTER_DATA": str(folder)}
    command = [".venv/bin/python", "manage.py", "up", *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr.strip()


def login_cookie(console: RunningConsole, **headers: str) -> str:
    """What the page for signing in sets; the session's cookie has the same flags."""
    asked = urllib.request.Request(f"{console.url}/admin/login/", headers=headers)  # noqa: S310
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        return str(answer.headers["Set-Cookie"])


def test_a_first_start_says_how_to_make_a_user_and_that_works_as_written(console: RunningConsole) -> None:
    [command] = re.findall("nobody can sign in yet: run `(.+)` in another terminal", console.said())
    done = subprocess.run(
        command.replace("NAME", "dora"), shell=True, input="correct horse battery\n", capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("dora can sign in.\n", "")


def test_a_console_for_this_machine_alone_can_be_used_by_plain_http(console: RunningConsole) -> None:
    assert "Secure" not in login_cookie(console)


def test_behind_a_proxy_on_loopback_cookies_are_for_tls_alone(folder: Path) -> None:
    named = {"MUSTER_ALLOWED_HOSTS": "muster.example.com,127.0.0.1", "MUSTER_TRUST_PROXY": "1"}
    with RunningConsole(folder, environment=named) as console:
        cookie = login_cookie(console, **{"Host": "muster.example.com", "X-Forwarded-Proto": "https"})
    assert "Secure" in cookie


@pytest.mark.parametrize(
    ("host", "setting", "value"),
    [
        ("0.0.0.0", "ALLOWED_HOSTS", ["localhost"]),
        ("127.0.0.1", "ALLOWED_HOSTS", ["localhost", "muster.example.com"]),
        ("127.0.0.1", "CSRF_TRUSTED_ORIGINS", ["https://muster.example.com"]),
        ("127.0.0.1", "SECURE_PROXY_SSL_HEADER", ("HTTP_X_FORWARDED_PROTO", "https")),
    ],
)
def test_each_sign_of_other_machines_asks_for_tls(
    monkeypatch: pytest.MonkeyPatch, host: str, setting: str, value: object
) -> None:
    monkeypatch.setattr(settings, "ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
    assert is_for_this_machine_alone("127.0.0.1")
    monkeypatch.setattr(settings, setting, value)
    assert not is_for_this_machine_alone(host)


def test_keys_and_broker_are_for_their_owner_alone(console: RunningConsole) -> None:
    rights = {
        name: (console.folder / name).stat().st_mode & 0o777
        for name in ("keyrings/peers", "keyrings/nodes", "secret_key", "muster.sqlite3", "broker.sock")
    }
    assert rights == {
        "keyrings/peers": 0o600,
        "keyrings/nodes": 0o600,
        "secret_key": 0o600,
        "muster.sqlite3": 0o600,
        "broker.sock": 0o700,
    }


def test_only_the_worker_is_told_where_the_keyring_of_the_nodes_is(console: RunningConsole) -> None:
    told = {name: environment_of(pid).get("MUSTER_KEYRING_NODES", "") for name, pid in console.children().items()}
    assert told == {"broker": "", "web": "/dev/null", "worker": "", "beat": "/dev/null"}


def test_an_idle_worker_costs_next_to_nothing(console: RunningConsole) -> None:
    """A poll each second is fifteen times as busy as an idle Console with no server is."""
    pid, polls = console.children()["worker"], count_polls(console)
    before = cpu_seconds(pid)
    wait_for(lambda: count_polls(console) >= polls + 5, 30, "five more polls", interval=0.1)
    assert cpu_seconds(pid) - before < 0.75


def test_a_second_up_on_the_same_data_is_refused(console: RunningConsole) -> None:
    said = refusal(console.folder, "--bind", "127.0.0.2:8000")
    assert said == f"CommandError: a Console is running on {console.folder} already"


@pytest.mark.parametrize("part", ["broker", "web", "worker", "beat"])
def test_a_part_that_is_killed_comes_back_and_work_goes_on(console: RunningConsole, part: str) -> None:
    """E3, F4, F5: no part needs a hand after a crash of another."""
    before = console.children()[part]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: console.children().get(part, before) != before, 30, f"another {part}")
    polls = count_polls(console)
    wait_for(lambda: count_polls(console) >= polls + 2, 60, "two more polls", interval=0.1)
    wait_for(console.is_healthy, 30, "an answer of the web")


def test_a_broker_that_was_silent_for_a_while_is_used_again(console: RunningConsole) -> None:
    broker, said = console.children()["broker"], console.said()
    os.kill(broker, signal.SIGSTOP)
    try:
        wait_for(lambda: "Couldn't apply scheduled task" in console.said()[len(said) :], 30, "beat to notice")
    finally:
        os.kill(broker, signal.SIGCONT)
    polls = count_polls(console)
    wait_for(lambda: count_polls(console) >= polls + 2, 60, "two more polls", interval=0.1)


def test_stopping_it_stops_all_of_it(folder: Path) -> None:
    with RunningConsole(folder, environment=QUICK) as console:
        children = console.children()
        assert sorted(children) == ["beat", "broker", "web", "worker"]
        births = {pid: starttime(pid) for pid in children.values()}
        assert console.stop(signal.SIGINT) == 0
        assert console.said().rstrip().endswith("all stopped")
        wait_until_gone(births, 0)


def test_nothing_is_left_where_it_is_killed_without_a_word(folder: Path) -> None:
    with RunningConsole(folder, environment=QUICK) as console:
        births = {pid: starttime(pid) for pid in console.children().values()}
        assert len(births) == 4
        assert console.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_until_gone(births, 20)


def test_a_port_that_is_taken_is_said_so(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        said = refusal(folder, "--bind", bind)
    assert said == f"CommandError: --bind {bind}: Address already in use; choose another (make run BIND=...)"


@pytest.mark.parametrize("bind", ["8000", "127.0.0.1:", "127.0.0.1:99999", ":8000", "127.0.0.1:٣"])
def test_a_bind_that_is_no_address_and_port_is_refused(folder: Path, bind: str) -> None:
    assert refusal(folder, "--bind", bind) == f"CommandError: --bind {bind}: write ADDRESS:PORT, such as 127.0.0.1:8000"
