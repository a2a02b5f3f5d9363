"""Requests of every op, and what can be put in the place of any value in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from tests.nodes.node.build import Json, dead, make_delta, make_key, make_peer, make_whole

Path = tuple[str | int, ...]
HELD = [make_peer(n) for n in range(50)]
# Taken as they are, these two would end more peers than a push may: only a person's `approved` lets them through.
FEW, LESS = HELD[:2], [*HELD[:43], make_peer(60), make_peer(61)]
REQUESTS: dict[str, Json] = {
    "hello": {"op": "hello"},
    "observe": {"op": "observe", "full": True},
    "journal": {"op": "journal", "after": 0},
    "time": {"op": "time", "now": 1_900_000_000},
    "revoke": {"op": "revoke", "keys": [dead(90), dead(91)]},
    "whole": {"op": "apply", **make_whole(2, FEW, decided=[make_key(1)])},
    "delta": {"op": "apply", **make_delta(2, HELD, LESS, decided=[make_key(44)])},
    "tombstones": {"op": "apply", "tombstones": [dead(92)]},
    "dry run": {"op": "apply", **make_whole(2, FEW, dry_run=True)},
}
MARK = "the value that is replaced"
NUMBERS = ["-1", "0", "-0", str(2**53), str(2**53 + 1), "9" * 18, "9" * 19, "1" + "0" * 400, "1.0", "1e9", "1E-3"]
WORDS = [
    *["", "x" * 1001, "\x00", "\x1b[31m", "\u2028", "\ud800", "\udfff\ud800", "$(id)", "-h", "../../etc/passwd"],
    *["bob\n[Interface]\nPostUp = touch /run/pwned", make_key(1)[:-1], make_key(1) + " ", "\uff11\uff10.1.0.9/32"],
    *[make_key(1)[:42] + "B=", base64.b64encode(bytes(32)).decode(), base64.b64encode(b"\1" + bytes(31)).decode()],
    *["10.1.0.9", "10.1.0.9/24", "10.1.0.09/32", "0.0.0.0/0", "::/0", "::ffff:10.1.0.9/128", "fe80::1%wg0/128"],
    *["FD00::9/128", "10.1.0.9/255.255.255.255", "10.1.0.9/32,10.1.0.10/32", "vpn.example.com/32", "vpn.example.com"],
]
# Valid JSON, hardly ever a value that is asked for.
SOUND = [word.encode() for word in ["null", "true", "false", "[]", "{}", "[null]", '{"a":1}', *NUMBERS[:6], "[[[[]]]]"]]
SOUND += [json.dumps(word).encode() for word in WORDS]
SOUND += [b'"\xe2\x80\xa8"', json.dumps([f"10.9.0.{n}/32" for n in range(10, 75)]).encode()]
SOUND += [b"[" + b",".join([b"0"] * 100_001) + b"]"]
# No JSON that is taken, wherever it stands: the session ends.
BROKEN = [
    word.encode() for word in [*NUMBERS[6:], "NaN", "Infinity", "-Infinity", ",", "nul", "'a'", '"a', "[1,]", "01"]
]
BROKEN += [b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b"[" * 100_000, b'{"a":' * 100_000, b"[" * 10_000 + b"]" * 10_000]
BROKEN += [b'"\x00"', b'"\x1f"', b'"\x7f\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\\x41"']


def paths_in(value: Any, path: Path = ()) -> Iterator[Path]:
    """The way to every value within."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_in(item, (*path, key))


def with_value(request: Any, path: Path, value: Any) -> Any:
    """The request with another value there; what is not on the way is shared."""
    if not path:
        return value
    copy = request.copy()
    copy[path[0]] = with_value(copy[path[0]], path[1:], value)
    return copy


def with_raw(request: Json, path: Path, raw: bytes) -> bytes:
    """The line of the request with these bytes there."""
    return json.dumps(with_value(request, path, MARK)).encode().replace(json.dumps(MARK).encode(), raw)


def is_sound(path: Path, raw: bytes) -> bool:
    """Whether the protocol allows this value in this place, on its own."""
    value, name = json.loads(raw), path[-1]
    if name in ("full", "approved", "dry_run"):
        return type(value) is bool
    if name in ("id", "after", "now", "generation", "epoch", "journal_seen"):
        return type(value) is int and 0 <= value <= 2**53
    if name == "expires_at":
        return value is None or (type(value) is int and 0 <= value <= 2**53)
    if name == "reason":
        return type(value) is str and len(value) <= 1000
    return (name == "preshared_key" and value is None) or (name in ("tombstones", "decided", "peers") and value == [])
