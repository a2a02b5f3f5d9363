"""Whatever stands in the place of a value: a line of the protocol is the answer, kernel and state are as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nodes.node.build import Json, digest_of, make_peer, make_whole, text_of
from tests.nodes.node.machine import Machine
from tests.nodes.node.mill import Mill, check
from tests.nodes.node.poisons import (
    BROKEN,
    FEW,
    HELD,
    LESS,
    REQUESTS,
    SOUND,
    Path,
    is_sound,
    paths_in,
    with_raw,
    with_value,
)

each_request = pytest.mark.parametrize("name", REQUESTS)
quick = settings(
    derandomize=True, max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

# What a person would say to have it done.
MEANT = [("approved", b"true"), ("dry_run", b"false")]


@pytest.fixture(scope="module")
def mill(shared_machine: Machine) -> Iterator[Mill]:
    """A machine whose interface holds fifty peers."""
    shared_machine.make_interface()
    mill = Mill(shared_machine)
    assert ask(mill, {"op": "apply", **make_whole(1, HELD)})["ok"]
    yield mill
    mill.end()


def request_of(name: str) -> Json:
    return {"v": 1, "id": 7, **REQUESTS[name]}


def ask(mill: Mill, request: Json) -> Json:
    """The one answer to one request."""
    (reply,) = mill.session(json.dumps({"v": 1, "id": 7, **request}).encode() + b"\n").replies()
    return reply


def feed(mill: Mill, lines: list[bytes]) -> list[Json]:
    """An answer for each line; one that ends its session is followed by another session."""
    replies: list[Json] = []
    while len(replies) < len(lines):
        done = mill.session(b"".join(line + b"\n" for line in lines[len(replies) : len(replies) + 50]))
        answers = done.replies()
        assert answers and done.err == b"", done.err
        assert [reply["id"] is None for reply in answers] == [False] * (len(answers) - 1) + [done.code == 1]
        for reply in answers:
            check(reply)
        replies += answers
    return replies


def is_harmless(name: str, path: Path, raw: bytes) -> bool:
    """Whether the request may be done all the same: it looks, or its op is meant to do what it then says."""
    return name not in ("whole", "delta", "tombstones") and is_sound(path, raw)


@each_request
def test_no_other_value_in_any_place_is_taken_for_one(mill: Mill, name: str) -> None:
    """A11, A12: types, ranges, spellings, depth, 65 networks, 100,001 entries."""
    before, request = mill.picture(), request_of(name)
    cases = [(path, raw) for path in paths_in(request) for raw in SOUND if (path[-1], raw) not in MEANT]
    replies = feed(mill, [with_raw(request, path, raw) for path, raw in cases])
    taken = {case for case, reply in zip(cases, replies, strict=True) if reply["ok"]}
    allowed = {(path, raw) for path, raw in cases if is_harmless(name, path, raw)}
    assert taken - allowed == set()
    assert allowed - taken == set() or name == "dry run"
    assert mill.picture() == before
    assert len(cases) > 100
    print(name, len(cases), "values,", len(taken), "taken")


@each_request
def test_what_is_no_json_ends_the_session_wherever_it_stands(mill: Mill, name: str) -> None:
    """A12: NaN, duplicate field, overlong and lone bytes, control characters."""
    before, request = mill.picture(), request_of(name)
    places = list(paths_in(request))
    lines = [with_raw(request, places[n % len(places)], raw) for n, raw in enumerate([*BROKEN, *BROKEN])]
    for reply in feed(mill, lines):
        assert (reply["id"], reply["error"]["code"]) == (None, "bad_request")
    assert mill.picture() == before


@each_request
def test_a_field_too_few_too_many_or_twice_is_refused(mill: Mill, name: str) -> None:
    """A12."""
    before, request = mill.picture(), request_of(name)
    objects: list[tuple[Path, Any]] = [((), request)]
    objects += [(path, found) for path in paths_in(request) if type(found := get(request, path)) is dict]
    lines = [json.dumps(with_value(request, path, {**found, "extra": 1})).encode() for path, found in objects]
    for path, found in objects:
        for field in found.keys() - {"dry_run"}:
            fewer = {key: value for key, value in found.items() if key != field}
            lines.append(json.dumps(with_value(request, path, fewer)).encode())
            doubled = json.dumps({field: 0})[:-1] + "," + json.dumps(found)[1:]
            lines.append(with_raw(request, path, doubled.encode()) if path else doubled.encode())
    assert {reply["error"]["code"] for reply in feed(mill, lines)} == {"bad_request"}
    assert mill.picture() == before


def get(value: Any, path: Path) -> Any:
    return get(value[path[0]], path[1:]) if path else value


def pushes() -> dict[str, Json]:
    """Contents that contradict themselves, each with the digest of what it holds."""
    twice = [*HELD[:49], make_peer(0, preshared_key=None)]
    shared = [*HELD[:49], make_peer(49, allowed_ips=HELD[3]["allowed_ips"])]
    inside = [*HELD[:49], make_peer(49, allowed_ips=["10.1.0.0/30"])]
    return {
        "a peer twice": make_whole(2, twice),
        "an address twice": make_whole(2, shared),
        "a network around another's": make_whole(2, inside),
        "no digest of it": make_whole(2, HELD[:49], digest=digest_of(HELD)),
        "a list cut short": make_whole(2, HELD[:40], digest=digest_of(HELD)),
        "no peer at all": make_whole(2, []),
        "only few peers": make_whole(2, FEW),
        "all peers past their expiry": make_whole(2, [{**peer, "expires_at": 1} for peer in HELD]),
    }


@pytest.mark.parametrize(("what", "push"), pushes().items(), ids=list(pushes()))
def test_a_push_that_is_cut_short_or_contradicts_itself_leaves_fifty_peers(mill: Mill, what: str, push: Json) -> None:
    """A12, F11: an empty push is braked, an overlap is refused, a lost peer is missed by the digest."""
    before = mill.picture()
    code = "digest" if what in ("no digest of it", "a list cut short") else "bad_request"
    code = "brake" if what in ("no peer at all", "only few peers", "all peers past their expiry") else code
    assert ask(mill, {"op": "apply", **push})["error"]["code"] == code
    assert mill.picture() == before
    assert ask(mill, {"op": "apply", **make_whole(1, HELD)})["result"] == "already"


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A request with up to three of its values replaced, dropped or doubled, at random."""
    request = request_of(draw(st.sampled_from(["whole", "delta", "dry run", "revoke", "observe"])))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in paths_in(request) if path[-1] != "approved"]))
        above, act = get(request, path[:-1]), draw(st.sampled_from(["replace", "replace", "drop", "double"]))
        if act == "replace":
            request = with_value(request, path, draw(JSONS))
        elif type(above) is list:
            part = [] if act == "drop" else [above[int(path[-1])]] * 2
            request = with_value(request, path[:-1], [*above[: int(path[-1])], *part, *above[int(path[-1]) + 1 :]])
        else:
            request = with_value(request, path[:-1], {key: above[key] for key in above if key != path[-1]})
    return json.dumps(request).encode()


@quick
@given(lines=st.lists(spoilt(), min_size=1, max_size=4))
def test_no_mixture_of_such_values_changes_kernel_or_state(mill: Mill, lines: list[bytes]) -> None:
    """A12."""
    before = mill.picture()
    for reply in feed(mill, lines):
        assert reply["ok"] is False or reply.get("result") in ("planned", None)
    assert mill.picture() == before


def test_after_all_that_a_push_is_taken_as_ever(mill: Mill) -> None:
    """A12: the legitimate neighbour, as the whole and as a delta."""
    state = ask(mill, {"op": "hello"})["state"]
    assert (state["generation"], state["digest"]) == (1, digest_of(HELD))
    assert ask(mill, {"op": "apply", **make_whole(2, LESS, approved=True)})["result"] == "applied"
    assert len(mill.kernel()) == len(LESS) + 1
    assert text_of(LESS[0]) in mill.state().decode()
