"""The pool: one connection a server whoever asks, reopened when the server is told to be another."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodes.pool import Base, Session, SessionPool
from nodes.transport import HostKeyMismatch, NodeSilent, TransportError, Unreachable
from tests.nodes.sshd import Sshd, eventually, hangs_on, never_speaks, sshd, tcp_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with sshd(tmp_path / "server") as running:
        yield running


@pytest.fixture
def pool() -> Iterator[SessionPool]:
    opened = SessionPool()
    yield opened
    opened.close_all()


def test_a_session_has_two_lanes_on_one_connection(server: Sshd, pool: SessionPool) -> None:
    session = pool.open(1, server.target(), "wg0")
    assert (session.work.call("hello").ok, session.revoke.call("revoke").ok) == (True, True)
    assert (server.logins, session.base) == (1, None)


def test_a_session_is_kept_with_its_base(server: Sshd, pool: SessionPool) -> None:
    session = pool.open(1, server.target(), "wg0")
    session.base = Base("abc", {})
    assert pool.get(1) is session
    assert pool.open(1, server.target(), "wg0") is session
    assert (pool.ids(), pool.get(2)) == ([1], None)


def test_eight_threads_at_once_open_one_connection(server: Sshd, pool: SessionPool) -> None:
    """F18: never two connections to one server."""
    barrier = threading.Barrier(8)

    def open_together(_: int) -> Session:
        barrier.wait(10)
        return pool.open(1, server.target(), "wg0")

    with ThreadPoolExecutor(8) as threads:
        sessions = set(threads.map(open_together, range(8)))
    assert (len(sessions), server.logins) == (1, 1)


def test_all_who_wait_for_a_failing_machine_are_told_once(server: Sshd) -> None:
    """E5: eight callers wait for one deadline, not for eight."""
    pool = SessionPool(timeout=0.5)
    barrier = threading.Barrier(8)

    def fail_together(_: int) -> type[BaseException]:
        barrier.wait(10)
        with pytest.raises(TransportError) as caught:
            pool.open(1, server.target(port=port), "wg0")
        return caught.type

    with tcp_server(never_speaks) as port, ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fail_together, range(8), timeout=2)) == {NodeSilent}
    assert pool.ids() == []


def test_one_timeout_covers_login_and_lanes(server: Sshd) -> None:
    pool = SessionPool(timeout=0.5)
    with tcp_server(hangs_on("exec", server.folder / "host_ed25519")) as port, pytest.raises(NodeSilent):
        pool.open(1, server.target(port=port), "wg0")
    assert pool.ids() == []


@pytest.mark.parametrize(("host", "interface"), [("localhost", "wg0"), ("127.0.0.1", "wg1")])
def test_another_target_closes_the_kept_session(server: Sshd, pool: SessionPool, host: str, interface: str) -> None:
    old = pool.open(1, server.target(), "wg0")
    new = pool.open(1, server.target(host=host), interface)
    assert (old.is_live, new.is_live, pool.get(1)) == (False, True, new)
    assert new.work.call("hello").ok


def test_a_changed_pin_is_held_against_the_machine_again(server: Sshd, pool: SessionPool, tmp_path: Path) -> None:
    """F14: a session from before does not outlive the pin that it was opened under."""
    old = pool.open(1, server.target(), "wg0")
    other = server.host_keys["ed25519"][:-8] + "AAAAAAAA"
    with pytest.raises(HostKeyMismatch):
        pool.open(1, server.target(host_key=other), "wg0")
    assert (old.is_live, pool.get(1), server.logins) == (False, None, 1)


def test_a_session_that_died_is_not_given_and_opened_again(server: Sshd, pool: SessionPool) -> None:
    old = pool.open(1, server.target(), "wg0")
    server.stop()
    eventually(lambda: pool.get(1) is None, "the dead session is seen")
    server.start()
    assert pool.open(1, server.target(), "wg0") is not old


def test_a_session_with_one_closed_lane_is_not_given(server: Sshd, pool: SessionPool) -> None:
    session = pool.open(1, server.target(), "wg0")
    session.revoke.close()
    assert pool.get(1) is None


def test_dropping_closes_the_connection(server: Sshd, pool: SessionPool) -> None:
    session = pool.open(1, server.target(), "wg0")
    pool.drop(1)
    pool.drop(1)
    assert (session.is_live, pool.ids()) == (False, [])
    eventually(lambda: "Closing connection to" in server.log, "the server sees it closed")


def test_a_session_dropped_while_it_opens_is_not_kept(server: Sshd) -> None:
    pool = SessionPool(timeout=5)

    def open_late() -> type[BaseException]:
        with pytest.raises(Unreachable) as caught:
            pool.open(1, server.target(), "wg0")
        return caught.type

    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(open_late)
        eventually(lambda: pool.ids() == [1], "the opening has begun")
        pool.drop(1)
        assert opening.result(10) is Unreachable
    assert (pool.ids(), pool.get(1)) == ([], None)
    eventually(lambda: "Closing connection to" in server.log, "the server sees it closed")
