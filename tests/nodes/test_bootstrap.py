"""The one-time login: who may get a byte, how root is reached, and what a failure says; with real sshd and sudo."""

import logging
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes.bootstrap import InstallResult, Login, install_node
from nodes.faults import InstallFailed
from nodes.transport import AuthRefused, HostKeyMismatch, NodeSilent, fingerprint
from tests.nodes.sshd import Sshd, make_key, never_speaks, sshd, tcp_server

PASSWORD = "correct horse $(id) '\" staple"
SCRIPT = b"#!/usr/bin/python3 -IS\n" + b"#" * 500_000
INSTALLER = Path(__file__).with_name("installer.py").read_bytes() + b"#" * 100_000
REQUEST: dict[str, object] = {"interface": {"listen_port": 51820}, "packages": True}
SUDOERS = """Defaults !lecture
alice ALL=(ALL) ALL
bob ALL=(ALL) NOPASSWD: ALL
dora ALL=(ALL) PASSWD: ALL, NOPASSWD: /bin/sh, /usr/bin/sh
"""
USERS = ("alice", "bob", "carol", "dora")


def make_users(folder: Path) -> tuple[str, ...]:
    """Accounts that exist for one sshd alone: its own /etc files in its own mount namespace."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    ).stdout.strip()
    passwd, shadow = Path("/etc/passwd").read_text(), Path("/etc/shadow").read_text()
    for number, user in enumerate(USERS, 4200):
        passwd += f"{user}:x:{number}:65534::/tmp:/bin/sh\n"
        shadow += f"{user}:{hashed}:19000:0:99999:7:::\n"
    for name, text, mode in (("passwd", passwd, 0o644), ("shadow", shadow, 0o600), ("sudoers", SUDOERS, 0o440)):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    mounts = [f"mount --bind {folder}/{name} /etc/{name}" for name in ("passwd", "shadow", "sudoers")]
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*mounts, 'exec "$@"']), "sshd")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # the users read the authorized key through it
        yield Path(name)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Sshd]:
    extra = "PasswordAuthentication yes\n"
    with sshd(folder / "server", authorized="", extra=extra, prefix=make_users(folder)) as running:
        yield running


def key_of(server: Sshd) -> str:
    return (server.folder / "login").read_text()


def install(server: Sshd, login: Login, path: Path, **changed: Any) -> InstallResult:
    fields: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "login": login,
        "host_key": server.host_keys["ed25519"],
        "script": SCRIPT,
        "installer": INSTALLER,
        "interface": "wg0",
        "request": REQUEST,
        "timeout": 60,
        "script_path": str(path / "sbin" / "muster-node"),
    }
    return install_node(**(fields | changed))


def failure(server: Sshd, login: Login, path: Path, **changed: Any) -> InstallFailed:
    with pytest.raises(InstallFailed) as caught:
        install(server, login, path, **changed)
    return caught.value


def logins(server: Sshd) -> list[Login]:
    return [
        Login("root", private_key=key_of(server)),
        Login("bob", private_key=key_of(server)),
        Login("bob", PASSWORD),
        Login("alice", PASSWORD),
        Login("alice", PASSWORD, key_of(server)),
        Login("dora", PASSWORD),
    ]


@pytest.mark.parametrize("which", range(6), ids=["root", "bob-key", "bob", "alice", "alice-both", "dora"])
def test_each_way_in_installs_as_root(server: Sshd, tmp_path: Path, which: int) -> None:
    """The script holds every byte and none other, whether or not sudo asked for the password; nothing else is left."""
    result = install(server, logins(server)[which], tmp_path)
    script = tmp_path / "sbin" / "muster-node"
    assert script.read_bytes() == SCRIPT
    status = script.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)
    assert [path.name for path in script.parent.iterdir()] == ["muster-node"]
    assert result.host_key == server.host_keys["ed25519"]
    told = {name: result.answer[name] for name in ("ok", "uid", "program", "request", "rest")}
    assert told == {"ok": True, "uid": 0, "program": str(script), "request": REQUEST, "rest": ""}


def test_no_secret_is_in_a_command_a_log_or_a_progress_line(
    server: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C1: the password goes over standard input alone."""
    caplog.set_level(logging.DEBUG)
    lines: list[str] = []
    result = install(server, Login("alice", PASSWORD), tmp_path, progress=lines.append)
    seen = [str(result.answer["calls"]), server.log, caplog.text, *lines]
    assert [text for text in seen if "correct horse" in text] == []
    assert "sudo" in str(result.answer["calls"])


def test_progress_tells_the_steps_and_what_the_machine_prints(server: Sshd, tmp_path: Path) -> None:
    lines: list[str] = []
    install(server, logins(server)[0], tmp_path, progress=lines.append)
    assert lines == [
        f"connecting to 127.0.0.1 port {server.port}",
        f"writing {tmp_path}/sbin/muster-node",
        "installing on wg0; missing packages may take minutes",
        "Setting up wireguard-tools",
        "done",
    ]


def test_installing_again_replaces_the_script(server: Sshd, tmp_path: Path) -> None:
    login = logins(server)[0]
    install(server, login, tmp_path)
    install(server, login, tmp_path, script=SCRIPT + b"\n# newer")
    assert (tmp_path / "sbin" / "muster-node").read_bytes() == SCRIPT + b"\n# newer"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_confirmed_fingerprint_of_any_type_is_found(server: Sshd, tmp_path: Path, kind: str) -> None:
    confirmed = fingerprint(server.host_keys[kind])
    assert install(server, logins(server)[0], tmp_path, host_key=confirmed).host_key == server.host_keys[kind]


def test_another_host_key_or_fingerprint_gets_no_login(server: Sshd, tmp_path: Path) -> None:
    """B14: not one attempt to log in, and no script, without the confirmed key."""
    stranger = make_key(tmp_path / "stranger")
    before = server.log
    for confirmed in (stranger, fingerprint(stranger)):
        with pytest.raises(HostKeyMismatch) as caught:
            install(server, Login("alice", PASSWORD), tmp_path, host_key=confirmed)
        assert caught.value.expected == fingerprint(stranger)
        assert f"you gave {fingerprint(stranger)}; nothing was sent" in str(caught.value)
        assert f"the machine shows {fingerprint(server.host_keys['ed25519'])}" in str(caught.value)
        assert "none of type" not in str(caught.value)
    noted = server.log.removeprefix(before)
    # No name alone is looked for: an earlier test's login may be noted as ended only now.
    assert [word for word in ("Accepted", "Failed", "Invalid user", "authenticating user") if word in noted] == []


@pytest.mark.parametrize("confirmed", ["", "SHA256:short", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-dss AAAAB3Nz"])
def test_what_is_no_host_key_is_refused(server: Sshd, tmp_path: Path, confirmed: str) -> None:
    with pytest.raises(ValueError, match=r"host key|fingerprint"):
        install(server, logins(server)[0], tmp_path, host_key=confirmed)


@pytest.mark.parametrize("user", ["alice", "nosuchuser"])
def test_a_wrong_password_is_refused_and_not_shown(server: Sshd, tmp_path: Path, user: str) -> None:
    with pytest.raises(AuthRefused) as caught:
        install(server, Login(user, "wrong battery"), tmp_path)
    assert str(caught.value).endswith(
        f"refused; the password is wrong, or sshd takes none for {user} (PermitRootLogin, PasswordAuthentication)"
    )
    assert "battery" not in str(caught.value)
    assert "battery" not in repr(Login(user, "wrong battery", "battery"))


def test_a_login_with_nothing_to_show_is_refused(server: Sshd, tmp_path: Path) -> None:
    with pytest.raises(AuthRefused):
        install(server, Login("root"), tmp_path)


def test_a_user_without_sudo_is_told_so(server: Sshd, tmp_path: Path) -> None:
    error = failure(server, Login("carol", PASSWORD), tmp_path)
    assert (error.step, "carol" in str(error), "correct horse" in str(error)) == ("sudo", True, False)


def test_a_key_alone_where_sudo_wants_a_password_says_what_to_do(server: Sshd, tmp_path: Path) -> None:
    error = failure(server, Login("alice", private_key=key_of(server)), tmp_path)
    assert (error.step, "NOPASSWD" in str(error)) == ("sudo", True)


def test_a_failing_install_shows_its_last_words_and_no_password(server: Sshd, tmp_path: Path) -> None:
    request = REQUEST | {"password": PASSWORD}
    error = failure(server, Login("alice", PASSWORD), tmp_path, interface="wgfail", request=request)
    assert error.step == "install"
    assert str(error).endswith("E: no space left, said with ***")


def test_a_refusing_install_gives_its_code(server: Sshd, tmp_path: Path) -> None:
    error = failure(server, logins(server)[0], tmp_path, interface="wgforeign")
    assert (error.step, error.code, str(error)) == (
        "install",
        "foreign_conf",
        "install: wgforeign.conf is not ours",
    )


@pytest.mark.parametrize(("interface", "said"), [("wgsilent", "gave no answer"), ("wgflood", "more than 1 MiB")])
def test_an_install_without_an_answer_fails(server: Sshd, tmp_path: Path, interface: str, said: str) -> None:
    assert said in str(failure(server, logins(server)[0], tmp_path, interface=interface))


def test_a_daemon_left_behind_holds_nobody_up(server: Sshd, tmp_path: Path) -> None:
    assert install(server, logins(server)[0], tmp_path, interface="wgdaemon", timeout=4).answer["ok"] is True


def test_an_install_that_hangs_is_given_up(server: Sshd, tmp_path: Path) -> None:
    """E5: the deadline is for all steps together."""
    error = failure(server, logins(server)[0], tmp_path, interface="wghang", timeout=1.5)
    assert (error.step, "no answer within" in str(error)) == ("install", True)


def test_a_machine_that_never_speaks_is_given_up(server: Sshd, tmp_path: Path) -> None:
    with tcp_server(never_speaks) as port, pytest.raises(NodeSilent):
        install(server, logins(server)[0], tmp_path, port=port, timeout=0.4)


def test_a_place_that_cannot_be_written_names_the_step(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "sbin").write_text("a file where a folder should be")
    error = failure(server, logins(server)[0], tmp_path)
    assert (error.step, "FileExistsError" in str(error)) == ("script", True)


@pytest.mark.parametrize("interface", ["", "wg0; reboot", "-h wg0", "a" * 16, "../wg0"])
def test_a_name_that_is_no_interface_is_refused(server: Sshd, tmp_path: Path, interface: str) -> None:
    """A1: nothing of a name is ever read as a command."""
    before = server.log
    assert failure(server, logins(server)[0], tmp_path, interface=interface).step == "interface"
    assert server.log == before


def test_a_jump_leads_to_a_bare_machine(server: Sshd, folder: Path, tmp_path: Path) -> None:
    with sshd(tmp_path / "jump", authorized="restrict,port-forwarding") as jump:
        assert install(server, logins(server)[0], tmp_path, jump=jump.target()).answer["uid"] == 0
        assert jump.logins == 1


def test_a_machine_without_python_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    (folder / "bin").mkdir()
    for tool in ("sh", "id", "bash"):
        (folder / "bin" / tool).symlink_to(f"/bin/{tool}")
    hidden = f'command="PATH={folder}/bin sh -c \\"$SSH_ORIGINAL_COMMAND\\""'
    with sshd(folder / "bare", authorized=hidden) as bare:
        error = failure(bare, logins(bare)[0], tmp_path)
    assert (error.step, "install python3" in str(error)) == ("python3", True)
