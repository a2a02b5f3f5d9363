"""While a Celery task runs, what it records has the origin "task"."""

from contextlib import ExitStack
from typing import Any

from audit.context import acting_from

_open: dict[str, ExitStack] = {}


def enter(task_id: str, task: Any, **kwargs: Any) -> None:
    stack = _open[task_id] = ExitStack()
    stack.enter_context(acting_from("task", task.name))


def leave(task_id: str, **kwargs: Any) -> None:
    stack = _open.pop(task_id, None)
    if stack is not None:
        stack.close()
