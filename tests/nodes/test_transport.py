"""Logging in: pinned host keys, deadlines, jumps; judged by a real sshd and by servers that misbehave."""

import logging
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes import transport
from nodes.transport import (
    AuthRefused,
    HostKeyMismatch,
    NodeSilent,
    Target,
    TransportError,
    Unreachable,
    connect,
    fingerprint,
    scan_host_key,
)
from tests.nodes.sshd import (
    RESPONDER,
    Sshd,
    drips,
    eventually,
    free_port,
    hangs_on,
    hangs_up,
    make_key,
    never_speaks,
    sshd,
    stops_after_banner,
    tcp_server,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "server") as running:
        yield running


def seconds_of_failure(target: Target, kind: type[TransportError], timeout: float) -> float:
    """How long connect() took to raise exactly this error."""
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        connect(target, timeout=timeout)
    assert type(caught.value) is kind
    return time.monotonic() - began


def test_a_request_goes_round(server: Sshd) -> None:
    connection = connect(server.target())
    lane = connection.open_lane("muster-node session wg0")
    assert lane.call("hello", name="Alice").body == {"echo": {"v": 1, "id": 1, "op": "hello", "name": "Alice"}}
    assert connection.host_key == server.host_keys["ed25519"]
    connection.close()


def test_nothing_waits_in_the_socket_for_more(server: Sshd) -> None:
    connection = connect(server.target())
    assert connection.root.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    connection.close()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_key_of_each_type_can_be_pinned(server: Sshd, kind: str) -> None:
    connection = connect(server.target(host_key=server.host_keys[kind]))
    assert connection.host_key == server.host_keys[kind]
    connection.close()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_another_host_key_gets_no_login(server: Sshd, tmp_path: Path, kind: str) -> None:
    """B14: not one authentication attempt reaches a machine that is not the pinned one."""
    stranger = make_key(tmp_path / "stranger", kind)
    log_before = server.log
    with pytest.raises(HostKeyMismatch) as caught:
        connect(server.target(host_key=stranger))
    assert (caught.value.expected, caught.value.presented) == (
        fingerprint(stranger),
        fingerprint(server.host_keys[kind]),
    )
    assert caught.value.is_retryable is False
    eventually(lambda: "[preauth]" in server.log.removeprefix(log_before), "sshd notes that we hung up")
    noted = server.log.removeprefix(log_before)
    assert [word for word in ("user", "root", "publickey", "Accepted", "Failed") if word in noted] == []


def test_a_machine_without_a_key_of_the_pinned_type_gets_no_login(tmp_path: Path) -> None:
    """B14: a machine that only offers another type of key is another machine."""
    with sshd(tmp_path / "server", extra="HostKeyAlgorithms rsa-sha2-512\n") as other:
        with pytest.raises(HostKeyMismatch) as caught:
            connect(other.target())
        assert caught.value.presented == "none of type ssh-ed25519"
        eventually(lambda: "no matching host key type" in other.log, "sshd notes what was asked for")
        assert other.logins == 0


def test_a_host_key_that_is_none_is_refused_before_anything_is_sent() -> None:
    target = Target("127.0.0.1", free_port(), "root", "ssh-dss AAAA", key="")
    with pytest.raises(ValueError, match="begins with one of ssh-ed25519"):
        connect(target)


def test_fingerprints_are_those_of_ssh_keygen(server: Sshd) -> None:
    printed = subprocess.run(
        ["ssh-keygen", "-lf", server.folder / "host_ed25519.pub"], check=True, capture_output=True, text=True
    ).stdout
    assert fingerprint(server.host_keys["ed25519"]) == printed.split()[1]


def test_scanning_lists_what_a_machine_presents(server: Sshd) -> None:
    assert scan_host_key("127.0.0.1", server.port) == list(server.host_keys.values())


def test_another_login_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    key = (tmp_path / "other").read_text()
    with pytest.raises(AuthRefused) as caught:
        connect(server.target(key=key))
    assert caught.value.is_retryable is False


def test_a_broken_login_key_is_refused_without_a_word_of_it(server: Sshd) -> None:
    broken = server.target().key.replace("\n", "\nAB", 3)
    with pytest.raises(AuthRefused) as caught:
        connect(server.target(key=broken))
    assert [line for line in broken.split() if len(line) > 20 and line in str(caught.value)] == []


def test_a_target_does_not_show_its_key(server: Sshd) -> None:
    assert "PRIVATE KEY" not in repr(server.target(jump=server.target()))


def test_a_closed_port_is_refused() -> None:
    with pytest.raises(Unreachable) as caught:
        connect(Target("127.0.0.1", free_port(), "root", PINNED, key=""))
    assert (caught.value.kind, caught.value.is_retryable) == ("refused", True)


def test_a_name_without_an_address_is_unresolvable() -> None:
    with pytest.raises(Unreachable) as caught:
        connect(Target("no..such..name", 22, "root", PINNED, key=""))
    assert caught.value.kind == "unresolvable"


def test_a_machine_that_hangs_up_is_closed() -> None:
    with tcp_server(hangs_up) as port, pytest.raises(Unreachable) as caught:
        connect(Target("127.0.0.1", port, "root", PINNED, key=""))
    assert caught.value.kind == "closed"


@pytest.mark.alone
@pytest.mark.parametrize("behave", [never_speaks, drips, stops_after_banner])
def test_a_machine_that_does_not_shake_hands_holds_nobody_up(behave: object) -> None:
    """E5: silent, a byte at a time, or dead after its banner."""
    with tcp_server(behave) as port:  # type: ignore[arg-type]
        took = seconds_of_failure(Target("127.0.0.1", port, "root", PINNED, key=""), NodeSilent, 0.4)
    assert took < 1


@pytest.mark.alone
def test_a_machine_that_hangs_at_login_holds_nobody_up(server: Sshd) -> None:
    """E5: hangs after the key exchange."""
    with tcp_server(hangs_on("auth", server.folder / "host_ed25519")) as port:
        assert seconds_of_failure(server.target(port=port), NodeSilent, 0.5) < 1


@pytest.mark.alone
@pytest.mark.parametrize("step", ["channel", "exec"])
def test_a_machine_that_hangs_after_login_holds_nobody_up(server: Sshd, step: str) -> None:
    """E5: hangs after auth, or on exec; the connection is given up with it."""
    with tcp_server(hangs_on(step, server.folder / "host_ed25519")) as port:
        connection = connect(server.target(port=port))
        began = time.monotonic()
        with pytest.raises(NodeSilent):
            connection.open_lane("muster-node session wg0", timeout=0.3)
        assert time.monotonic() - began < 1
        eventually(lambda: not connection.is_alive, "the connection is given up")
        connection.close()


def test_a_jump_leads_to_the_machine_behind_it(server: Sshd, tmp_path: Path) -> None:
    with sshd(tmp_path / "jump", authorized=f'restrict,port-forwarding,permitopen="127.0.0.1:{server.port}"') as jump:
        connection = connect(server.target(jump=jump.target()))
        lane = connection.open_lane("muster-node session wg0")
        assert lane.call("hello", load="x" * 300_000).ok
        assert connection.root.getpeername() == ("127.0.0.1", jump.port)
        connection.close()
        eventually(lambda: "Closing connection to" in jump.log, "the jump's connection ends too")


def test_a_jump_with_another_host_key_gets_no_login(server: Sshd, tmp_path: Path) -> None:
    """B14: a jump is pinned like any machine."""
    with sshd(tmp_path / "jump", authorized="restrict,port-forwarding") as jump:
        with pytest.raises(HostKeyMismatch):
            connect(server.target(jump=jump.target(host_key=server.host_keys["ed25519"])))
        assert jump.logins == 0


def test_a_changed_machine_behind_a_jump_gets_no_login(tmp_path: Path) -> None:
    with (
        sshd(tmp_path / "jump", authorized="restrict,port-forwarding") as jump,
        sshd(tmp_path / "end") as end,
    ):
        with pytest.raises(HostKeyMismatch):
            connect(end.target(jump=jump.target(), host_key=jump.host_keys["ed25519"]))
        assert (jump.logins, end.logins) == (1, 0)


def test_a_jump_that_may_not_go_there_is_unreachable(server: Sshd, tmp_path: Path) -> None:
    with sshd(tmp_path / "jump", authorized=f'restrict,command="{RESPONDER}"') as jump:
        with pytest.raises(Unreachable) as caught:
            connect(server.target(jump=jump.target()))
        assert caught.value.kind == "closed"


@pytest.mark.alone
def test_a_silent_machine_behind_a_jump_holds_nobody_up(server: Sshd, tmp_path: Path) -> None:
    """E5: the deadline is one for the whole way."""
    with (
        sshd(tmp_path / "jump", authorized="restrict,port-forwarding") as jump,
        tcp_server(never_speaks) as port,
    ):
        assert seconds_of_failure(server.target(port=port, jump=jump.target()), NodeSilent, 0.8) < 1.5


def test_nothing_is_logged_of_a_login(server: Sshd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connect(server.target()).close()
    assert caplog.records == []


def test_a_server_that_stops_is_noticed(tmp_path: Path) -> None:
    with sshd(tmp_path / "server") as going:
        connection = connect(going.target())
        lane = connection.open_lane("muster-node session wg0")
        assert lane.call("hello").ok
        going.stop()
        eventually(lambda: not connection.is_alive and not lane.is_open, "the end is noticed")
        with pytest.raises(Unreachable):
            lane.call("hello")
        connection.close()


def test_no_policy_takes_unknown_host_keys() -> None:
    """B14: the source knows no policy of paramiko's at all."""
    source = Path(transport.__file__).read_text()
    assert [word for word in ("AutoAdd", "WarningPolicy", "SSHClient", "known_hosts") if word in source] == []


PINNED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOzseX09WQdHoWVCqGf1XsGaGJ1RKUW4pe4tLNjHKVE2"
