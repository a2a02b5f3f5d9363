"""Running programs of this machine: one runner, one error, and `ip` in batches."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NODE_ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
Completed = subprocess.CompletedProcess[str]


class LabError(RuntimeError):
    """Something the lab was asked to do did not work; the message holds the program's own words."""


def run(
    command: Sequence[str],
    *,
    input: str | None = None,
    check: bool = True,
    timeout: float = 120,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end with captured text; raise LabError if it failed and `check` is set."""
    environment = environment or {**os.environ, "PATH": PATH}
    done = subprocess.run(
        command,
        input=input if input is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
        env=dict(environment),
        cwd=REPOSITORY,
    )
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise LabError(f"{' '.join(command)[:300]}: exit status {done.returncode}: {said}")
    return done


def ip_batch(lines: Sequence[str], *, pid: int | None = None, force: bool = False) -> None:
    """Run `ip` commands in one go, in the network namespace of `pid` or in this one."""
    if not lines:
        return
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"] if pid else []
    run(
        [*inside, "ip", *(["-force"] if force else []), "-batch", "-"],
        input="\n".join(lines) + "\n",
        check=not force,
    )


def link_exists(name: str) -> bool:
    """Say whether this namespace has a link of that name."""
    return os.path.exists(f"/sys/class/net/{name}")
