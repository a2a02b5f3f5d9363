"""Work in many parts that goes on: what goes wrong in one of them holds up none of the others."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack


def do_all(parts: Iterable[Callable[[], object]]) -> None:
    """Each in its turn, whatever became of those before it. What went wrong is raised once all are done."""
    with ExitStack() as stack:
        for part in reversed(list(parts)):
            stack.callback(part)
