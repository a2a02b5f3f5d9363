"""What one worker process keeps: its SSH sessions, its threads, and which servers they are busy with."""

import logging
import resource
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from django.db import connections

from audit.context import acting_from
from nodes.pool import SessionPool

logger = logging.getLogger(__name__)

THREADS = 16


class Claims:
    """Servers that a job of this process is at. A second one leaves them alone, and the first is told of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._asked_again: set[int] = set()

    def take(self, server_ids: Iterable[int]) -> set[int]:
        """Those that were free; they are the caller's until it gives them back."""
        wanted = set(server_ids)
        with self._lock:
            self._asked_again |= wanted & self._taken
            ours = wanted - self._taken
            self._taken |= ours
            return ours

    def give_back(self, server_id: int) -> bool:
        """Whether somebody asked for it meanwhile, and so may know of more to do than was done."""
        with self._lock:
            self._taken.discard(server_id)
            is_asked_again = server_id in self._asked_again
            self._asked_again.discard(server_id)
            return is_asked_again


def allow_many_files() -> None:
    """Each session takes about five file descriptors; the usual soft limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Crew:
    """Sessions and threads of one process, in lanes of work: a push never delays a revoke, and mail delays nothing."""

    def __init__(self, pool: SessionPool | None = None) -> None:
        allow_many_files()
        self.pool = pool or SessionPool()
        self.revoking, self.working = Claims(), Claims()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="crew")
        self._openers = ThreadPoolExecutor(THREADS, thread_name_prefix="opener")
        self._mailer = ThreadPoolExecutor(1, thread_name_prefix="mailer")
        self._mailing: Future[None] | None = None

    def work(self, job: Callable[[], object]) -> "Future[None]":
        return _told(self._threads.submit(_run, job))

    def open(self, job: Callable[[], object]) -> "Future[None]":
        """For jobs that wait for a connection first: unreachable servers fill this lane and no other."""
        return _told(self._openers.submit(_run, job))

    def mail(self, job: Callable[[], object]) -> "Future[None]":
        """One at a time: behind a mail server that holds one up no others wait."""
        if self._mailing is None or self._mailing.done():
            self._mailing = _told(self._mailer.submit(_run, job))
        return self._mailing

    def close(self) -> None:
        self._mailer.shutdown(wait=True, cancel_futures=True)
        self._openers.shutdown(wait=True, cancel_futures=True)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.pool.close_all()


def _run(job: Callable[[], object]) -> None:
    """A job in a thread of ours: its origin is the worker, its database connections end with it."""
    try:
        with acting_from("task", "crew"):
            job()
    finally:
        connections.close_all()


def _told(future: "Future[None]") -> "Future[None]":
    """Its failure goes into the log: mostly nobody waits for a job."""
    future.add_done_callback(_tell_failure)
    return future


def _tell_failure(future: "Future[None]") -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        logger.error("a job failed; the sweep will come back to it", exc_info=error)


_crew: Crew | None = None
_crew_lock = threading.Lock()


def the_crew() -> Crew:
    """The one crew of this process, made on first use."""
    global _crew
    with _crew_lock:
        _crew = _crew or Crew()
        return _crew
