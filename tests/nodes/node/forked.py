"""Runs the script's commands one after the other, each in a fork: what a start of Python costs is paid once.

Run inside a machine: `python -IS forked.py SCRIPT`. A frame on standard input is a line of JSON {"words", "size"} and
so many bytes for the command's standard input; the answer is {"code", "sizes"} and what it wrote to its two outputs.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
import traceback
from types import ModuleType
from typing import Any, BinaryIO

Program = Any
LIMIT = 30


def load(path: str) -> Program:
    module = sys.modules["muster_node"] = ModuleType("muster_node")
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), vars(module))
    # The one parser is made, and what it imports is there, before the first fork.
    program: Program = module
    program.parser = functools.cache(program.parser)
    program.parser().parse_args(["session", "wg0"])
    # Nothing lives in the parent that a fork would copy only to count it.
    gc.collect()
    gc.freeze()
    return program


def in_fork(program: Program, words: list[str], data: bytes) -> tuple[int, list[bytes]]:
    """Exit status of the command (negative: the signal that ended it), and its two outputs."""
    files = [os.memfd_create(name) for name in ("in", "out", "err")]
    os.write(files[0], data)
    os.lseek(files[0], 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        become(program, words, files)
    _, status = os.waitpid(child, 0)
    texts = [os.pread(file, os.fstat(file).st_size, 0) for file in files[1:]]
    for file in files:
        os.close(file)
    return os.waitstatus_to_exitcode(status), texts


def become(program: Program, words: list[str], files: list[int]) -> None:
    """The child: ends as a process of its own would."""
    signal.alarm(LIMIT)
    code = 1
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
        code = program.main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve(program: Program, asked: BinaryIO, told: BinaryIO) -> None:
    """`kept-tick` is done by one object that lives on, as in the daemon; all else by a fork."""
    kept: dict[str, Any] = {}
    for line in asked:
        frame = json.loads(line)
        words, data = frame["words"], asked.read(frame["size"])
        if words[0] == "kept-tick":
            node = kept.setdefault(words[1], program.Node(words[1], program.Paths()))
            reply = program.guarded(node.tick)
            code, texts = 0, [b"" if reply["ok"] else reply["error"]["message"].encode(), b""]
        else:
            code, texts = in_fork(program, words, data)
        told.write(json.dumps({"code": code, "sizes": [len(text) for text in texts]}).encode() + b"\n")
        told.write(b"".join(texts))
        told.flush()


if __name__ == "__main__":
    # The forks get an untouched 0 and 1.
    serve(load(sys.argv[1]), os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
