"""Bodies and addresses that no client sends: each a clear refusal, never a crash."""

import pytest

from fleet.models import User
from tests.doors import rows, script
from tests.fleet.test_api_sign_in import LISTS

WRITES = [
    *(
        "environments",
        "servers",
        "bastions",
        "people",
        "devices",
        "grants",
        "revocations",
        "grants/end",
        "access-requests",
    ),
]
FILTERS = "person, public_key, is_revoked, limit, offset"
BODIES = {
    "deep list": b"[" * 10_000 + b"]" * 10_000,
    "deep object": b'{"name":' * 10_000 + b"1" + b"}" * 10_000,
    "nothing": b"",
    "a list": b"[1, 2]",
    "text": b'"name"',
    "null": b"null",
    "not json": b"{name: 1}",
    "cut off": b'{"name": "a',
    "not utf-8": b'{"name": "\xff\xfe"}',
    "NUL": b'{"name": "a\\u0000b"}',
    "half a pair": b'{"name": "\\ud800", "reason": "\\udfff"}',
    "not a number": b'{"name": NaN}',
    "infinite": b'{"person": 1e999, "environment": -Infinity}',
    "huge integer": b'{"person": 1' + b"0" * 5000 + b"}",
    "large integer": b'{"person": 1' + b"0" * 400 + b', "grants": [1' + b"0" * 400 + b"]}",
    "many keys": b"{" + b",".join(b'"k%d": 1' % number for number in range(100_000)) + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("path", WRITES)
def test_a_hostile_body_is_refused_and_nothing_changes(path: str, body: bytes, alice: User) -> None:
    """A11, A12."""
    caller = script(alice)
    before = rows()
    assert caller.call("POST", path, body)[0] == 400
    assert rows() == before


def test_of_many_unknown_fields_the_first_are_told(alice: User) -> None:
    """A11: an answer as long as the body would cost more than all else."""
    status, told = script(alice).call("POST", "people", BODIES["many keys"])
    assert (status, list(told)) == (400, sorted(f"k{number}" for number in range(100_000))[:20])


def test_a_body_that_is_too_large_is_refused(alice: User) -> None:
    """A11: the length that was named is not what counts."""
    body = b'{"name": "' + b"x" * 3_000_000 + b'"}'
    assert script(alice).call("POST", "people", body)[0] == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_kind_of_body_is_refused(kind: str, alice: User) -> None:
    caller = script(alice)
    headers = {"Authorization": f"Bearer {caller.token}"}
    answer = caller.client.generic("POST", "/api/v1/people", b"name=Dave", content_type=kind, headers=headers)
    assert answer.status_code in {400, 415}


@pytest.mark.parametrize("charset", ["zlib", "rot13", "utf-7", "idna", "none"])
def test_json_is_utf_8_whatever_a_header_says(charset: str, alice: User) -> None:
    caller = script(alice)
    answer = caller.client.generic(
        *("POST", "/api/v1/people", b'{"name": "Dave"}'),
        content_type=f"application/json; charset={charset}",
        headers={"Authorization": f"Bearer {caller.token}"},
    )
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "pk", ["9" * 40, "-1", "0", "1.5", "x", "%00", "%0a", "a%2fb", "..%5c", "1;id", "%F0%9F%92%A9"]
)
@pytest.mark.parametrize(
    "kind", ["servers", "people", "peers", "revocations", "holds", "reviews", "events", "enrolments"]
)
def test_an_id_that_names_nothing_is_not_found(kind: str, pk: str, alice: User) -> None:
    """A9."""
    assert script(alice).get(f"{kind}/{pk}")[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        *("limit=x", "limit=-1", f"limit={'9' * 40}", f"offset={'9' * 40}", "offset=-1", "limit=0"),
        "person=1",
    ],
)
def test_a_strange_page_of_a_list_is_still_a_list(query: str, alice: User) -> None:
    assert script(alice).get(f"devices?{query}")[0] == 200


@pytest.mark.parametrize(
    "query",
    [
        "person=x",
        "person=NaN",
        "person=Infinity",
        "person=1e999999999",
        "person=%00",
        f"person={'9' * 40}",
        "person=-1",
    ],
)
def test_a_filter_that_is_no_number_is_refused(query: str, alice: User) -> None:
    code, body = script(alice).get(f"devices?{query}")
    assert (code, list(body)) == (400, ["person"])


@pytest.mark.parametrize("path", LISTS)
def test_a_filter_that_does_not_exist_is_named_not_ignored(path: str, alice: User) -> None:
    """B4: a slip of the finger never answers with every row."""
    caller = script(alice)
    code, body = caller.get(f"{path}?devcie=5&limit=10&offset=0")
    assert (code, list(body)) == (400, ["devcie"])
    assert body["devcie"][0].startswith("There is no such filter: use ")
    assert body["devcie"][0].endswith("limit, offset.")
    assert caller.get(f"{path}?limit=10&offset=0")[0] == 200


def test_the_filters_that_there_are_are_named(alice: User) -> None:
    code, body = script(alice).get("devices?nosuch=1")
    assert (code, body) == (400, {"nosuch": [f"There is no such filter: use {FILTERS}."]})
