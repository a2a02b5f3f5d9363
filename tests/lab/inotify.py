"""Each wireguard-go takes one inotify instance of the 128 that a user has: raised while any lab is up."""

import os
from pathlib import Path

from tests.lab.slots import HOME, lock_home

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
BEFORE = HOME / "inotify-before"
ENOUGH = 4096


def raise_limit() -> None:
    """Raise the limit if it is low; what it was is kept for the last lab to put back."""
    lock = lock_home()
    try:
        before = int(LIMIT.read_text())
        if before < ENOUGH:
            BEFORE.write_text(str(before))
            LIMIT.write_text(str(ENOUGH))
    finally:
        os.close(lock)


def put_back() -> None:
    """Put the limit back if no lab is left."""
    lock = lock_home()
    try:
        if BEFORE.exists() and not any(HOME.glob("*/state.json")):
            LIMIT.write_text(BEFORE.read_text())
            BEFORE.unlink()
    finally:
        os.close(lock)
