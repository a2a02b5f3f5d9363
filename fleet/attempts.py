"""Work in many parts that goes on: what goes wrong in one of them holds up none of the others."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


def attempt(part: Callable[[], object], what: str) -> None:
    """A fault goes into the log with what it was about; whoever calls this comes back to it by itself."""
    try:
        part()
    except Exception:
        logger.exception("%s failed; the sweep will come back to it", what)
