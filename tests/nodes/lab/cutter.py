"""A cable to a server's sshd that can be told to break at a certain byte."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass
class Cut:
    """Where the cable breaks next: after so many more bytes to the server, or from it."""

    left: int
    is_to_server: bool


class Cutter:
    """Listens on 127.0.0.1 and passes everything on, until a cut comes due; later connections are whole again."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut: Cut | None = None
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=work, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def arm(self, left: int, *, is_to_server: bool) -> None:
        self._cut = Cut(left, is_to_server)

    def disarm(self) -> None:
        self._cut = None

    def close(self) -> None:
        """No more connections; those that are open end with their ends."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._start(self._relay, near, socket.create_connection(self._target))

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with near, far, suppress(OSError):
            while True:
                for source in select.select(list(other), [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if self._passes_on(data, other[source], is_to_server=source is near):
                        return

    def _passes_on(self, data: bytes, target: socket.socket, *, is_to_server: bool) -> bool:
        """Whether the cable broke; what came before the break has arrived."""
        cut = self._cut
        if cut is None or cut.is_to_server != is_to_server:
            target.sendall(data)
            return False
        target.sendall(data[: cut.left])
        cut.left -= len(data)
        if cut.left > 0:
            return False
        self._cut, self.cuts = None, self.cuts + 1
        return True
