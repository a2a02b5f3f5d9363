"""Settings from the environment: what is wrong is refused by name, never guessed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import env


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("", False)])
def test_a_truth_value_is_read(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("MUSTER_X", text)
    assert env.env_bool("MUSTER_X", default=not value) is value


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (env.env_bool, "maybe", "MUSTER_X='maybe' is not a truth value: use 1 or 0"),
        (lambda name: env.env_int(name, 1, low=1, high=64), "65", "MUSTER_X='65' must be a whole number from 1 to 64"),
        (lambda name: env.env_int(name, 1), "-1", "MUSTER_X='-1' must be a whole number from 0 to 2147483648"),
        (lambda name: env.env_int(name, 1), "1.0", "MUSTER_X='1.0' must be a whole number from 0 to 2147483648"),
        (lambda name: env.env_int(name, 1), "²", "MUSTER_X='²' must be a whole number from 0 to 2147483648"),
        (lambda name: env.env_database(name, ""), "mysql://x", "MUSTER_X must start with sqlite:/// or postgresql://"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], object], text: str, message: str
) -> None:
    monkeypatch.setenv("MUSTER_X", text)
    with pytest.raises(ImproperlyConfigured) as refusal:
        read("MUSTER_X")
    assert str(refusal.value) == message


def test_a_secret_comes_from_a_file_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUSTER_X", "plain")
    assert env.env_secret("MUSTER_X") == "plain"
    (tmp_path / "x").write_text("from the file\n")
    monkeypatch.setenv("MUSTER_X_FILE", str(tmp_path / "x"))
    assert env.env_secret("MUSTER_X") == "from the file"
    monkeypatch.setenv("MUSTER_X_FILE", str(tmp_path / "none"))
    with pytest.raises(ImproperlyConfigured):
        env.env_secret("MUSTER_X")


def test_an_own_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """C10"""
    first = env.own_secret(tmp_path / "a" / "key")
    assert env.own_secret(tmp_path / "a" / "key") == first
    assert env.own_secret(tmp_path / "b" / "key") != first
    assert len(first) >= 64
    assert (tmp_path / "a" / "key").stat().st_mode & 0o777 == 0o600


def test_a_database_url_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_X", "postgresql://us%40er:p%2Fw@db.example.com:5433/mus%20ter?host=/run/pg")
    found = env.env_database("MUSTER_X", "")
    names = ("NAME", "USER", "PASSWORD", "HOST", "PORT")
    assert [found[name] for name in names] == ["mus ter", "us@er", "p/w", "/run/pg", "5433"]
    monkeypatch.setenv("MUSTER_X", "sqlite:////var/lib/muster/x.sqlite3")
    assert env.env_database("MUSTER_X", "")["NAME"] == "/var/lib/muster/x.sqlite3"


def test_a_list_is_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_X", " a, b,,c ")
    assert env.env_list("MUSTER_X") == ["a", "b", "c"]
