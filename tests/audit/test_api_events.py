"""Events over HTTP: to read, each for who may."""

from fleet.models import Environment, User
from tests.build import make_grant, make_person, make_server
from tests.doors import rows, script


def test_events_are_read_by_verb_and_environment(alice: User, staging: Environment) -> None:
    make_grant(make_person("Dave"), staging)
    caller = script(alice)
    (event,) = caller.get("events?verb=grant.add&environment_label=staging")[1]["results"]
    assert (event["actor"], event["target"], event["reason"]) == ("Console", "Dave to staging", "project work")


def test_an_operator_reads_those_of_their_environments(
    bob: User, staging: Environment, production: Environment
) -> None:
    """B3."""
    make_server(staging, "vpn-own"), make_server(production, "vpn-other")
    caller = script(bob)
    assert set(caller.names("events", "environment")) == {"staging"}
    assert "vpn-other" not in str(caller.get("events"))


def test_nobody_changes_an_event(alice: User, staging: Environment) -> None:
    """G2."""
    caller = script(alice)
    event = caller.get("events")[1]["results"][0]["id"]
    before = rows()
    for method, path in (("POST", "events"), ("PATCH", f"events/{event}"), ("DELETE", f"events/{event}")):
        assert caller.call(method, path, {"reason": "x"})[0] == 405
    assert rows() == before
