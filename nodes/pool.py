"""The kept-open sessions of this process: one connection a server, a lane for work and one for revokes."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from nodes.faults import Unreachable
from nodes.lanes import Answer, Lane
from nodes.state import InterfaceState
from nodes.transport import CONNECT_TIMEOUT, Connection, Target, connect


@dataclass(frozen=True)
class Base:
    """What a node is known to hold: digest, canonical line of each peer, interface; deltas are made against it."""

    digest: str
    lines: Mapping[str, bytes]
    interface: InterfaceState | None = None


@dataclass(eq=False)
class Session:
    """A server's open connection; the revoke lane is for one thread at a time. `about` is the node's own hello,
    `has_caught_up` whether its journal was read to the end since."""

    connection: Connection
    work: Lane
    revoke: Lane
    about: Mapping[str, object]
    base: Base | None = None
    has_caught_up: bool = False
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, op: str, *, timeout: float, **fields: object) -> Answer:
        """One request on the work lane, whoever else asks at the same time; NodeRefused when the node says no."""
        with self._asking:
            return self.work.call(op, timeout=timeout, **fields)

    @property
    def is_live(self) -> bool:
        return self.connection.is_alive and self.work.is_open and self.revoke.is_open

    def close(self) -> None:
        self.connection.close()
        self.work.close()
        self.revoke.close()


@dataclass(eq=False)
class _Slot:
    """A server's session, coming or there; `is_dropped` tells its opener that nobody wants it any more."""

    target: Target
    interface: str
    future: Future[Session] = field(default_factory=Future)
    is_dropped: bool = False

    @property
    def session(self) -> Session | None:
        """The session, once it is there and unless opening it failed."""
        if not self.future.done() or self.future.exception() is not None:
            return None
        return self.future.result()

    def serves(self, target: Target, interface: str) -> bool:
        """Whether its session is the one asked for, and live."""
        session = self.session
        return session is not None and session.is_live and self.is_for(target, interface)

    def is_for(self, target: Target, interface: str) -> bool:
        return (self.target, self.interface) == (target, interface) and not self.is_dropped


class SessionPool:
    """Thread-safe; never two connections to one server, whoever asks at the same time."""

    def __init__(self, *, timeout: float = CONNECT_TIMEOUT) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._slots: dict[int, _Slot] = {}

    def get(self, server_id: int) -> Session | None:
        """The server's session if it is live now; never waits."""
        with self._lock:
            slot = self._slots.get(server_id)
        session = slot.session if slot else None
        return session if session is not None and session.is_live else None

    def open(self, server_id: int, target: Target, interface: str) -> Session:
        """The live session to exactly this target, opened within the pool's timeout; or a TransportError."""
        while True:
            slot, is_ours = self._claim(server_id, target, interface)
            if is_ours:
                return self._fill(server_id, slot)
            if slot.is_for(target, interface):
                return slot.future.result()
            slot.future.exception()

    def drop(self, server_id: int) -> None:
        """Close the server's session; one that is being opened is closed as soon as it is there."""
        with self._lock:
            session = self._discard(server_id)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        for server_id in self.ids():
            self.drop(server_id)

    def ids(self) -> list[int]:
        """The servers that have a session, live or coming."""
        with self._lock:
            return sorted(self._slots)

    def _claim(self, server_id: int, target: Target, interface: str) -> tuple[_Slot, bool]:
        """The slot to wait for, or a new one that the caller must fill."""
        with self._lock:
            slot = self._slots.get(server_id)
            if slot is not None and (not slot.future.done() or slot.serves(target, interface)):
                return slot, False
            old = self._discard(server_id)
            slot = self._slots[server_id] = _Slot(target, interface)
        if old is not None:
            old.close()
        return slot, True

    def _discard(self, server_id: int) -> Session | None:
        """Forget the server's session, for the caller to close once the lock is free."""
        slot = self._slots.get(server_id)
        if slot is None:
            return None
        if not slot.future.done():
            slot.is_dropped = True
            return None
        return self._slots.pop(server_id).session

    def _fill(self, server_id: int, slot: _Slot) -> Session:
        try:
            session = self._dial(slot)
            self._keep(slot, session)
        except BaseException as error:
            with self._lock:
                del self._slots[server_id]
                slot.future.set_exception(error)
            raise
        return session

    def _keep(self, slot: _Slot, session: Session) -> None:
        with self._lock:
            if not slot.is_dropped:
                slot.future.set_result(session)
                return
        session.close()
        raise Unreachable(session.connection.where, "closed", "dropped while it was being opened")

    def _dial(self, slot: _Slot) -> Session:
        """Connection and both lanes, within one timeout in all."""
        until = time.monotonic() + self._timeout
        connection = connect(slot.target, timeout=self._timeout)
        command = f"muster-node session {slot.interface}"
        try:
            work, revoke = (connection.open_lane(command, timeout=until - time.monotonic()) for _ in range(2))
            # A node's first answer costs it more than the next: let that not be a revocation's.
            revoke.call("hello", timeout=until - time.monotonic())
            about = work.call("hello", timeout=until - time.monotonic()).body
        except BaseException:
            connection.close()
            raise
        return Session(connection, work, revoke, about)
