"""A push that was cut or flipped on its way changes nothing; run in one process, on an interface that is not there."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from nodes.script import muster_node as node
from tests.nodes.node.build import Json, dead, make_peer, make_whole

PEERS = [make_peer(n) for n in range(4)]


def line_of(generation: int, count: int) -> bytes:
    push = make_whole(generation, PEERS[:count], tombstones=[dead(9)])
    return json.dumps({"v": 1, "id": 5, "op": "apply", **push}).encode()


def ask(held: node.Node, line: bytes) -> Json:
    """What a session would answer, whether it goes on or ends."""
    try:
        return node.answer(held, node.parse_json(line), False)
    except node.Refused as refused:
        return node.failure(refused)


@pytest.fixture
def held(tmp_path: Path) -> node.Node:
    """A node that holds three peers; its interface name exists nowhere, so that no kernel is near."""
    paths = node.Paths(lib=str(tmp_path / "lib"), run=str(tmp_path / "run"), wireguard=str(tmp_path / "etc"), boot=())
    held = node.Node("nosuchwg", paths)
    taken = ask(held, line_of(1, 3))
    assert (taken["error"]["code"], taken["error"]["state"]["peers"]) == ("kernel", 3)
    return held


def test_a_push_cut_at_any_byte_is_refused(held: node.Node) -> None:
    """A12, F11, E8."""
    before, line = Path(held.state.path).read_bytes(), line_of(2, 4)
    replies = [ask(held, line[:end]) for end in range(len(line))]
    assert {reply["error"]["code"] for reply in replies} == {"bad_request"}
    assert Path(held.state.path).read_bytes() == before
    ask(held, line)
    assert held.state.read().generation == 2


def test_a_push_with_a_flipped_bit_never_becomes_another_content(held: node.Node) -> None:
    """A12: 1,000 flips; what is taken has the digest of what was sent."""
    before, line, dice = held.state.read(), line_of(2, 4), random.Random(7)  # noqa: S311
    digest = make_whole(2, PEERS)["digest"]
    for _ in range(1000):
        place, bit = dice.randrange(len(line)), dice.randrange(8)
        reply = ask(held, line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :])
        state = held.state.read()
        assert reply["ok"] is False
        assert state.digest in (before.digest, digest)
        if state.digest == digest:
            # The flip hit the id, the reason or the generation: the content is whole.
            assert reply["error"]["code"] in ("kernel", "stale", "bad_request")
            held.state.write(before)


@pytest.mark.parametrize("ending", [b"", b'{"v":1,"id":1,"op":"hello"}'])
def test_a_stream_that_ends_within_a_line_is_refused(ending: bytes) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"v":1}\n' + ending)
    os.close(writer)
    with open(reader, "rb") as stream:
        lines = node.read_lines(stream)
        assert next(lines) == b'{"v":1}'
        with pytest.raises(node.Refused if ending else StopIteration):
            next(lines)


def test_an_endless_line_is_given_up_at_16_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A11: by the length read, not by the memory of the machine."""
    monkeypatch.setattr(node, "MAX_LINE", 1 << 20)
    with open("/dev/zero", "rb") as endless, pytest.raises(node.Refused):
        next(node.read_lines(endless))


def test_an_overlap_of_ten_thousand_peers_is_found_quickly() -> None:
    peers = [node.parse_peer(make_peer(n)) for n in range(10_000)]
    node.check_overlap(peers)
    with pytest.raises(node.Refused):
        node.check_overlap([*peers, node.parse_peer(make_peer(10_001, allowed_ips=["10.1.20.7/32"]))])


def test_a_defect_is_told_by_type_and_line_without_a_value(held: node.Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11."""
    monkeypatch.setattr(held.state, "read", lambda: dict[str, str]()["preshared secret"])
    reply = ask(held, b'{"v":1,"id":1,"op":"hello"}')
    assert reply["error"]["code"] == "internal"
    assert reply["error"]["message"].startswith("KeyError at line ")


def test_tombstones_are_on_the_disk_before_the_kernel_is_touched(
    held: node.Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F2: what is lost with the power is never what was answered."""
    acts: list[str] = []
    real_sync, real_run = os.fsync, node.run

    def sync(file: int) -> None:
        acts.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        real_sync(file)

    def run(argv: list[str], *given: object, **named: object) -> object:
        acts.append(" ".join(argv[:2]))
        return real_run(argv, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(node, "run", run)
    keys = [{"public_key": PEERS[0]["public_key"], "reason": "lost"}]
    ask(held, json.dumps({"v": 1, "id": 1, "op": "revoke", "keys": keys}).encode())
    assert acts == ["tombstones", "tombstones.copy", "wg set", "state.new", "nosuchwg", "wg show"]
