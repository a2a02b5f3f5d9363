"""Who acts, and from where: one ContextVar for requests, tokens, tasks and commands."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest, HttpResponse


@dataclass(frozen=True)
class Origin:
    """`kind` is person, token, task, command, node or system; `detail` names the token or task."""

    kind: str = "system"
    detail: str = ""
    remote_addr: str | None = None


_origin: ContextVar[Origin] = ContextVar("muster_origin", default=Origin())  # noqa: B039 - it is frozen
_act: ContextVar[uuid.UUID | None] = ContextVar("muster_act", default=None)


def current_origin() -> Origin:
    return _origin.get()


def current_act() -> str | None:
    """The id of the act in progress, for django-auditlog's correlation id."""
    act = _act.get()
    return str(act) if act else None


@contextlib.contextmanager
def acting_from(kind: str, detail: str = "", remote_addr: str | None = None) -> Iterator[None]:
    token = _origin.set(Origin(kind, detail, remote_addr))
    try:
        yield
    finally:
        _origin.reset(token)


@contextlib.contextmanager
def in_act(act: uuid.UUID) -> Iterator[None]:
    token = _act.set(act)
    try:
        yield
    finally:
        _act.reset(token)


def came_by_token(name: str) -> None:
    """Inside a request: the rest of it acts by the API token `name`."""
    _origin.set(replace(_origin.get(), kind="token", detail=name))


def mask(value: str) -> str:
    """django-auditlog's own mask leaves half of a secret readable."""
    return "******"


class OriginMiddleware:
    """Sets the origin for a request. Only the socket's own address counts, never a header that a client can write."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with acting_from("person", remote_addr=_address(request.META)):
            return self.get_response(request)


def _address(meta: dict[str, Any]) -> str | None:
    return meta.get("REMOTE_ADDR") or None
