"""Lanes: strict answers, caps, deadlines of their own; judged over a real sshd."""

import json
import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.lanes import LIMIT, Answer, Lane, collect, collect_groups, parse_answer
from nodes.transport import (
    Connection,
    NodeMisbehaved,
    NodeRefused,
    NodeSilent,
    TransportError,
    Unreachable,
    connect,
)
from tests.nodes.sshd import Sshd, eventually, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "server") as running:
        yield running


@pytest.fixture
def connection(server: Sshd) -> Iterator[Connection]:
    opened = connect(server.target())
    yield opened
    opened.close()


def fault(lane: Lane) -> TransportError:
    """The error that one request on this lane ends in."""
    with pytest.raises(TransportError) as caught:
        lane.call("hello", timeout=5)
    return caught.value


def test_answers_come_by_id(connection: Connection) -> None:
    lane = connection.open_lane("session")
    first, second = lane.send("one"), lane.send("two")
    answers: list[Answer] = []
    eventually(lambda: answers.extend(lane.poll()) or len(answers) == 2, "both answers come")  # type: ignore[func-returns-value]
    assert [(answer.id, answer.ok) for answer in answers] == [(first, True), (second, True)]


def test_an_answer_to_another_request_is_kept_for_its_caller(connection: Connection) -> None:
    lane = connection.open_lane("session")
    first, second = lane.send("one"), lane.send("two")
    assert [answer.id for _, answer in collect({lane: second}, timeout=5) if isinstance(answer, Answer)] == [second]
    kept = lane.take(first)
    assert kept is not None and kept.id == first


def test_a_refusal_is_raised_with_its_code(connection: Connection) -> None:
    with pytest.raises(NodeRefused) as caught:
        connection.open_lane("session").call("refuse")
    refusal = caught.value
    assert (refusal.code, refusal.message, refusal.body) == ("brake", "too many", {"removals": 9})
    assert refusal.is_retryable is False


def test_a_refusal_that_time_mends_is_retryable() -> None:
    assert [NodeRefused("a", code, "", {}).is_retryable for code in ("kernel", "disk", "bad_request")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Last login: Mon",
        '{"v":1,"id":1,"ok":true,"id":1}',
        '{"v":1,"id":7,"ok":true}',
        '{"v":2,"id":1,"ok":true}',
        '{"v":1,"id":1,"ok":1}',
        '{"v":1,"id":true,"ok":true}',
        '{"v":1,"id":null,"ok":false,"error":{"code":"bad_request","message":"no"}}',
        '{"v":1,"id":1,"ok":false}',
        '{"v":1,"id":1,"ok":true,"error":{"code":"stale","message":"no"}}',
        '{"v":1,"id":1,"ok":true,"n":NaN}',
        "[" * 20000,
        "[]",
    ],
    ids=lambda line: line[:40],
)
def test_what_is_no_answer_ends_the_lane(connection: Connection, line: str) -> None:
    """E15: a lying node harms its own lane only."""
    lane = connection.open_lane(f"say {line}")
    assert type(fault(lane)) is NodeMisbehaved
    assert lane.is_open is False
    assert connection.open_lane("session").call("hello").ok


def test_a_line_without_end_is_cut_off(connection: Connection) -> None:
    lane = connection.open_lane("endless")
    assert "more than 16 MiB" in str(fault(lane))
    assert len(lane._partial) <= LIMIT + 65536
    lane.close()


def test_a_session_that_dies_says_why(connection: Connection) -> None:
    error = fault(connection.open_lane("die"))
    assert isinstance(error, Unreachable)
    assert (error.kind, str(error).endswith("(muster-node: no such interface)")) == ("closed", True)


def test_a_lane_that_is_not_answered_is_silent_and_its_late_answer_dropped(connection: Connection) -> None:
    lane = connection.open_lane("session")
    [(_, outcome)] = collect({lane: lane.send("hello")}, timeout=0.0)
    assert isinstance(outcome, NodeSilent)
    assert outcome.after == 0.0
    assert lane.call("again", timeout=5).id == 2


@pytest.mark.alone
def test_a_node_that_takes_nothing_ends_a_large_send(tmp_path_factory: pytest.TempPathFactory) -> None:
    """E5: no progress, no wait; what is cut is the connection."""
    with sshd(tmp_path_factory.mktemp("ssh") / "server") as server:
        connection = connect(server.target())
        lane = connection.open_lane("deaf")
        began = time.monotonic()
        with pytest.raises(NodeSilent):
            lane.send("apply", progress_timeout=0.4, peers="x" * 12_000_000)
        assert time.monotonic() - began < 2
        connection.close()


def test_large_requests_and_answers_arrive_whole(connection: Connection) -> None:
    load = os.urandom(3_000_000).hex()
    answer = connection.open_lane("session").call("apply", load=load, timeout=20)
    assert answer.body["echo"] == {"v": 1, "id": 1, "op": "apply", "load": load}


@pytest.mark.alone
def test_a_dead_lane_delays_no_other(connection: Connection) -> None:
    """F17: no barrier: 49 of 50 are told before the dead one's deadline."""
    lanes = [connection.open_lane("session") for _ in range(50)]
    assert len(list(collect({lane: lane.send("hello") for lane in lanes}, timeout=30))) == 50
    dead = lanes[25]
    pending = {lane: lane.send("ignore" if lane is dead else "revoke") for lane in lanes}
    began = time.monotonic()
    told = [(lane, type(outcome), time.monotonic() - began) for lane, outcome in collect(pending, timeout=1.5)]
    assert [kind for _, kind, _ in told] == [Answer] * 49 + [NodeSilent]
    assert told[-1][0] is dead
    assert {lane for lane, _, _ in told} == set(lanes)
    assert told[48][2] < 1 < told[49][2] < 2
    for lane in lanes:
        lane.close()


def test_an_answer_that_came_while_the_caller_was_busy_is_no_silence(connection: Connection) -> None:
    lane, other = connection.open_lane("session"), connection.open_lane("session")
    assert len(list(collect({lane: lane.send("warm"), other: other.send("warm")}, timeout=10))) == 2
    outcomes = []
    for answered, outcome in collect({lane: lane.send("one"), other: other.send("two")}, timeout=0.3):
        outcomes.append(type(outcome))
        busy_until = time.monotonic() + 0.5
        waiting = other if answered is lane else lane
        eventually(lambda until=busy_until: time.monotonic() > until, "the caller is done")  # type: ignore[misc]
        assert waiting is not answered
    assert outcomes == [Answer, Answer]


def test_collecting_nothing_ends_at_once() -> None:
    assert list(collect({}, timeout=5)) == []


FIELDS = st.text() | st.sampled_from(["v", "id", "ok", "error"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda leaf: st.lists(leaf) | st.dictionaries(FIELDS, leaf),
)


@given(JSON)
def test_any_json_is_an_answer_or_a_clear_error(value: object) -> None:
    try:
        answer = parse_answer(json.dumps(value).encode())
    except ValueError as error:
        assert str(error).startswith("the node sent")
    else:
        assert isinstance(value, dict) and value["id"] == answer.id


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_clear_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="the node sent"):
        parse_answer(b"!" + line)


@pytest.mark.alone
def test_a_group_is_handed_over_though_others_are_silent(connection: Connection) -> None:
    """E5: what has come is not held up until a silent machine's deadline."""
    lanes = [connection.open_lane("session") for _ in range(6)]
    assert len(list(collect({lane: lane.send("warm") for lane in lanes}, timeout=10))) == 6
    pending = {lane: lane.send("revoke" if lane is lanes[0] else "ignore") for lane in lanes}
    began = time.monotonic()
    groups = [
        (len(group), time.monotonic() - began) for group in collect_groups(pending, timeout=1.5, size=3, linger=0.05)
    ]
    assert groups[0][0] == 1
    assert groups[0][1] < 0.75 < 1 < groups[1][1]
    assert sum(count for count, _ in groups) == 6
