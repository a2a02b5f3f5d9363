"""Mail by SMTP, with an end to every wait. What a server said no to and what it may have taken are two things."""

import smtplib
import threading
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

LIMIT = 30.0  # seconds for one message, however slowly its server speaks


class MaybeSent(OSError):
    """The line broke while the server took the message in: nobody knows whether it has it."""


class _Line(smtplib.SMTP):
    """A connection that is cut where a server speaks, but never comes to an end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._limit = threading.Timer(LIMIT, self._cut)
        self._limit.daemon = True
        self._limit.start()
        try:
            super().__init__(*args, **options)
        except OSError:
            self._limit.cancel()
            raise

    def _cut(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(SHUT_RDWR)

    def close(self) -> None:
        self._limit.cancel()
        super().close()

    def data(self, msg: Any) -> tuple[int, bytes]:
        try:
            return super().data(msg)
        except smtplib.SMTPResponseException:
            raise
        except OSError as error:
            raise MaybeSent("the line broke while the message was sent") from error


class _TlsLine(_Line, smtplib.SMTP_SSL):
    """The same, by TLS from the first byte on."""


class Post(EmailBackend):
    """Django's SMTP by such a line. `with Post() as post` raises OSError where no server lets us in."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _TlsLine if self.use_ssl else _Line

    def send(self, *, to: str, subject: str, body: str) -> None:
        """MaybeSent where that is unknown; any other OSError, or ValueError, where it was not taken."""
        headers = {"Auto-Submitted": "auto-generated"}
        EmailMessage(subject, body, to=[to], headers=headers, connection=self).send()


def can_mail() -> bool:
    return bool(settings.EMAIL_HOST)


def trouble_of(error: Exception) -> str:
    """What went wrong, without a word of the server's own: that may repeat what it was told."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = next(iter(error.recipients.values()))[0]
        return f"The mail server refused the address ({code})."
    if isinstance(error, smtplib.SMTPResponseException):
        return f"The mail server refused ({error.smtp_code})."
    return f"No mail could be sent ({type(error).__name__})."
