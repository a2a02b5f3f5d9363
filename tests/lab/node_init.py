"""Run as a program: gives life to nodes. Reads a JSON request on stdin, answers {name: error} on stdout.

Each node gets a first process in namespaces of its own, on an overlay of a lower root and its own disk.
A program of its own since forking a process that has threads is not safe.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from tests.lab.processes import Processes

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
BATCH = 16


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    _check(LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {target}")


def _pivot(root: str) -> None:
    """Make `root` the root and let go of the old one, so that nothing holds this machine's mounts."""
    os.chdir(root)
    # pivot_root(2) has no wrapper in libc; "." on "." stacks the old root on top of the new one.
    _check(LIBC.syscall(_pivot_root_number(), b".", b"."), "pivot_root")
    _check(LIBC.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _pivot_root_number() -> int:
    return {"x86_64": 155, "aarch64": 41}[os.uname().machine]


def _make_root(disk: str, lower: str) -> None:
    root = f"{disk}/merged"
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("overlay", root, "overlay", 0, f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work")
    _mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    _mount("sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV)
    _mount("/dev", f"{root}/dev", None, MS_BIND | MS_REC)
    _mount("tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=256m")
    _mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=512m")
    _pivot(root)


def _be_init(name: str, disk: str, lower: str, answer: int) -> NoReturn:
    _check(LIBC.sethostname(name.encode(), len(name)), "sethostname")
    _make_root(disk, lower)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    # Ignored across exec, so that the kernel reaps every orphan of this namespace.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.write(answer, b"ok")
    os.execve("/bin/sleep", ["lab-node", "infinity"], {})


def _unshare_and_fork(name: str, disk: str, lower: str, answer: int, records: Processes) -> None:
    """In a child: fork the first process into new namespaces, let it go on once it is on record."""
    os.setsid()
    flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    _check(LIBC.unshare(flags), "unshare")
    gate, go = os.pipe()
    first = os.fork()
    if first:
        records.record(name, first)
        os.write(go, b"g")
        return
    os.close(go)
    if os.read(gate, 1) == b"g":
        _be_init(name, disk, lower, answer)


def _spawn(name: str, disk: str, lower: str, records: Processes) -> tuple[int, int]:
    """Fork; returns the child's pid and the pipe on which the node says "ok" or what is wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        os.close(reader)
        _unshare_and_fork(name, disk, lower, writer, records)
    except OSError as error:
        os.write(writer, str(error).encode()[:900])
    finally:
        os._exit(0)


def _answer(child: int, reader: int) -> str:
    said = b""
    while chunk := os.read(reader, 1024):
        said += chunk
    os.close(reader)
    os.waitpid(child, 0)
    return "" if said == b"ok" else said.decode(errors="replace") or "its first process died"


def main() -> None:
    """Spawn all nodes of the request, a batch at a time, and tell which failed."""
    request = json.load(sys.stdin)
    records = Processes(Path(request["pids"]))
    nodes, errors = request["nodes"], {}
    for start in range(0, len(nodes), BATCH):
        batch = nodes[start : start + BATCH]
        children = [_spawn(n["name"], n["disk"], n["lower"], records) for n in batch]
        for node, (child, reader) in zip(batch, children, strict=True):
            if error := _answer(child, reader):
                errors[node["name"]] = error
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
