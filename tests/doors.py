"""Ways through the Console's doors as they are promised: a browser, and a script with a token."""

import json
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.test import Client
from django.test.client import ClientHandler

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import User
from fleet.tokens import add_token

# Middleware is loaded once for all tests: listing the static files anew for each client costs more than most tests.
HANDLERS = {checks: ClientHandler(enforce_csrf_checks=checks) for checks in (False, True)}


class SecureClient(Client):
    """The Console sends whoever comes by plain HTTP away."""

    def generic(self, *args: Any, **options: Any) -> Any:
        return super().generic(*args, **{**options, "secure": True})


def browser(user: User | None = None, *, checks_csrf: bool = False) -> Client:
    client = SecureClient(enforce_csrf_checks=checks_csrf)
    client.handler = HANDLERS[checks_csrf]
    if user is not None:
        client.force_login(user)
    return client


@dataclass
class Script:
    """Calls the API; each call answers (status, decoded body)."""

    token: str = ""
    client: Client = field(default_factory=browser)

    def call(self, method: str, path: str, data: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = self.client.generic(
            method,
            f"/api/v1/{path}",
            data if isinstance(data, bytes) else _encoded(data),
            content_type="application/json",
            headers=headers,
        )
        is_json = answer.get("Content-Type", "") == "application/json"
        return answer.status_code, answer.json() if is_json and answer.content else answer.getvalue().decode()

    def get(self, path: str) -> tuple[int, Any]:
        return self.call("GET", path)

    def post(self, path: str, **data: Any) -> tuple[int, Any]:
        return self.call("POST", path, data)

    def patch(self, path: str, **data: Any) -> tuple[int, Any]:
        return self.call("PATCH", path, data)

    def names(self, path: str, key: str = "name") -> list[Any]:
        code, body = self.get(path)
        assert code == 200, body
        return sorted(row[key] for row in body["results"])


def _encoded(data: Any) -> bytes:
    return b"" if data is None else json.dumps(data).encode()


def script(user: User, *, scope: str = "operate") -> Script:
    _, text = add_token(actor=SYSTEM, user=user, name=f"{user.username}-{scope}", scope=scope)
    return Script(text)


def rows() -> dict[str, int]:
    """How many rows each table of ours holds: equal before and after a refusal, but for the Event that tells of it."""
    labels = ("audit", "fleet", "peers", "nodes")
    found = {model._meta.label: model._default_manager.count() for label in labels for model in _models(label)}
    found["audit.Event"] -= Event.objects.filter(verb="act.refused").count()
    return found


def _models(label: str) -> list[Any]:
    return list(apps.get_app_config(label).get_models())
