"""Runs a function in a fork that SIGKILLs itself at a chosen moment: nothing is tidied up, as when the power goes."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from django.db import connections

LIMIT = 60
LASTED, FAILED = 0, 1


def in_fork(act: Callable[[], object], *, at: int = 0, after: float = 0, of: tuple[str, ...] = ()) -> int:
    """Its end as a shell tells it. It is killed `at` the so-manieth call or return, Python's own functions included,
    in the files `of`, or so many seconds `after` its start, or else not at all."""
    connections.close_all()
    child = os.fork()
    if child == 0:
        _become(act, at, after, of)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(act: Callable[[], object], at: int, after: float, of: tuple[str, ...]) -> None:
    code = FAILED
    try:
        signal.signal(signal.SIGALRM, lambda *_: _die())
        signal.setitimer(signal.ITIMER_REAL, after or LIMIT)
        if at:
            sys.setprofile(_Counter(at, of))
        act()
        code = LASTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.setprofile(None)
        sys.stderr.flush()
        os._exit(code)


class _Counter:
    """Counts what happens in some files, and ends the process at one of it."""

    def __init__(self, at: int, of: tuple[str, ...]) -> None:
        self._left, self._of = at, of

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_code.co_filename.endswith(self._of):
            self._left -= 1
            if self._left == 0:
                _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
