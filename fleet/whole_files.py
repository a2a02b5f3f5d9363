"""Files of secrets, written so that whoever reads one finds the old text or the new one, whole, on the disk to stay."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def write_new(path: Path, text: str) -> bool:
    """For its owner alone; False where there is a file already."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(beside, text)
        os.link(beside, path)
        _keep_folder(path.parent)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def replace(path: Path, text: str) -> None:
    """Owner and rights stay as they are. What a killed predecessor left half written is written over."""
    path = path.resolve()
    beside, was = path.with_name(f".{path.name}.new"), path.stat()
    _write(beside, text, was)
    beside.replace(path)
    _keep_folder(path.parent)


def _write(path: Path, text: str, like: os.stat_result | None = None) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        if like is not None:
            os.fchown(handle, like.st_uid, like.st_gid)
            os.fchmod(handle, stat.S_IMODE(like.st_mode))
        file.write(text)
        file.flush()
        os.fsync(handle)


def _keep_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """BlockingIOError where another process is at a file of the same folder. It ends with the process, too."""
    handle = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
