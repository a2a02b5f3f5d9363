"""What a program and all that it starts create, change and run, as strace tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

CALLS = "execve,open,openat,creat,mkdir,mkdirat,chmod,fchmod,fchmodat,umask,mknod,mknodat,symlink,symlinkat"
STRACE = f"umask 0; exec strace -f -qq -y -v -s 100000 -e trace={CALLS} -o /run/trace "
MODE = re.compile(r"\b0?[0-7]{3,4}\b")


class Made(NamedTuple):
    """A file or folder that was created or given a mode, and the widest mode that it then had."""

    call: str
    path: str
    mode: int


def made(trace: str) -> Iterator[Made]:
    """All that was made, in order; fails where a program took back the mask that the first of them sets."""
    mask = 0
    for line in trace.splitlines():
        call, _, rest = line.split(maxsplit=1)[1].partition("(")
        if " = -1 " in line or call not in CALLS.split(","):
            continue
        if call == "umask":
            mask = int(rest.partition(")")[0], 8)
            assert mask & 0o077 == 0o077, line
        elif "O_CREAT" in rest or call in ("creat", "mkdir", "mkdirat", "mknod", "mknodat"):
            yield Made(call, path_in(rest), int(rest.rpartition(", ")[2].partition(")")[0], 8) & ~mask)
        elif "chmod" in call:
            yield Made(call, path_in(rest), int(MODE.findall(rest.rpartition(")")[0])[-1], 8))


def path_in(rest: str) -> str:
    """The first path of a call's words, or that of its descriptor."""
    named = re.search(r'"([^"]*)"', rest)
    found = named or re.search(r"<([^>]*)>", rest)
    assert found, rest
    return found.group(1)


def programs(trace: str) -> list[str]:
    """The lines of what was run: words and environment."""
    return [line for line in trace.splitlines() if " execve(" in line]
