"""The one way to wait: ask again until it is so, or fail with what was awaited."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(predicate: Callable[[], Value | None], timeout: float, what: str, interval: float = 0.01) -> Value:
    """Return the first truthy answer of `predicate`; raise TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}; last answer: {value!r}")
        time.sleep(interval)
