"""Real SMTP servers: one that takes mail or refuses it as told, and ones that misbehave on the line."""

import email.policy
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from pytest_django.fixtures import Settings

from tests.running import free_port

logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd tells each line that it hears


@dataclass
class Postbox:
    """What a server took. `refuses`: address -> its answer; `may_answer`: held back, it takes mail and says nothing."""

    taken: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    refuses_content: str = ""
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if self.refuses_content:
            return self.refuses_content
        assert isinstance(envelope.content, bytes)
        message = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(
            envelope.content.replace(b"\r\n", b"\n")
        )
        self.taken.append((list(envelope.rcpt_tos), message))
        while not self.may_answer.is_set():
            await server.loop.run_in_executor(None, self.may_answer.wait, 0.05)
        return "250 taken"

    @property
    def addresses(self) -> list[str]:
        return sorted(address for addresses, _ in self.taken for address in addresses)

    @property
    def texts(self) -> list[str]:
        return [message.get_content() for _, message in self.taken]


@dataclass
class MailServer:
    box: Postbox
    port: int


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    """`options` are those of aiosmtpd: tls_context, require_starttls, authenticator."""
    box = Postbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield MailServer(box, controller.port)
    finally:
        box.may_answer.set()
        controller.stop()


@contextmanager
def line_server(speak: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port where each connection is given to `speak`, and closed when the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lines: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    lines.append(line)
                    threading.Thread(target=_quietly, args=[speak, line], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for line in lines:
                line.close()


def _quietly(speak: Callable[[socket.socket], object], line: socket.socket) -> None:
    with suppress(OSError):
        speak(line)


def say_nothing(line: socket.socket) -> None:
    line.recv(1)


def drip(line: socket.socket) -> None:
    """A greeting without an end, a byte at a time."""
    line.settimeout(0.05)
    while True:
        line.sendall(b"2")
        with suppress(TimeoutError):
            if not line.recv(1000):
                return


def point_mail_to(settings: Settings, port: int) -> None:
    """This Console hands its mail in there."""
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.DEFAULT_FROM_EMAIL = "muster@example.com"
    settings.CONSOLE_URL = "https://muster.example.com"
