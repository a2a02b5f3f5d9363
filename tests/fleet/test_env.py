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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", env.Mail()),
        ("smtp://ann%40x:p%2Fw@mail.example.com", env.Mail("mail.example.com", 587, "ann@x", "p/w", has_starttls=True)),
        ("smtps://mail.example.com", env.Mail("mail.example.com", 465, has_tls=True)),
        ("smtp://relay.example.com:25?tls=no", env.Mail("relay.example.com", 25)),
        ("smtp://127.0.0.1:2525", env.Mail("127.0.0.1", 2525)),
        ("smtp://localhost", env.Mail("localhost", 587)),
    ],
)
def test_a_mail_server_is_spoken_to_in_secret_unless_it_is_here(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: env.Mail
) -> None:
    monkeypatch.setenv("MUSTER_X", text)
    assert env.env_mail("MUSTER_X") == expected


@pytest.mark.parametrize(
    "text",
    ["mail.example.com", "http://ann:hunter2@mail.example.com", "smtp://ann:hunter2@mail:x", "smtp://ann:hunter2@"]
    + [f"smtp://ann:hunter2@mail.example.com?{option}" for option in ("tls=no", "tsl=no")],
)
def test_a_wrong_mail_server_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """C10"""
    monkeypatch.setenv("MUSTER_X", text)
    with pytest.raises(ImproperlyConfigured) as refusal:
        env.env_mail("MUSTER_X")
    assert str(refusal.value).startswith("MUSTER_X")
    assert "hunter2" not in f"{refusal.value} {refusal.value.__cause__} {refusal.value.__context__}"


def test_a_mail_server_comes_from_a_file_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("smtps://ann:hunter2@mail.example.com\n")
    monkeypatch.setenv("MUSTER_X_FILE", str(tmp_path / "x"))
    assert env.env_mail("MUSTER_X").password == "hunter2"


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (
            lambda name: env.env_address(name, is_needed=True),
            "muster@example.com",
            ("", "muster", "a@b\nBcc: c@d", "a@b, c@d", "Muster <a@b>"),
        ),
        (
            env.env_url,
            "https://muster.example.com/console",
            ("muster.example.com", "javascript:alert(1)", "https://x y", "https://x/\nSubject: y", "https://x/?a=1"),
        ),
    ],
)
def test_an_address_is_one(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], str], good: str, bad: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MUSTER_X", good)
    assert read("MUSTER_X") == good
    for text in bad:
        monkeypatch.setenv("MUSTER_X", text)
        with pytest.raises(ImproperlyConfigured, match="MUSTER_X="):
            read("MUSTER_X")


def test_where_no_mail_goes_out_no_address_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_X", "")
    assert (env.env_address("MUSTER_X", is_needed=False), env.env_url("MUSTER_X")) == ("", "")
