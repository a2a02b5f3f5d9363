"""Addresses of the API that are none: a clear answer to who is let in, and nothing to learn for anybody else."""

import pytest

from fleet.models import Environment, User
from tests.doors import Script, browser, rows, script

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
PATHS = ("NOSUCH", "nosuch/1", "people/", "people/1/nosuch", "Servers", "../v1/nosuch", "%2e%2e/admin", "schema/")


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_address_is_a_404_that_a_script_can_read(path: str, alice: User) -> None:
    for scope in ("operate", "read"):
        caller = script(alice, scope=scope)
        before = rows()
        for method in METHODS:
            code, body = caller.call(method, path)
            assert (code, list(body)) == (404, ["detail"]), (method, body)
            assert body["detail"].startswith("There is no /api/"), body
        assert caller.call("HEAD", path)[0] == 404
        assert rows() == before
        assert caller.get("people")[0] == 200


def test_who_is_not_let_in_cannot_tell_what_there_is(alice: User, charlie: User, staging: Environment) -> None:
    """B1: a guess answers as a list does that is there."""
    assert script(alice).get("nosuch")[0] == 404
    for caller in (Script(), Script("muster_guess"), script(charlie)):
        for method in ("GET", "POST", "DELETE"):
            there, guess = caller.call(method, "environments"), caller.call(method, "nosuch")
            assert guess == there, method
            assert guess[0] in {401, 403}
    assert browser(alice).post("/api/v1/nosuch").status_code == 404
    assert browser(alice, checks_csrf=True).post("/api/v1/nosuch").status_code == 403
