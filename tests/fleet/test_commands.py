"""The commands by which a new Console gets its users, tokens and keyrings."""

import io
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from audit.models import Event
from fleet.models import ApiToken, Environment, Role, User
from fleet.tokens import digest_of


def run(monkeypatch: pytest.MonkeyPatch, *words: str, password: str = "correct horse battery") -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue().strip()


@pytest.mark.django_db
def test_an_administrator_can_sign_in_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "add_user", "dora", "--admin") == "dora can sign in."
    user = User.objects.get(username="dora")
    assert (user.is_superuser, user.check_password("correct horse battery")) == (True, True)
    assert list(Event.objects.values_list("verb", "origin", "origin_detail")) == [("user.add", "command", "add_user")]


def test_an_operator_gets_the_role_where_it_was_said(monkeypatch: pytest.MonkeyPatch, staging: Environment) -> None:
    run(monkeypatch, "add_user", "dora", "--role", "operator", "--environment", "staging")
    roles = Role.objects.values_list("user__username", "user__is_superuser", "name", "environment__name")
    assert list(roles) == [("dora", False, "operator", "staging")]


@pytest.mark.parametrize(
    ("words", "password", "message"),
    [
        (["--admin"], "short", "This password is too short"),
        (["--admin"], "password123", "This password is too common"),
        (
            ["--admin", "--environment", "staging"],
            "correct horse battery",
            "--environment is for --role: an administrator may do everything everywhere.",
        ),
        (
            ["--role", "operator", "--environment", "nowhere"],
            "correct horse battery",
            "No environment is called nowhere",
        ),
    ],
)
@pytest.mark.django_db
def test_a_user_who_cannot_be_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch, words: list[str], password: str, message: str
) -> None:
    with pytest.raises(CommandError, match=f"^{message}"):
        run(monkeypatch, "add_user", "dora", *words, password=password)
    assert (User.objects.count(), Event.objects.count()) == (0, 0)


def test_a_token_is_printed_once_and_kept_as_a_hash(monkeypatch: pytest.MonkeyPatch, alice: User) -> None:
    text = run(monkeypatch, "add_token", "alice", "nightly", "--scope", "operate", "--days", "7")
    token = ApiToken.objects.get()
    assert (token.user, token.name, token.scope, token.digest) == (alice, "nightly", "operate", digest_of(text))
    assert token.expires_at is not None
    assert (token.expires_at - token.created_at).days in {6, 7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nobody", "nightly"], "No user is called nobody."),
        (["alice", "nightly", "--days", "0"], "Give 1 to 3650 days."),
        (["alice", "nightly", "--days", "99999999999"], "Give 1 to 3650 days."),
        (["alice", "a\nb"], "Use 1 to 63 lower-case letters, digits, dots and dashes, not at the ends."),
    ],
)
def test_a_token_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, alice: User, words: list[str], message: str
) -> None:
    with pytest.raises(CommandError) as refused:
        run(monkeypatch, "add_token", *words)
    assert (str(refused.value), ApiToken.objects.count()) == (message, 0)


def test_keyrings_are_made_once(db: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PEERS", "NODES", "NODES_PUBLIC"):
        monkeypatch.setattr(settings, f"KEYRING_{name}", tmp_path / name.lower())
    said = run(monkeypatch, "make_keyrings")
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert said == f"{tmp_path}/peers: made\n{tmp_path}/nodes: made"
    assert sorted(made) == ["nodes", "nodes_public", "peers"]
    again = run(monkeypatch, "make_keyrings")
    assert again == f"{tmp_path}/peers: was there already\n{tmp_path}/nodes: was there already"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
