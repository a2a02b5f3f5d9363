"""A real private sshd on 127.0.0.1, and small hostile servers, for the tests of everything that logs in."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from nodes.transport import Target

RESPONDER = f"{sys.executable} -IS {Path(__file__).with_name('responder.py')}"
KEY_TYPES = ("ed25519", "ecdsa", "rsa")


def eventually(holds: Callable[[], bool], what: str, *, seconds: float = 10) -> None:
    """Wait for a condition; fails by name when it does not come true in time."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        threading.Event().wait(0.01)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A new key pair at path; returns the public line without comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


@dataclass
class Sshd:
    """One running sshd: who it is, how to log in, and what it has noted."""

    folder: Path
    port: int
    host_keys: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    prefix: tuple[str, ...] = ()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def logins(self) -> int:
        return self.log.count("Accepted publickey")

    def target(self, *, jump: Target | None = None, **changed: object) -> Target:
        fields: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "root",
            "host_key": self.host_keys["ed25519"],
            "key": (self.folder / "login").read_text(),
        }
        return Target(jump=jump, **(fields | changed))  # type: ignore[arg-type]

    def start(self) -> None:
        command = [*self.prefix, "/usr/sbin/sshd", "-D", "-f", f"{self.folder}/config", "-E", f"{self.folder}/log"]
        before = self.log.count("Server listening")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        eventually(lambda: self.log.count("Server listening") > before, "sshd listens")

    def stop(self) -> None:
        """Ends the listener and the sessions: each connection's process is a child of its own."""
        if self.process is None or self.process.poll() is not None:
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.process.terminate()
        self.process.wait(10)
        for child in children:
            subprocess.run(["kill", child], check=False, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def sshd(
    folder: Path,
    *,
    authorized: str = f'restrict,command="{RESPONDER}"',
    extra: str = "",
    prefix: tuple[str, ...] = (),
) -> Iterator[Sshd]:
    """An sshd whose one authorized key has these options; `extra` goes before its config, `prefix` before its call."""
    folder.mkdir(parents=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    server = Sshd(folder, free_port(), prefix=prefix)
    server.host_keys = {kind: make_key(folder / f"host_{kind}", kind) for kind in KEY_TYPES}
    (folder / "authorized").write_text(f"{authorized} {make_key(folder / 'login')}\n")
    (folder / "config").write_text(
        extra
        + f"ListenAddress 127.0.0.1\nPort {server.port}\nPidFile none\nStrictModes no\nUsePAM no\n"
        + "".join(f"HostKey {folder}/host_{kind}\n" for kind in KEY_TYPES)
        + f"AuthorizedKeysFile {folder}/authorized\nLogLevel VERBOSE\nMaxSessions 100\nMaxStartups 200\n"
        + "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    (folder / "log").touch()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def tcp_server(behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A TCP server that treats each connection as told, until the block ends; yields its port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        threads: list[threading.Thread] = []

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    threads.append(threading.Thread(target=_treat, args=(listener.accept()[0], behave, over)))
                    threads[-1].start()

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            for thread in [server, *threads]:
                thread.join(10)


def _treat(
    sock: socket.socket, behave: Callable[[socket.socket, threading.Event], None], over: threading.Event
) -> None:
    with sock, contextlib.suppress(OSError):
        behave(sock, over)


def never_speaks(sock: socket.socket, over: threading.Event) -> None:
    over.wait()


def drips(sock: socket.socket, over: threading.Event) -> None:
    """A byte of a banner at a time, for ever."""
    while not over.wait(0.05):
        sock.send(b"S")


def stops_after_banner(sock: socket.socket, over: threading.Event) -> None:
    sock.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    over.wait()


def hangs_up(sock: socket.socket, over: threading.Event) -> None:
    sock.close()


class _Hanging(paramiko.ServerInterface):
    """An SSH server that stops answering at one step: "auth", "channel" or "exec"."""

    def __init__(self, step: str, over: threading.Event) -> None:
        self._step = step
        self._over = over

    def _pass(self, step: str) -> None:
        if step == self._step:
            self._over.wait()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._pass("auth")
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self._pass("channel")
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._pass("exec")
        return True


def hangs_on(step: str, host_key: Path) -> Callable[[socket.socket, threading.Event], None]:
    """An SSH server with this ed25519 host key that takes any login and hangs on one step."""

    def behave(sock: socket.socket, over: threading.Event) -> None:
        transport = paramiko.Transport(sock)
        transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(host_key)))
        transport.start_server(event=threading.Event(), server=_Hanging(step, over))
        over.wait()
        transport.close()
        transport.join(10)

    return behave
