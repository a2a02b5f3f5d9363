"""Asking through the API, and reading what it says."""

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode

from fleet.pools import to_hex
from peers.models import Person
from tests.doors import Script

QUESTIONS = ("access", "person", "reach", "traces")


def table(body: Any, name: str = "access") -> list[Any]:
    return list(body[name]["rows"])


def whose(body: Any) -> list[tuple[str, str, str]]:
    return [(row["person"]["text"], row["state"], row["server"]["text"]) for row in table(body)]


def words(question: str, person: Person, key: str) -> str:
    """What each question has to be told: this person, this key."""
    what: dict[str, dict[str, object]] = {
        "person": {"person": person.pk},
        "reach": {"network": "10.0.0.0/8"},
        "traces": {"kind": "key", "what": key},
    }
    return urlencode(what.get(question, {}))


def seen(caller: Script, kind: str, what: str) -> dict[str, list[Any]]:
    """Where it was seen, by what it was there."""
    code, body = caller.get(f"questions/traces?{urlencode({'kind': kind, 'what': what})}")
    assert code == 200, body
    found: dict[str, list[Any]] = {}
    for row in table(body, "traces"):
        was = row["what"] if isinstance(row["what"], str) else row["what"]["text"]
        found.setdefault(was, []).append(row)
    return found


def hex_of(address: str) -> str:
    return to_hex(ip_address(address))
