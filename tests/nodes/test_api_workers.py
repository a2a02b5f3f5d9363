"""What a script asks of the workers: enrolments, plans, held pushes, reconcile."""

import uuid
from typing import Any

import pytest

from fleet.models import Environment, Server, User
from nodes.models import BootstrapLogin, Enrolment, HeldPush, Hold, PlanRequest, ReviewItem
from peers.models import Peer, Tombstone
from tests.build import make_peers, make_review, make_server
from tests.doors import rows, script

FINGERPRINT = "SHA256:" + "x" * 43
LOGIN = {"host_key": FINGERPRINT, "user": "root", "password": "hunter2 hunter2"}


def make_hold(*servers: Server) -> Hold:
    hold = Hold.objects.create(act=uuid.uuid4(), cause="grant.end by alice")
    for server in servers:
        HeldPush.objects.create(hold=hold, server=server, removals=12, held=50)
    return hold


def test_an_enrolment_takes_a_login_that_nothing_shows_again(bob: User, staging: Environment) -> None:
    """C1."""
    server, caller = make_server(staging), script(bob)
    code, body = caller.post(f"servers/{server.pk}/enrol", **LOGIN)
    assert (code, body["state"]) == (201, "waiting")
    shown = str(caller.get("enrolments")) + str(caller.get(f"enrolments/{body['id']}")) + str(body)
    assert "hunter2" not in shown + BootstrapLogin.objects.get().boxed
    assert caller.post(f"servers/{server.pk}/enrol", **LOGIN)[0] == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("host_key", value) for value in ("", "SHA256:x", "yes", FINGERPRINT + "\n", None, 5)),
        *(("user", value) for value in ("", "a b", "r\noot", None, "\u00e9")),
        *(("password", value) for value in ("", 5, "x" * 1001)),
        ("sudo_password", "x"),
    ],
)
def test_a_bad_field_of_an_enrolment_is_named(field: str, value: Any, bob: User, staging: Environment) -> None:
    """B14: no enrolment without a host key that somebody confirmed."""
    server, caller = make_server(staging), script(bob)
    before = rows()
    code, body = caller.post(f"servers/{server.pk}/enrol", **{**LOGIN, field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.post(f"servers/{server.pk}/enrol", **LOGIN)[0] == 201


def test_a_password_and_a_key_are_one_too_many(bob: User, staging: Environment) -> None:
    server, caller = make_server(staging), script(bob)
    assert caller.post(f"servers/{server.pk}/enrol", **LOGIN, private_key="x")[0] == 400
    assert Enrolment.objects.count() == 0


def test_a_plan_is_asked_for_and_looked_up(bob: User, staging: Environment) -> None:
    server, caller = make_server(staging), script(bob)
    code, body = caller.post(f"servers/{server.pk}/plan")
    assert (code, body["plan"], body["finished_at"]) == (202, None, None)
    PlanRequest.objects.update(plan={"add": [], "remove": [], "update": [], "brake": ""})
    assert caller.get(f"plan-requests/{body['id']}")[1]["plan"]["brake"] == ""


def test_reconcile_is_taken_at_once(bob: User, staging: Environment) -> None:
    server, caller = make_server(staging), script(bob)
    assert caller.post(f"servers/{server.pk}/reconcile")[0] == 202
    assert caller.post(f"servers/{server.pk}/reconcile", force=True)[0] == 400


@pytest.mark.parametrize("act", ["enrol", "plan", "reconcile"])
def test_another_environment_s_server_is_not_found(
    act: str, bob: User, charlie: User, staging: Environment, production: Environment
) -> None:
    """B3."""
    server, caller, stranger = make_server(production), script(bob), script(charlie)
    before = rows()
    assert caller.post(f"servers/{server.pk}/{act}", **LOGIN) == caller.post(f"servers/999999/{act}", **LOGIN)
    assert stranger.post(f"servers/{server.pk}/{act}", **LOGIN)[0] == 403
    assert rows() == before


def test_a_hold_is_approved_with_a_reason_and_once(bob: User, staging: Environment) -> None:
    hold, caller = make_hold(make_server(staging)), script(bob)
    before = rows()
    for bad in ({}, {"reason": ""}, {"reason": " "}, {"reason": "a\nb"}, {"reason": "x" * 501}):
        code, body = caller.post(f"holds/{hold.pk}/approve", **bad)
        assert (code, list(body)) == (400, ["reason"])
    assert rows() == before
    code, body = caller.post(f"holds/{hold.pk}/approve", reason="the project is over")
    assert (code, body["approved_by"], body["pushes"][0]["removals"]) == (200, "bob", 12)
    assert caller.post(f"holds/{hold.pk}/approve", reason="again")[0] == 409


def test_a_hold_on_somebody_else_s_server_too_is_not_theirs_to_approve(
    bob: User, alice: User, staging: Environment, production: Environment
) -> None:
    """B3."""
    hold, caller = make_hold(make_server(staging), make_server(production)), script(bob)
    assert caller.names("holds", "id") == []
    assert caller.post(f"holds/{hold.pk}/approve", reason="x")[0] == 404
    assert script(alice).post(f"holds/{hold.pk}/approve", reason="x")[0] == 200


def review_in(environment: Environment) -> ReviewItem:
    make_server(environment)
    return make_review(make_peers(environment, 1)[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("decision", value) for value in ("", "forget", None, 5, ["resume"])),
        *(("reason", value) for value in ("", " ", "a\nb", "x" * 501, None, 5)),
        ("server", 1),
    ],
)
def test_a_bad_decision_is_refused(field: str, value: Any, bob: User, staging: Environment) -> None:
    item, caller = review_in(staging), script(bob)
    before = rows()
    code, body = caller.post(f"reviews/{item.pk}/decide", **{"decision": "resume", "reason": "found", field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.get(f"reviews/{item.pk}")[1]["state"] == "waiting"


@pytest.mark.parametrize(("decision", "is_dead"), [("resume", False), ("revoke", True)])
def test_a_review_is_decided_once(decision: str, is_dead: bool, bob: User, staging: Environment) -> None:
    item, caller = review_in(staging), script(bob)
    generation = item.server.generation
    code, body = caller.post(f"reviews/{item.pk}/decide", decision=decision, reason="looked into")
    assert (code, body["state"], body["decided_by"]) == (200, decision, "bob")
    assert Tombstone.objects.filter(public_key=body["public_key"]).exists() == is_dead
    item.server.refresh_from_db()
    assert item.server.generation > generation
    assert caller.post(f"reviews/{item.pk}/decide", decision="resume", reason="again")[0] == 409


def test_a_peer_that_ended_needs_no_decision(bob: User, staging: Environment) -> None:
    item, caller = review_in(staging), script(bob)
    Peer.objects.filter(pk=item.peer_id).update(ended_at=item.at, end=Peer.End.WITHDRAWN)
    assert caller.get(f"reviews/{item.pk}")[1]["state"] == "over"
    assert caller.post(f"reviews/{item.pk}/decide", decision="resume", reason="found")[0] == 409


def test_another_environment_s_review_is_not_found(bob: User, alice: User, production: Environment) -> None:
    """B3."""
    item, caller, answer = review_in(production), script(bob), {"decision": "resume", "reason": "found"}
    assert caller.names("reviews", "id") == []
    assert caller.post(f"reviews/{item.pk}/decide", **answer) == caller.post("reviews/999/decide", **answer)
    assert script(alice).post(f"reviews/{item.pk}/decide", **answer)[0] == 200
