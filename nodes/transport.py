"""The only door to other machines: SSH connections to pinned host keys, with a deadline on everything."""

import io
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

import paramiko

from nodes.faults import (
    AuthRefused,
    HostKeyMismatch,
    NodeMisbehaved,
    NodeRefused,
    NodeSilent,
    TransportError,
    Unreachable,
)
from nodes.hostkeys import FAMILIES, Pin, fingerprint, fingerprint_of, host_key_text, pins
from nodes.lanes import Answer, Lane, collect

__all__ = [
    "Answer",
    "AuthRefused",
    "Connection",
    "HostKeyMismatch",
    "Lane",
    "NodeMisbehaved",
    "NodeRefused",
    "NodeSilent",
    "Target",
    "TransportError",
    "Unreachable",
    "collect",
    "connect",
    "fingerprint",
    "scan_host_key",
]

# Its records name users and peers and hold tracebacks; whatever matters is in our own errors.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

CONNECT_TIMEOUT = 10.0
_KEEPALIVE = 20
_UNACKNOWLEDGED_MS = 15_000
_KEYS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True)
class Target:
    """A machine to log in to: its pinned host key decides who it is, never its name."""

    host: str
    port: int
    user: str
    host_key: str
    jump: "Target | None" = None
    key: str = field(repr=False, kw_only=True)


class Deadline:
    """A with-block of so many seconds; at their end its sockets are cut, whoever waits on them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._timer.cancel()

    @property
    def has_passed(self) -> bool:
        return time.monotonic() >= self._until

    @property
    def left(self) -> float:
        """Seconds, never quite zero: zero would mean "do not block" to a socket."""
        return max(0.001, self._until - time.monotonic())

    def cover(self, sock: socket.socket) -> None:
        self._sockets.append(sock)
        if self.has_passed:
            _cut(sock)

    def _cut(self) -> None:
        for sock in self._sockets:
            _cut(sock)


def _cut(sock: socket.socket) -> None:
    """End a connection at once; unlike close() it wakes the thread that reads."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _PinnedTransport(paramiko.Transport):
    """A transport on which no key exchange, first or later, completes with any but the pinned host key."""

    _active_check_timeout = 2  # seconds; its thread polls that often, and 0.1 is dear with many servers
    _preferred_ciphers = ("aes128-ctr", "aes256-ctr", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
    )

    def __init__(self, sock: socket.socket | paramiko.Channel, pin: Pin, where: str, seconds: float) -> None:
        super().__init__(sock)
        self._pin = pin
        self._where = where
        self.presented = b""
        self.get_security_options().key_types = pin.algorithms
        self.banner_timeout = self.handshake_timeout = self.auth_timeout = seconds

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        if not self._pin.accepts(host_key):
            raise HostKeyMismatch(self._where, self._pin.expected, fingerprint_of(host_key))
        super()._verify_key(host_key, sig)  # type: ignore[misc]
        self.presented = host_key


class _AnyKey(Pin):
    """Takes what is presented: for showing it to an operator, never for logging in."""

    def accepts(self, presented: bytes) -> bool:
        return True


class _Tunnel:
    """A channel of a bastion as the stream of a further transport, whose own thread closes it at the end."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> object:
        return getattr(self._channel, name)

    def close(self) -> None:
        # To close a channel is to send; where the bastion is gone already, there is nobody left to tell.
        with suppress(EOFError, OSError, paramiko.SSHException):
            self._channel.close()


class Connection:
    """One SSH connection to one machine, perhaps through another one; close() ends both."""

    def __init__(self, transport: _PinnedTransport, root: socket.socket, where: str, jump: "Connection | None") -> None:
        self.transport = transport
        self.root = root
        self.where = where
        self._jump = jump

    @property
    def host_key(self) -> str:
        """What the machine proved to hold: "ssh-ed25519 AAAA..."."""
        return host_key_text(self.transport.presented)

    @property
    def is_alive(self) -> bool:
        return self.transport.is_active() and self.transport.is_authenticated()

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Do something that waits for the machine; what it raises is told as a TransportError."""
        with Deadline(seconds) as deadline, told(self.where, deadline):
            deadline.cover(self.root)
            yield deadline

    def log_in(self, user: str, key: str, deadline: Deadline) -> None:
        """Log in with a private key and nothing else."""
        with told(self.where, deadline, user=user):
            self.transport.auth_publickey(user, load_key(key, self.where, user))
            if not self.transport.is_authenticated():
                raise AuthRefused(self.where, user, "the machine wants more than a key")
        self.transport.set_keepalive(_KEEPALIVE)

    def open_lane(self, command: str, *, timeout: float = CONNECT_TIMEOUT) -> Lane:
        """Start a node session; a machine that does not start it in time loses the whole connection."""
        return Lane(self.start(command, timeout=timeout), self.where, self.within)

    def start(self, command: str, *, timeout: float) -> paramiko.Channel:
        """Run a command over there; its input, output and exit status are those of the channel."""
        with self.within(timeout) as deadline:
            channel = self.transport.open_session(timeout=deadline.left)
            channel.exec_command(command)
            return channel

    def tunnel(self, host: str, port: int, deadline: Deadline) -> paramiko.Channel:
        """A stream to a further machine, opened by this one."""
        with told(f"{host} port {port} through {self.where}", deadline):
            local = ("127.0.0.1", 0)
            channel = self.transport.open_channel("direct-tcpip", (host, port), local, timeout=deadline.left)
            return cast(paramiko.Channel, _Tunnel(channel))

    def close(self) -> None:
        _hang_up(self.transport, self.root, self._jump)


def connect(target: Target, *, timeout: float = CONNECT_TIMEOUT) -> Connection:
    """Log in to a machine, within `timeout` seconds in all however it behaves; else a TransportError."""
    with Deadline(timeout) as deadline:
        return _connect(target, deadline)


def _connect(target: Target, deadline: Deadline) -> Connection:
    [pin] = pins(target.host_key)
    connection = dial(target.host, target.port, pin, target.jump, deadline)
    try:
        connection.log_in(target.user, target.key, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def dial(host: str, port: int, pin: Pin, jump: Target | None, deadline: Deadline) -> Connection:
    """A connection whose host key is proven and on which nobody is logged in."""
    where = f"{host} port {port}"
    bastion = _connect(jump, deadline) if jump else None
    root = bastion.root if bastion else _dial_tcp(host, port, deadline)
    deadline.cover(root)
    transport = None
    try:
        stream = bastion.tunnel(host, port, deadline) if bastion else root
        transport = _PinnedTransport(stream, pin, where, deadline.left)
        _shake_hands(transport, pin, where, deadline)
    except BaseException:
        _hang_up(transport, root, bastion)
        raise
    return Connection(transport, root, where, bastion)


def _hang_up(transport: paramiko.Transport | None, root: socket.socket, bastion: Connection | None) -> None:
    """End all of it at once; the bastion first, or the tunnel's own end would wait for it to be told."""
    _cut(root)
    if bastion is not None:
        bastion.close()
    if transport is not None:
        transport.packetizer.complete_handshake()  # or its timer holds the process until it fires
        transport.close()
    root.close()


def _shake_hands(transport: _PinnedTransport, pin: Pin, where: str, deadline: Deadline) -> None:
    with told(where, deadline):
        try:
            transport.start_client(timeout=deadline.left)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            if "no acceptable host key" not in str(error):
                raise
            raise HostKeyMismatch(where, pin.expected, f"none of type {' or '.join(pin.algorithms)}") from None
        if not transport.presented:
            raise NodeSilent(where, deadline.seconds)


def _dial_tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    where = f"{host} port {port}"
    addresses = _resolve(host, port, deadline)
    problem = Unreachable(where, "unresolvable")
    for turn, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.left / (len(addresses) - turn))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
            return sock
        except OSError as error:
            sock.close()
            problem = Unreachable(where, _kind(error), error.strerror or "")
    raise problem


def _kind(error: OSError) -> Unreachable.Kind:
    return "refused" if isinstance(error, ConnectionRefusedError) else "timeout"


_Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


def _resolve(host: str, port: int, deadline: Deadline) -> Sequence[_Address]:
    """Addresses of a host; in a thread of its own because getaddrinfo knows no deadline."""
    found: list[_Address] = []

    def look_up() -> None:
        with suppress(OSError, UnicodeError):
            found.extend((info[0], info[4]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(deadline.left)
    return list(found)


@contextmanager
def told(where: str, deadline: Deadline, *, user: str = "", by_password: bool = False) -> Iterator[None]:
    """Turn what paramiko and sockets raise into our own errors, the deadline before all."""
    try:
        yield
    except TransportError:
        raise
    except (paramiko.SSHException, OSError, EOFError) as error:
        if deadline.has_passed:
            raise NodeSilent(where, deadline.seconds) from None
        if isinstance(error, paramiko.AuthenticationException) and "shut down" not in str(error):
            raise AuthRefused(where, user, by_password=by_password) from None
        raise Unreachable(where, "closed", str(error)) from None


def load_key(text: str, where: str, user: str) -> paramiko.PKey:
    """A private key from its OpenSSH or PEM text; AuthRefused when it is none, without a word of it."""
    for kind in _KEYS:
        with suppress(paramiko.SSHException, ValueError, IndexError, TypeError):
            return kind.from_private_key(io.StringIO(text))
    raise AuthRefused(where, user, "the private key cannot be read: give an unencrypted OpenSSH key")


def scan_host_key(host: str, port: int, timeout: float = CONNECT_TIMEOUT, *, jump: Target | None = None) -> list[str]:
    """The host keys that a machine presents, best type first, for an operator to compare; nothing is kept."""
    found = []
    with Deadline(timeout) as deadline:
        for family in FAMILIES:
            with suppress(HostKeyMismatch):
                connection = dial(host, port, _AnyKey("any", family), jump, deadline)
                found.append(connection.host_key)
                connection.close()
    return found
