#!/usr/bin/python3 -IS
"""Stands in for muster-node on a machine that somebody else controls. /run/lie says which lie it tells."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

Json = dict[str, Any]

KEY = "A" * 42 + "E="
NASTY = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>{{7*7}}"


def state(generation: int = 1) -> Json:
    body = {"epoch": 1, "generation": generation, "digest": "0" * 64, "pushed_digest": "0" * 64}
    return {**body, "peers": 1, "tombstones": 0, "journal": 0, "now": 0}


def receipt(key: str) -> Json:
    return {"public_key": key, "durable": True, "kernel": True, "disk": True, "found": []}


def applied(request: Json) -> Json:
    return {"result": "applied", "withheld": [], "changed": {}, "drift": []}


def wrong_generation(request: Json) -> Json:
    return {**applied(request), "state": state(0), "receipts": "none", "peers": [], "drift": []}


def forged(request: Json) -> Json:
    return {**applied(request), "state": state(2**61), "receipts": [receipt(KEY)], "peers": []}


def million(request: Json) -> Json:
    rows = [[KEY, "x", 1, 1, 1]] * 1_000_000 if request["op"] == "observe" else []
    return {**applied(request), "state": state(), "receipts": [receipt(KEY)] * 1000, "peers": rows}


def nasty(request: Json) -> Json:
    sys.stderr.write(NASTY)
    error = {"code": NASTY, "message": NASTY, "state": state()}
    return {"ok": False, "error": error}


def refusing(request: Json) -> Json:
    return {"ok": False, "error": {"code": "internal", "message": NASTY, "state": state()}}


def silent(request: Json) -> Json:
    signal.pause()
    return {}


def garbage(request: Json) -> Json:
    sys.stdout.write(NASTY + "\n")
    return {}


LIES = {lie.__name__: lie for lie in (wrong_generation, forged, million, nasty, refusing, silent, garbage)}
for line in sys.stdin:
    request = json.loads(line)
    answer = {"v": 1, "id": request["id"], "ok": True}
    if request["op"] == "hello":
        answer.update(state=state(), node={"version": NASTY[:20], "protocol": 1})
    else:
        with open("/run/lie", encoding="ascii") as file:
            answer.update(LIES[file.read()](request))
    print(json.dumps(answer), flush=True)
