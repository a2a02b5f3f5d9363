"""What a value must look like before the node believes it."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from nodes.script import muster_node as node
from tests.nodes.node.build import INTERFACE, digest_of, make_key, make_peer, text_of

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "content.json").read_text())
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0100000000000000000000000000000000000000000000000000000000000080",
]


def code_of(call: Any, *given: Any) -> str:
    with pytest.raises(node.Refused) as caught:
        call(*given)
    return caught.value.code


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_digest_of_a_content_is_that_of_its_canonical_text(vector: Any) -> None:
    lines = {peer["public_key"]: node.parse_peer(peer).line for peer in vector["peers"]}
    interface = node.parse_interface(vector["interface"]).line
    assert node.content_text(interface, lines) == vector["text"]
    assert node.content_digest(interface, lines) == vector["digest"]


@pytest.mark.parametrize("raw", LOW_ORDER)
def test_a_point_of_low_order_is_no_public_key(raw: str) -> None:
    """A6: all-zero and low-order points."""
    key = base64.b64encode(bytes.fromhex(raw)).decode()
    assert code_of(node.parse_key, key) == "bad_request"
    assert node.parse_key(make_key(1)) == make_key(1)


@pytest.mark.parametrize(
    "key",
    [
        make_key(1)[:-1],
        make_key(1)[:-2] + chr(ord(make_key(1)[-2]) + 1) + "=",
        " " + make_key(1),
        make_key(1) + "\n",
        make_key(1).replace("=", "-"),
        "",
        None,
        7,
    ],
)
def test_a_key_is_canonical_base64_of_32_bytes(key: object) -> None:
    """A6: 43 characters, non-canonical last character, spaces."""
    assert code_of(node.parse_key, key) == "bad_request"


@pytest.mark.parametrize(
    "network",
    [
        "10.0.0.2/32;id",
        "$(id)",
        "${IFS}",
        "10.0.0.2/32\t0.0.0.0/0",
        "10.0.0.2/33",
        "010.0.0.2/32",
        "10.0.0.2",
        "10.0.0.2/24",
        "10.0.0.2/255.255.255.255",
        "::ffff:10.0.0.2/128",
        "::ffff:a00:2/128",
        "fe80::1%eth0/128",
        "FD00::7/128",
        "0.0.0.0/0",
        "::/0",
        " 10.0.0.2/32",
        "vpn.example.com/32",
        None,
        167772162,
    ],
)
def test_a_network_is_canonical_text_without_host_bits(network: object) -> None:
    """A3: AllowedIPs that a shell or another parser would read otherwise."""
    assert code_of(node.parse_network, network, "allowed_ips") == "bad_request"
    assert node.parse_network("10.0.0.2/32", "allowed_ips")[3] == "10.0.0.2/32"


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "wg0;id", "-h", "a" * 16, "", ".", "wg 0", "all", "tombstones"])
def test_an_interface_name_is_no_path_and_no_option(name: str) -> None:
    """A4."""
    with pytest.raises(argparse.ArgumentTypeError):
        node.parse_interface_name(name)
    assert node.parse_interface_name("wg0") == "wg0"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1.0}',
        b'{"a":1e9}',
        b'{"a":%s}' % (b"9" * 19),
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":1} {"b":2}',
        b"null",
    ],
)
def test_a_line_is_one_strict_json_object(line: bytes) -> None:
    """A12: duplicate field, NaN; A11: depth."""
    assert code_of(node.parse_json, line) == "bad_request"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Bob\n[Interface]\nPostUp = id"},
        {"allowed_ips": ["10.1.0.3/32", "10.1.0.2/32"]},
        {"allowed_ips": ["fd00::1/128", "10.1.0.2/32"]},
        {"allowed_ips": ["10.1.0.2/32", "10.1.0.2/32"]},
        {"allowed_ips": "10.1.0.2/32"},
        {"expires_at": -1},
        {"expires_at": True},
        {"expires_at": "never"},
        {"preshared_key": ""},
        {"preshared_key": base64.b64encode(bytes(32)).decode()},
    ],
)
def test_a_peer_has_four_fields_and_no_more(changes: Any) -> None:
    """A2: no name ever comes to a node."""
    assert code_of(node.parse_peer, make_peer(1, **changes)) == "bad_request"
    assert node.parse_peer(make_peer(1)).line == text_of(make_peer(1))


@pytest.mark.parametrize(
    ("windows", "expires_at", "alive", "turns"),
    [
        (None, None, list(range(10)), []),
        (None, 5, [0, 1, 2, 3, 4], [5]),
        ([], None, [], []),
        ([[2, 4]], None, [2, 3], [2, 4]),
        ([[0, 1], [2, 4], [7, 99]], None, [0, 2, 3, 7, 8, 9], [1, 2, 4, 7, 99]),
        ([[1, 3], [5, 8]], 6, [1, 2, 5], [1, 3, 5, 6, 8]),
        ([[1, 3]], 2, [1], [1, 2, 3]),
    ],
)
def test_a_peer_is_alive_inside_its_windows_and_before_its_end(
    windows: Any, expires_at: int | None, alive: list[int], turns: list[int]
) -> None:
    """From the first second of a window, up to and without its last; nothing changes between two turns."""
    more = {} if windows is None else {"windows": windows}
    peer = node.parse_peer(make_peer(1, expires_at=expires_at, **more))
    assert [now for now in range(10) if node.is_alive(peer, now)] == alive
    assert [node.next_turn(peer, now) for now in [0, *turns]] == [*turns, node.FAR]


@pytest.mark.parametrize(
    "changes",
    [
        {"mtu": 1279},
        {"listen_port": 0},
        {"forward": "nat"},
        {"addresses": []},
        {"addresses": ["10.1.0.1"]},
        {"addresses": ["10.1.0.1/24", "10.1.0.1/24"]},
    ],
)
def test_an_interface_is_within_its_bounds(changes: Any) -> None:
    assert code_of(node.parse_interface, INTERFACE | changes) == "bad_request"
    assert node.parse_interface(INTERFACE).line == text_of(INTERFACE)


def test_peers_that_share_an_address_are_refused() -> None:
    """A12: overlapping AllowedIPs."""
    wide = node.parse_peer(make_peer(1, allowed_ips=["10.1.0.0/28", "10.1.0.2/32"]))
    inside = node.parse_peer(make_peer(2, allowed_ips=["10.1.0.9/32"]))
    beside = node.parse_peer(make_peer(2, allowed_ips=["10.1.0.16/32"]))
    assert code_of(node.check_overlap, [wide, inside]) == "bad_request"
    node.check_overlap([wide, beside])


def test_a_state_file_with_any_byte_changed_is_known_as_damaged() -> None:
    """D19."""
    lines = {make_key(n): node.parse_peer(make_peer(n)).line for n in range(3)}
    interface = node.parse_interface(INTERFACE).line
    digest = digest_of([make_peer(n) for n in range(3)])
    state = node.State(3, 7, digest, digest, interface, lines, 5, "state")
    data = node.state_bytes(state)
    assert node.parse_state(data) == state
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((node.Refused, ValueError)):
            node.parse_state(damaged)


def test_sealing_takes_out_peers_as_wg_quick_reads_them() -> None:
    """D11: what wg-quick save wrote into the conf."""
    kept = "[Interface]\nPrivateKey = x\nPostUp = muster-node load %i\n"
    peers = f"[peer]\nPublicKey = {make_key(1)}\nAllowedIPs = 10.1.0.2/32\n"
    saved = kept + "saveconfig = true\n" + peers + " [INTERFACE] # again\nMTU = 1420\n" + peers
    assert node.sealed(saved) == kept + " [INTERFACE] # again\nMTU = 1420\n"
    assert node.conf_peers(saved) == [make_key(1), make_key(1)]
    assert node.sealed(kept) == kept
