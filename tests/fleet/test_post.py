"""The line to a mail server: nothing is said to a stranger, and a password to nobody in the clear."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone
from pytest_django.fixtures import Settings

from fleet.post import Post, trouble_of
from tests.postbox import MailServer, mail_server, point_mail_to


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = signed.not_valid_before(timezone.now()).not_valid_after(timezone.now() + dt.timedelta(days=1))
    made = signed.add_extension(here, critical=True).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = tmp_path_factory.mktemp("mail") / "certificate.pem"
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path


heard: list[tuple[bytes, bytes]] = []


def let_in(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
    heard.append((data.login, data.password))
    return AuthResult(success=data.password == b"hunter2", handled=False)


@contextmanager
def tls_server(certificate: Path, settings: Settings) -> Iterator[MailServer]:
    """STARTTLS, then a password, then mail."""
    heard.clear()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with mail_server(tls_context=context, require_starttls=True, authenticator=let_in, auth_required=True) as server:
        point_mail_to(settings, server.port)
        settings.EMAIL_USE_TLS = True
        settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "muster", "hunter2"
        yield server


def send() -> None:
    with Post() as post:
        post.send(to="ann@example.com", subject="Hello", body="Ann")


def test_mail_goes_by_tls_to_a_server_with_a_certificate(
    certificate: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server(certificate, settings) as server:
        send()
        assert server.box.addresses == ["ann@example.com"]
    assert heard == [(b"muster", b"hunter2")]


def test_a_stranger_hears_neither_password_nor_mail(certificate: Path, settings: Settings) -> None:
    with tls_server(certificate, settings) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            send()
        assert (server.box.taken, heard) == ([], [])


def test_a_server_without_tls_hears_neither_password_nor_mail(settings: Settings) -> None:
    heard.clear()
    with mail_server(authenticator=let_in, auth_require_tls=False) as server:
        point_mail_to(settings, server.port)
        settings.EMAIL_USE_TLS = True
        settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "muster", "hunter2"
        with pytest.raises(OSError) as error:
            send()
        assert trouble_of(error.value) == "No mail could be sent (SMTPNotSupportedError)."
        assert (server.box.taken, heard) == ([], [])
        settings.EMAIL_USE_TLS = False
        send()
        assert heard == [(b"muster", b"hunter2")]


def test_a_wrong_password_is_told_by_its_number_alone(
    certificate: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server(certificate, settings):
        settings.EMAIL_HOST_PASSWORD = "hunter3"
        with pytest.raises(OSError) as error:
            send()
    assert trouble_of(error.value) == "The mail server refused (535)."
