"""Typed readers of the environment that refuse bad values instead of guessing."""

import os
import re
import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def env_str(name: str, default: str = "") -> str:
    return os.environ.get(name, default)


def env_bool(name: str, *, default: bool = False) -> bool:
    value = os.environ.get(name)
    if value is None:
        return default
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is not a truth value: use 1 or 0")


def env_int(name: str, default: int, *, low: int = 0, high: int = 2**31) -> int:
    value = os.environ.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise ImproperlyConfigured(f"{name}={value!r} must be a whole number from {low} to {high}")
    return int(value)


def env_list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def env_secret(name: str) -> str:
    """The value of NAME, or what the file named by NAME_FILE holds; empty where neither is set."""
    file = os.environ.get(f"{name}_FILE")
    if not file:
        return os.environ.get(name, "")
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(f"{name}_FILE={file!r} cannot be read: {error.strerror}") from error


def own_secret(path: Path) -> str:
    """The secret kept at `path`; made at random there, 0600, by the first process that asks."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    secret = secrets.token_urlsafe(64)
    with os.fdopen(handle, "w") as file:
        file.write(secret)
    return secret


def env_database(name: str, default: str) -> dict[str, object]:
    """A Django database from a URL: sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME[?host=DIR]."""
    url = urlsplit(os.environ.get(name, default))
    if url.scheme == "sqlite":
        return _sqlite(unquote(url.path.removeprefix("/")))
    if url.scheme in {"postgres", "postgresql"}:
        query = dict(pair.split("=", 1) for pair in url.query.split("&") if "=" in pair)
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(url.path.removeprefix("/")),
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or ""),
            "HOST": unquote(query.get("host", url.hostname or "")),
            "PORT": str(url.port or ""),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
        }
    raise ImproperlyConfigured(f"{name} must start with sqlite:/// or postgresql://")


def _sqlite(path: str) -> dict[str, object]:
    # IMMEDIATE: a transaction that reads and then writes would otherwise fail at once with "database is locked".
    pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA recursive_triggers=ON;"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": pragmas},
        "TEST": {"NAME": f"{path}.test.{os.getpid()}"},  # so that two runs never share one
    }


@dataclass(frozen=True)
class Mail:
    """Where mail is handed in; no host for nowhere."""

    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    has_starttls: bool = False
    has_tls: bool = False


def env_mail(name: str) -> Mail:
    """From NAME or NAME_FILE: smtp://USER:PASSWORD@HOST:PORT by STARTTLS, smtps:// by TLS from the first byte on. Only
    to this machine itself, and with ?tls=no, it goes in the clear: with ?tls=no never with a password."""
    text = env_secret(name)
    if not text:
        return Mail()
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    options = parse_qs(url.query)
    if url.scheme not in {"smtp", "smtps"} or not url.hostname or options.keys() - {"tls"}:
        raise ImproperlyConfigured(f"{name} must be smtp://USER:PASSWORD@HOST:PORT or smtps://...")  # it holds a secret
    is_plain = options.get("tls") == ["no"]
    if url.password and is_plain:
        raise ImproperlyConfigured(f"{name}: with tls=no anybody on the way reads the password; take one of them away")
    has_tls = url.scheme == "smtps"
    has_starttls = not (has_tls or is_plain or _is_here(url.hostname))
    user, password = unquote(url.username or ""), unquote(url.password or "")
    return Mail(url.hostname, port or (465 if has_tls else 587), user, password, has_starttls, has_tls)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def env_address(name: str, *, is_needed: bool) -> str:
    """A bare e-mail address."""
    value = os.environ.get(name, "")
    if (value or is_needed) and not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", value):
        raise ImproperlyConfigured(f"{name}={value!r} must be an address such as muster@example.com")
    return value


def env_url(name: str) -> str:
    """Of a site, without a slash at its end; empty where it is not set."""
    value = os.environ.get(name, "").rstrip("/")
    if value and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
        raise ImproperlyConfigured(f"{name}={value!r} must be an address such as https://muster.example.com")
    return value
