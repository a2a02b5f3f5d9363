"""Two acts at once, in an order that can be named: the second begins while the first has not committed."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import connection, transaction

from tests.lab.waiting import wait_for

LIMIT = 20


Act = Callable[[], object]


def nothing() -> None:
    """What most acts do once the other waits: they commit."""


def overtake(first: Act, second: Act, then: Act = nothing) -> list[Exception | None]:
    """`first` has done all its writing and commits once `second` waits for one of its locks, or has ended; `then` is
    done before that. What each was refused with. On SQLite the second cannot even begin before."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first()
            other = pool.submit(_do, second, begun)
            assert begun.wait(LIMIT)
            if connection.vendor == "postgresql":
                wait_for(lambda: other.done() or _somebody_waits(), LIMIT, "the second to meet a lock")
            then()
        return [None, other.result(LIMIT)]


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def _do(act: Act, begun: threading.Event) -> Exception | None:
    begun.set()
    try:
        act()
    except Exception as error:
        return error
    finally:
        connection.close()
    return None
