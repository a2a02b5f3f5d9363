"""The API as a script uses it: JSON over HTTP with a token, and nothing of Django."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.lab.waiting import wait_for

TIMEOUT = 30


class Refused(Exception):
    """The API answered with an error; the message is its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """`url` is the Console's, without /api/v1."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self.token = url, token

    def text(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/api/v1/{path}", data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode(errors="replace")) from None

    def get(self, path: str) -> Any:
        return json.loads(self.text("GET", path))

    def post(self, path: str, **values: Any) -> Any:
        """Omit what is None."""
        sent = {name: value for name, value in values.items() if value is not None}
        return json.loads(self.text("POST", path, sent))

    def rows(self, path: str) -> list[dict[str, Any]]:
        """The first page of a list."""
        found: list[dict[str, Any]] = self.get(path)["results"]
        return found

    def wait_until(self, path: str, is_so: Callable[[Any], bool], timeout: float, what: str) -> Any:
        """Ask again until the answer is so; the answer."""

        def look() -> Any:
            answer = self.get(path)
            return answer if is_so(answer) else None

        return wait_for(look, timeout, what, interval=0.02)
