"""Requests for access over HTTP, and what somebody sees and does who has no role but is a person themselves."""

from typing import Any

import pytest

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.services import add_user, give_role
from peers.granting import grant_access
from peers.linking import link_user
from peers.models import AccessRequest, Grant, Peer, Person
from peers.requests import approve_request
from peers.teams import add_team, join_team, leave_team
from tests.build import make_device, make_grant, make_person, make_request, make_server
from tests.doors import rows, script

pytestmark = pytest.mark.django_db
DECISIONS = ("approve", "deny", "cancel")
ASK = {"duration": "3 00:00:00", "reason": "deploys"}
NONE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def carol(charlie: User) -> Person:
    """Charlie's person: he has no role."""
    return link_user(actor=SYSTEM, person=make_person("Carol"), user=charlie, reason="joined")


def make_user(name: str, role: str, environment: Environment) -> User:
    user = add_user(actor=SYSTEM, username=name, email="", password=None, is_superuser=False)
    give_role(actor=SYSTEM, user=user, name=role, environment=environment)
    return user


def test_a_request_goes_its_way(bob: User, charlie: User, carol: Person, staging: Environment) -> None:
    asker, operator = script(charlie), script(bob)
    code, asked = asker.post("access-requests", place="staging", **ASK)
    assert (code, asked["person"], asked["to"], asked["state"]) == (201, carol.pk, "staging", "open")
    assert (asked["asked_by"], asked["duration"], asked["grant"]) == ("charlie", "3 00:00:00", None)
    assert operator.names("access-requests?is_open=true", "id") == [asked["id"]]
    code, decided = operator.post(f"access-requests/{asked['id']}/approve")
    grant = Grant.objects.get()
    assert (code, decided["state"], decided["decided_by"], decided["grant"]) == (200, "approved", "bob", grant.pk)
    told = operator.get(f"grants/{grant.pk}")[1]["request"]
    assert (told["id"], told["asked_by"], told["decided_by"]) == (asked["id"], "charlie", "bob")
    assert asker.get(f"grants/{grant.pk}")[1]["request"] == told
    assert operator.names("access-requests?is_open=true", "id") == []
    assert operator.names("access-requests?decision=approved", "id") == [asked["id"]]
    assert operator.post(f"access-requests/{asked['id']}/deny", reason="late")[0] == 409


def test_a_denial_needs_a_reason_and_a_cancellation_none(bob: User, staging: Environment) -> None:
    caller = script(bob)
    first, second = make_request(make_person("Ann"), staging), make_request(make_person("Ben"), staging)
    for bad in ({}, {"reason": ""}, {"reason": " "}, {"reason": "a\nb"}, {"reason": "x" * 501}, {"until": "x"}):
        assert caller.post(f"access-requests/{first.pk}/deny", **bad)[0] == 400
    assert caller.post(f"access-requests/{first.pk}/deny", reason="no")[1]["decision_reason"] == "no"
    assert caller.post(f"access-requests/{second.pk}/cancel")[1]["state"] == "cancelled"


BAD: dict[str, list[Any]] = {
    "duration": ["", "soon", "0", "-1 00:00:00", "367 00:00:00", None, [], "9" * 30],
    "reason": ["", " ", "a\nb", "x" * 501, None, 5],
    "networks": [["10.0.0.2/8"], ["$(id)"], "10.0.0.0/8", [5]],
    "hours": ["always", "mon 25:00-26:00", 5],
    "person": [999, "x", 10**30, [1]],
    "environment": [999, "x", {"id": 1}],
    "place": ["", "nowhere", "staging", 5, ["staging"]],
    "granted_by": ["alice"],
    "decision": ["approved"],
}


@pytest.mark.parametrize("field", BAD)
def test_a_bad_field_of_a_request_is_named_and_nothing_changes(field: str, bob: User, staging: Environment) -> None:
    """A3, B4."""
    caller, good = script(bob), {**ASK, "person": make_person().pk, "environment": staging.pk}
    before = rows()
    for value in BAD[field]:
        code, body = caller.post("access-requests", **{**good, field: value})
        assert (code, list(body)) == (400, [field]), value
    assert rows() == before
    assert caller.post("access-requests", **good)[0] == 201
    code, body = caller.post("access-requests", **good)
    assert (code, list(body)) == (409, ["person"])


def test_who_is_no_person_says_whom_it_is_for(bob: User, staging: Environment) -> None:
    code, body = script(bob).post("access-requests", environment=staging.pk, **ASK)
    assert (code, list(body)) == (400, ["person"])


def test_an_operator_sees_and_decides_in_their_environments_alone(
    bob: User, charlie: User, staging: Environment, production: Environment
) -> None:
    """B3."""
    own, other = make_request(make_person("Ann"), staging), make_request(make_person("Ben"), production)
    caller, person = script(bob), make_person("Dave").pk
    assert caller.names("access-requests", "id") == [own.pk]
    assert caller.get(f"access-requests?environment={production.pk}")[1]["count"] == 0
    assert caller.get(f"access-requests/{other.pk}") == caller.get("access-requests/999999")
    before = rows()
    for act in DECISIONS:
        refusals = [caller.post(f"access-requests/{pk}/{act}", reason="x") for pk in (other.pk, 999999)]
        assert refusals[0] == refusals[1]
        assert refusals[0][0] == 404
    hidden, missing = (caller.post("access-requests", person=person, place=name, **ASK) for name in ("production", "x"))
    assert (hidden[0], list(hidden[1]), missing[0]) == (400, ["place"], 400)
    assert rows() == before
    assert caller.post("access-requests", person=person, place="staging", **ASK)[0] == 201


def test_each_role_may_what_it_may(staging: Environment, alice: User, bob: User, charlie: User) -> None:
    """B2: who may ask for another, decide, and grant; by the API's answers."""
    users = {
        "administrator": alice,
        "operator": bob,
        "helpdesk": make_user("helen", Role.Name.HELPDESK, staging),
        "auditor": make_user("amy", Role.Name.AUDITOR, staging),
        "nobody": charlie,
    }
    expected = {
        # role: look, ask, approve, deny, cancel, grant, revoke
        "administrator": (200, 201, 200, 200, 200, 201, 201),
        "operator": (200, 201, 200, 200, 200, 201, 201),
        "helpdesk": (200, 201, 403, 403, 403, 403, 201),
        "auditor": (200, 403, 403, 403, 403, 403, 403),
        "nobody": (403, 403, 403, 403, 403, 403, 403),
    }
    found = {}
    for role, user in users.items():
        caller, waiting = script(user), [make_request(make_person(f"{role} {n}"), staging) for n in range(3)]
        device = make_device(make_person(f"owner {role}"))
        acts = [f"access-requests/{asked.pk}/{act}" for asked, act in zip(waiting, DECISIONS, strict=True)]
        place = {"person": make_person(f"other {role}").pk, "environment": staging.pk, "reason": "x"}
        found[role] = (
            caller.get("access-requests")[0],
            caller.post("access-requests", **place, duration="1 00:00:00")[0],
            *(caller.post(act, reason="x")[0] for act in acts),
            caller.post("grants", **place)[0],
            caller.post("revocations", device=device.pk, reason="x")[0],
        )
    assert found == expected


def test_what_was_refused_is_in_the_ledger(bob: User, staging: Environment, production: Environment) -> None:
    """B5, D4, G1."""
    make_server(production)
    person = make_person()
    make_grant(person, production)
    device, helen = make_device(person), make_user("helen", Role.Name.HELPDESK, staging)
    caller = script(helen)
    assert caller.post("revocations", device=device.pk, reason="lost")[0] == 403
    event = Event.objects.get(verb="act.refused")
    assert (event.actor_label, event.target_label, event.origin) == ("helen", "helen", "token")
    assert event.changes == {"asked": ["", "POST /api/v1/revocations"]}
    assert ("beyond what helen covers" in event.reason, "production" in event.reason) == (True, False)
    assert script(bob).get("events?verb=act.refused")[1]["count"] == 0
    assert caller.get("people/999999")[0] == 404
    assert caller.post("people", name="")[0] == 400
    assert Event.objects.filter(verb="act.refused").count() == 1


def test_a_person_without_a_role_has_what_is_their_own_and_nothing_else(
    charlie: User, carol: Person, staging: Environment
) -> None:
    """B3, B4: another's row answers as one that does not exist."""
    make_server(staging)
    other = make_person("Dave")
    for person in (carol, other):
        make_grant(person, staging)
        make_device(person)
        make_request(person, staging)
    team = add_team(actor=SYSTEM, name="ops")
    join_team(actor=SYSTEM, team=team, people=[carol])
    (own_peer,), (own_grant,), (own_request,) = (
        Peer.objects.filter(device__person=carol),
        Grant.objects.filter(person=carol),
        AccessRequest.objects.filter(person=carol),
    )
    caller = script(charlie)
    for path, own, missing, others in (
        ("peers", str(own_peer.pk), NONE, Peer.objects.filter(device__person=other)),
        ("grants", own_grant.pk, 999999, Grant.objects.filter(person=other)),
        ("access-requests", own_request.pk, 999999, AccessRequest.objects.filter(person=other)),
    ):
        assert caller.names(path, "id") == [own]
        assert caller.get(f"{path}?person={other.pk}")[1]["count"] == 0
        assert caller.get(f"{path}/{own}")[0] == 200
        assert caller.get(f"{path}/{others.get().pk}") == caller.get(f"{path}/{missing}")
        assert caller.get(f"{path}/{missing}")[0] == 404
    for path in ("people", "devices", "servers", "environments", "revocations", "events", f"people/{carol.pk}"):
        assert caller.get(path)[0] == 403, path


def test_a_person_without_a_role_asks_for_themselves_and_cancels_and_no_more(
    charlie: User, carol: Person, bob: User, staging: Environment, production: Environment
) -> None:
    """B4, B5."""
    make_server(staging)
    other, caller = make_person("Dave"), script(charlie)
    grant = make_grant(carol, staging)
    make_device(carol)
    peer, foreign, reader = Peer.objects.get(), make_request(other, staging), script(charlie, scope="read")
    before = rows()
    assert caller.post("access-requests", person=other.pk, place="staging", **ASK)[0] == 400
    assert caller.post("access-requests", environment=staging.pk, **ASK)[0] == 400
    for act in DECISIONS:
        assert caller.post(f"access-requests/{foreign.pk}/{act}", reason="x")[0] == 404
    assert caller.post(f"grants/{grant.pk}/end", reason="x")[0] == 403
    assert caller.post("grants", person=carol.pk, environment=staging.pk, reason="x")[0] == 400
    assert caller.get(f"peers/{peer.pk}/config")[0] == 403
    assert caller.post("revocations", person=carol.pk, reason="x")[0] == 403
    assert reader.post("access-requests", place="production", **ASK)[0] == 403
    assert rows() == before
    code, asked = caller.post("access-requests", place="production", **ASK)
    assert code == 201
    for act in ("approve", "deny"):
        assert caller.post(f"access-requests/{asked['id']}/{act}", reason="x")[0] == 403
    assert caller.post(f"access-requests/{asked['id']}/cancel")[1]["state"] == "cancelled"


def test_a_team_s_grant_is_its_members_own_while_they_are_in_it(
    charlie: User, carol: Person, staging: Environment
) -> None:

    team, caller = add_team(actor=SYSTEM, name="ops"), script(charlie)
    grant = grant_access(actor=SYSTEM, team=team, environment=staging, reason="on call")
    assert caller.names("grants", "id") == []
    (membership,) = join_team(actor=SYSTEM, team=team, people=[carol])
    assert caller.names("grants", "id") == [grant.pk]
    leave_team(actor=SYSTEM, memberships=[membership], reason="other team")
    assert caller.get(f"grants/{grant.pk}")[0] == 404


def test_who_is_unlinked_or_left_sees_nothing(charlie: User, carol: Person, staging: Environment, alice: User) -> None:
    """B9."""
    make_request(carol, staging)
    caller = script(charlie)
    assert len(caller.names("access-requests", "id")) == 1
    link_user(actor=alice, person=carol, user=None, reason="was wrong")
    assert [caller.get(path)[0] for path in ("access-requests", "grants", "peers")] == [403] * 3
    link_user(actor=alice, person=carol, user=charlie, reason="was right")
    assert len(caller.names("access-requests", "id")) == 1
    Person.objects.filter(pk=carol.pk).update(left_at="2026-01-01T00:00:00Z")
    assert [caller.get(path)[0] for path in ("access-requests", "grants", "peers")] == [403] * 3


def test_a_role_and_a_person_add_up(
    bob: User, staging: Environment, production: Environment, django_assert_num_queries: Any
) -> None:
    person = link_user(actor=SYSTEM, person=make_person("Bob"), user=bob, reason="joined")
    mine, other = make_grant(person, production), make_grant(make_person("Dave"), staging)
    make_grant(make_person("Erin"), production)
    caller = script(bob)
    assert caller.names("grants", "id") == [mine.pk, other.pk]
    assert caller.post(f"grants/{mine.pk}/end", reason="x")[0] == 403
    assert caller.post("access-requests", place="production", **ASK)[1]["person"] == person.pk


def test_lists_cost_the_same_however_long_they_are(
    bob: User, charlie: User, carol: Person, staging: Environment, django_assert_num_queries: Any
) -> None:
    """L4."""
    for number in range(12):
        approve_request(actor=SYSTEM, request=make_request(make_person(f"P{number}"), staging))
        approve_request(actor=SYSTEM, request=make_request(carol, staging))
    operator, own = script(bob), script(charlie)
    for path in ("access-requests", "grants"):
        with django_assert_num_queries(4):  # the token, its user's roles, the count, the rows
            assert len(operator.names(path, "id")) == 24
        with django_assert_num_queries(5):  # and who that user is
            assert len(own.names(path, "id")) == 12


def test_a_sign_in_is_linked_by_administrators_alone(alice: User, bob: User, charlie: User) -> None:
    """B5."""
    person = make_person("Carol")
    path, before = f"people/{person.pk}/link", rows()
    for caller in (script(bob), script(charlie), script(alice, scope="read")):
        before = rows()
        assert caller.post(path, user="bob", reason="me")[0] == 403
        assert rows() == before
    administrator = script(alice)
    before = rows()
    for bad in ({"user": "nobody"}, {"user": 5}, {}, {"user": ["bob"]}, {"user": "b\0b"}):
        assert list(administrator.post(path, **{"reason": "x", **bad})[1]) == ["user"]
    assert list(administrator.post(path, user="charlie")[1]) == ["reason"]
    assert rows() == before
    assert administrator.post(path, user="charlie", reason="joined")[1]["user"] == "charlie"
    assert administrator.post(f"people/{make_person('Dave').pk}/link", user="charlie", reason="x")[0] == 409
    assert administrator.post(path, user=None, reason="wrong")[1]["user"] is None
    assert administrator.patch(f"people/{person.pk}", user="bob")[0] == 400
