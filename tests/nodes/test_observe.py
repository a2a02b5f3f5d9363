"""A node's answer is either what the protocol says or Nonsense; nothing else of it gets in."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import observe
from nodes.observe import DriftSeen, NodeState, Nonsense, PeerSeen, ReceiptSeen

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["state", "receipts", "peers", "drift", "epoch", "generation", "found", "public_key", "x"])
bodies = st.dictionaries(names, json_values | st.dictionaries(names, json_values, max_size=4), max_size=6)
STATE = {
    "epoch": 1,
    "generation": 7,
    "digest": "d",
    "pushed_digest": None,
    "peers": 3,
    "tombstones": 0,
    "journal": 4,
    "now": 1,
}
RECEIPT = {"public_key": "k", "durable": True, "kernel": True, "disk": False, "found": ["/etc/x"]}


@pytest.mark.parametrize(
    "reader",
    [
        observe.node_state,
        observe.drift,
        lambda body: observe.peers(body, 10),
        lambda body: observe.receipts(body, {"k"}),
    ],
)
@given(body=bodies)
def test_whatever_a_node_sends_is_read_or_refused(
    reader: Callable[[dict[str, object]], object], body: dict[str, object]
) -> None:
    """E15"""
    try:
        found = reader(body)
    except Nonsense:
        return
    assert "\x1b" not in str(found)
    assert isinstance(found, NodeState | list)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {**STATE, "epoch": -1},
        {**STATE, "epoch": 2**31},
        {**STATE, "epoch": True},
        {**STATE, "generation": "7"},
        {**STATE, "generation": 7.0},
        {**STATE, "generation": 2**63},
        {**STATE, "digest": 5},
        {**STATE, "digest": ["d"]},
    ],
)
def test_a_state_with_one_wrong_value_is_nonsense(state: object) -> None:
    with pytest.raises(Nonsense):
        observe.node_state({"state": state})
    assert observe.node_state({"state": STATE}) == NodeState(1, 7, "d", "", 4)


@pytest.mark.parametrize(
    "receipts",
    [
        [],
        [RECEIPT, RECEIPT],
        [{**RECEIPT, "public_key": "other"}],
        [{**RECEIPT, "found": "all"}],
        [{**RECEIPT, "found": ["x"] * 101}],
        "k",
        [None],
    ],
)
def test_receipts_are_for_the_keys_that_were_asked_and_no_other(receipts: object) -> None:
    """E15: forged acks"""
    with pytest.raises(Nonsense):
        observe.receipts({"receipts": receipts}, {"k"})
    assert observe.receipts({"receipts": [RECEIPT]}, {"k"}) == [ReceiptSeen("k", True, True, False, ("/etc/x",))]


@pytest.mark.parametrize("word", [1, "true", None, [True], {}])
def test_only_true_is_proof(word: object) -> None:
    claimed = {**RECEIPT, "durable": word, "kernel": word, "disk": word}
    assert observe.receipts({"receipts": [claimed]}, {"k"}) == [ReceiptSeen("k", False, False, False, ("/etc/x",))]


def test_escapes_and_long_texts_are_made_harmless() -> None:
    row = {"public_key": None, "what": "conf\x1b[2J" * 20, "detail": "<b>\u202e" + "x" * 9000}
    assert observe.drift({"drift": [row]}) == [DriftSeen("", ("conf?[2J" * 5), "<b>?" + "x" * 296)]


def test_a_route_that_was_left_out_is_told_with_its_network() -> None:
    row = {"public_key": None, "what": "route", "detail": "10.50.0.0/16: another way is there"}
    assert observe.drift({"drift": [row]}) == [DriftSeen("", "route", "10.50.0.0/16: another way is there")]


def test_a_million_peers_or_drifts_are_not_kept() -> None:
    row = ["k", None, 0, 0, 0]
    with pytest.raises(Nonsense):
        observe.peers({"peers": [row] * 11}, 10)
    assert observe.peers({"peers": [row]}, 10) == [PeerSeen("k", "", 0, 0, 0)]
    assert len(observe.drift({"drift": [{}] * 5000})) == observe.DRIFT_LIMIT
    with pytest.raises(Nonsense):
        observe.drift({"drift": [{}] * 100_001})
