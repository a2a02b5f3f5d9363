"""Lines that were cut, flipped or mixed with garbage on their way, sent to real sessions on a real interface."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import Json, dead, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine
from tests.nodes.node.mill import Mill, check

HELD = [make_peer(n) for n in range(12)]
FEW = HELD[:2]
# As they are, the brake holds them: whatever else a flipped bit may make of them, only `approved` would be worse.
PUSHES: dict[str, Json] = {
    "whole": {"op": "apply", **make_whole(2, FEW, decided=[make_key(1)], tombstones=[dead(90)])},
    "delta": {"op": "apply", **make_delta(2, HELD, [*FEW, make_peer(20)], decided=[make_key(11)])},
}
HELLO = b'{"v":1,"id":3,"op":"hello"}\n'
GARBAGE = {
    "nothing": b"",
    "a blank": b" ",
    "zeros": b"\0" * 100,
    "a byte order mark": b"\xef\xbb\xbf" + HELLO[:-1],
    "another coding": HELLO[:-1].decode().encode("utf-16"),
    "two objects": HELLO[:-1] + HELLO[:-1],
    "two objects, apart": HELLO[:-1] + b" " + HELLO[:-1],
    "a list of two": b"[" + HELLO[:-1] + b"," + HELLO[:-1] + b"]",
    "a carriage return for an end": HELLO[:-1] + b"\r" + HELLO[:-1],
    "a line separator for an end": HELLO[:-1] + b"\xe2\x80\xa8" + HELLO[:-1],
    "a web request": b"GET / HTTP/1.1\r",
    "ssh": b"SSH-2.0-OpenSSH_9.2",
    "noise": random.Random(3).randbytes(5000).replace(b"\n", b""),  # noqa: S311
    "an answer": b'{"v":1,"id":3,"ok":true}',
}


@pytest.fixture(scope="module")
def mill(shared_machine: Machine) -> Iterator[Mill]:
    shared_machine.make_interface()
    mill = Mill(shared_machine)
    assert mill.session(line_of({"op": "apply", **make_whole(1, HELD)})).replies()[0]["ok"]
    yield mill
    mill.end()


def line_of(request: Json) -> bytes:
    return json.dumps({"v": 1, "id": 7, **request}).encode() + b"\n"


def is_well(mill: Mill) -> bool:
    """Whether a legitimate request is done as ever: here the repair of what is held."""
    (reply,) = mill.session(line_of({"op": "apply", **make_whole(1, HELD)})).replies()
    return bool(reply["ok"] and reply["result"] == "already")


@pytest.mark.parametrize("name", PUSHES)
def test_a_push_cut_at_any_byte_ends_its_session_and_changes_nothing(mill: Mill, name: str) -> None:
    """A12, F11: with and without an end of line behind the cut."""
    before, line = mill.picture(), line_of(PUSHES[name])
    for cut in range(len(line) - 1):
        done = mill.session(line[:cut] + (b"\n" if cut % 2 else b""))
        if cut == 0:
            assert (done.code, done.out) == (0, b"")
            continue
        assert (done.code, [reply["error"]["code"] for reply in done.replies()]) == (1, ["bad_request"])
        assert mill.picture() == before
    assert is_well(mill)


@pytest.mark.parametrize("name", PUSHES)
def test_a_push_with_a_flipped_bit_changes_nothing(mill: Mill, name: str) -> None:
    """A12: 500 flips of each size of push."""
    before, line, dice = mill.picture(), line_of(PUSHES[name])[:-1], random.Random(7)  # noqa: S311
    codes = []
    for _ in range(500):
        place, bit = dice.randrange(len(line)), dice.randrange(8)
        flipped = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
        done = mill.session(flipped + b"\n")
        replies = done.replies()
        assert replies and done.err == b""
        for reply in replies:
            check(reply)
            assert reply["ok"] is False
            codes.append(reply["error"]["code"])
        assert (replies[-1]["id"] is None) == (done.code == 1)
        assert mill.picture() == before
    assert {"bad_request", "digest", "brake"} <= set(codes)
    assert is_well(mill)
    print(name, sorted((code, codes.count(code)) for code in set(codes)))


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_between_two_requests_ends_the_session_after_the_first(mill: Mill, what: str) -> None:
    """A12: nothing behind it is read any more, and the next session is as ever."""
    before = mill.picture()
    done = mill.session(HELLO + GARBAGE[what] + b"\n" + line_of(PUSHES["whole"]))
    first, second = done.replies()
    assert (done.code, done.err, first["ok"]) == (1, b"", True)
    assert (second["id"], second["error"]["code"]) == (None, "bad_request")
    assert mill.picture() == before
    assert is_well(mill)


def test_a_line_that_ends_as_on_windows_is_a_request_like_any_other(mill: Mill) -> None:
    """The legitimate neighbour of all that: blanks are nothing to JSON."""
    done = mill.session(HELLO.replace(b"\n", b"\r\n") + b"\t" + HELLO)
    assert (done.code, [reply["ok"] for reply in done.replies()]) == (0, [True, True])


def test_a_process_of_its_own_ends_no_otherwise(shared_machine: Machine, mill: Mill) -> None:
    """The forks of the tests above are true to what sshd starts."""
    line, words = line_of(PUSHES["whole"]), shared_machine.words("muster-node", "session", "wg0")
    for data in (b"", HELLO, HELLO[:-1], line[:300], line[:300] + b"\n", HELLO + b"\xff\n" + HELLO, line):
        alone = subprocess.run(words, input=data, capture_output=True, timeout=20, check=False)
        forked = mill.session(data)
        answers = [[reply.get("error") for reply in json_lines(out)] for out in (alone.stdout, forked.out)]
        assert (alone.returncode, alone.stderr, len(answers[0])) == (forked.code, forked.err, len(answers[1]))
        assert [error and error["code"] for error in answers[0]] == [error and error["code"] for error in answers[1]]


def json_lines(out: bytes) -> list[Json]:
    return [json.loads(line) for line in out.splitlines()]
