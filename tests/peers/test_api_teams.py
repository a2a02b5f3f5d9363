"""Teams, memberships, suspensions and moves over HTTP: who sees and who may; bad input is named and does nothing."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.named_pools import add_pool
from fleet.services import give_role
from peers.granting import grant_access
from peers.models import Grant, Membership, Peer, Suspension, Team
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_peers, make_person, make_server
from tests.doors import rows, script

TOMORROW = (timezone.now() + dt.timedelta(days=1)).isoformat()
PAST = "2001-01-01T00:00:00Z"


@pytest.fixture
def team(staging: Environment) -> Team:
    make_server(staging)
    found = add_team(actor=SYSTEM, name="network")
    grant_access(actor=SYSTEM, team=found, environment=staging, reason="on call")
    return found


def test_a_team_is_added_joined_left_and_ended(bob: User, staging: Environment) -> None:
    server = make_server(staging)
    add_pool(actor=SYSTEM, server=server, name="net", ipv4=f"{server.pool4[1024]}/24")
    caller, people = script(bob), [make_person("Ann"), make_person("Ben")]
    device = make_device(people[0])
    code, team = caller.post("teams", name="network", description="who is on call")
    assert (code, team["ended_at"]) == (201, None)
    code, grant = caller.post(
        "grants", team=team["id"], environment=staging.pk, reason="on call", hours="mon-sun 00:00-24:00", pool="net"
    )
    assert (code, grant["holder"], grant["state"], grant["pool"]) == (201, "network", "open", "net")
    code, joined = caller.post("memberships", team=team["id"], people=[one.pk for one in people], until=TOMORROW)
    assert (code, [row["state"] for row in joined]) == (201, ["open", "open"])
    assert caller.names(f"peers?device={device.pk}", "state") == ["issued"]
    assert caller.names(f"people?team={team['id']}") == ["Ann", "Ben"]
    assert caller.names(f"memberships?team={team['id']}&is_ended=false", "person_name") == ["Ann", "Ben"]
    code, ended = caller.post(f"memberships/{joined[0]['id']}/end", reason="other work")
    assert (code, ended["state"]) == (200, "ended")
    assert caller.post(f"memberships/{joined[0]['id']}/end", reason="again")[0] == 409
    code, rest = caller.post("memberships/end", memberships=[joined[1]["id"]], reason="over")
    assert (code, [row["state"] for row in rest]) == (200, ["ended"])
    assert caller.post(f"teams/{team['id']}/end", reason="over")[0] == 400
    assert caller.post(f"grants/{grant['id']}/end", reason="over")[0] == 200
    assert caller.post(f"teams/{team['id']}/end", reason="over")[1]["ended_at"] is not None
    assert (caller.names("teams?is_ended=true"), caller.names("teams?is_ended=false")) == (["network"], [])


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *(("teams", "name", value) for value in ("", "Net", "a b", "a\nb", None, 5, "x" * 64)),
        ("teams", "owner", 1),
        *(("memberships", "people", value) for value in ([], [0], ["x"], [999999], None, "all", [10**30])),
        *(("memberships", "until", value) for value in (PAST, "soon")),
        *(("memberships", "team", value) for value in (999999, None, "x")),
        ("memberships", "reason", "a\u2028b" + "x" * 500),
        *(("grants", "hours", value) for value in ("always", "mon 08:00-08:00", "mon 8-9", 5)),
        *(("grants", "begins_at", value) for value in ("soon", 5)),
        *(("grants", "pool", value) for value in ("a b", "Net", 5)),
        *(("grants", "team", value) for value in (999999, None, "x")),
        ("grants", "until", PAST),
    ],
)
def test_a_bad_field_is_named_and_nothing_changes(path: str, field: str, value: Any, bob: User, team: Team) -> None:
    """A1, A3, B4."""
    caller, environment = script(bob), Grant.objects.get().environment_id
    goods: dict[str, dict[str, Any]] = {
        "teams": {"name": "other"},
        "memberships": {"team": team.pk, "people": [make_person().pk]},
        "grants": {"team": team.pk, "environment": environment, "reason": "more"},
    }
    good = goods[path]
    before = rows()
    code, body = caller.post(path, **{**good, field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.post(path, **good)[0] == 201


def test_a_taken_name_is_a_conflict_and_an_unknown_id_is_said_plainly(bob: User, team: Team) -> None:
    caller = script(bob)
    code, body = caller.post("teams", name=team.name)
    assert (code, list(body), "Constraint" in str(body)) == (409, ["name"], False)
    code, body = caller.post("memberships", team=999999, people=[make_person().pk])
    assert (code, body) == (400, {"team": ["You see none with the id 999999."]})
    assert [Team.objects.count(), Membership.objects.count()] == [1, 0]
    assert caller.post("teams", name=f"{team.name}-2")[0] == 201


def test_a_grant_is_held_by_a_person_or_a_team(bob: User, team: Team, staging: Environment) -> None:
    caller, person = script(bob), make_person()
    before = rows()
    for holder in ({}, {"person": person.pk, "team": team.pk}):
        assert caller.post("grants", environment=staging.pk, reason="x", **holder)[0] == 400
    assert rows() == before


def test_grants_are_found_by_holder_and_state(bob: User, team: Team, staging: Environment) -> None:
    caller, person = script(bob), make_person()
    later = caller.post("grants", person=person.pk, environment=staging.pk, reason="x", begins_at=TOMORROW)[1]
    over, ended = make_grant(person, staging), make_grant(person, staging)
    Grant.objects.filter(pk=over.pk).update(until=timezone.now())
    caller.post(f"grants/{ended.pk}/end", reason="x")
    found = {state: caller.names(f"grants?state={state}", "id") for state in ("open", "begins later", "over", "ended")}
    assert found == {
        "open": [Grant.objects.get(team=team).pk],
        "begins later": [later["id"]],
        "over": [over.pk],
        "ended": [ended.pk],
    }
    assert [row["state"] for row in caller.get(f"grants?team={team.pk}")[1]["results"]] == ["open"]
    assert caller.get("grants?state=closed")[0] == 400


def test_a_grant_moves_to_another_server(bob: User, staging: Environment, production: Environment) -> None:
    old, new, far = make_server(staging, "old"), make_server(staging, "new"), make_server(production)
    person, caller = make_person(), script(bob)
    make_device(person)
    grant = grant_access(actor=SYSTEM, person=person, server=old, reason="x")
    before = rows()
    for server, reason, field in ((far.pk, "x", "server"), (old.pk, "x", "server"), (new.pk, " ", "reason")):
        code, body = caller.post(f"grants/{grant.pk}/move", server=server, reason=reason)
        assert (code, list(body)) == (400, [field])
    assert rows() == before
    code, moved = caller.post(f"grants/{grant.pk}/move", server=new.pk, reason="nearer")
    assert (code, moved["server"], moved["moved_from"]) == (201, new.pk, grant.pk)
    assert caller.post(f"grants/{grant.pk}/move", server=new.pk, reason="again")[0] == 409
    (peer,) = caller.get("peers?is_ended=false")[1]["results"]
    assert (peer["state"], peer["waits_for"]) == ("waits for old", str(Peer.objects.get(server=old).pk))
    assert caller.post(f"peers/{peer['id']}/let-in")[0] == 400
    code, peer = caller.post(f"peers/{peer['id']}/let-in", reason="burnt down")
    assert (code, peer["state"], peer["waits_for"]) == (200, "issued", None)


def test_who_is_suspended_is_listed_first_and_resumed(bob: User, staging: Environment) -> None:
    make_server(staging)
    first, second = make_peers(staging, 2)
    caller = script(bob)
    before = rows()
    assert caller.post("suspensions", reason="ill")[0] == 400
    assert caller.post("suspensions", person=first.device.person_id, device=first.device_id, reason="x")[0] == 400
    for field, value in (("person", 999999), ("device", "x"), ("peer", "x"), ("reason", " ")):
        code, body = caller.post("suspensions", **{"peer": str(first.pk), "reason": "ill", field: value})
        assert (code, field in body) == (400, True), body
    assert rows() == before
    code, done = caller.post("suspensions", peer=str(first.pk), reason="ill")
    assert (code, done["state"], done["suspended_by"], done["is_idle"]) == (201, "open", "bob", False)
    assert caller.post("suspensions", peer=str(first.pk), reason="ill")[0] == 409
    assert caller.get(f"peers/{first.pk}")[1]["state"] == "suspending"
    other = caller.post("suspensions", person=second.device.person_id, reason="ill")[1]
    assert caller.post(f"suspensions/{other['id']}/resume", reason="back")[1]["state"] == "ended"
    assert caller.post(f"suspensions/{other['id']}/resume", reason="back")[0] == 409
    assert [row["id"] for row in caller.get("suspensions")[1]["results"]] == [done["id"], other["id"]]
    assert caller.names("suspensions?is_ended=false", "id") == [done["id"]]
    assert caller.names(f"suspensions?peer={first.pk}", "id") == [done["id"]]


def test_nobody_reaches_what_others_operate(
    bob: User, charlie: User, staging: Environment, production: Environment
) -> None:
    """B3: nor by who may only look."""
    make_server(production)
    (peer,) = make_peers(production, 1)
    suspend(actor=SYSTEM, targets=[peer], reason="ill")
    team = add_team(actor=SYSTEM, name="far")
    grant_access(actor=SYSTEM, team=team, environment=production, reason="x")
    (member,) = join_team(actor=SYSTEM, team=team, people=[make_person("Mia")])
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=staging)
    far, mine, looks = Suspension.objects.get(), script(bob), script(charlie)
    before = rows()
    assert mine.get("suspensions")[1]["count"] == 0
    assert mine.post(f"suspensions/{far.pk}/resume", reason="x") == mine.post("suspensions/999/resume", reason="x")
    assert mine.post("suspensions", peer=str(peer.pk), reason="x")[0] == 400
    for caller in (mine, looks):
        assert caller.post("memberships", team=team.pk, people=[make_person().pk])[0] == 403
        assert caller.post(f"memberships/{member.pk}/end", reason="x")[0] == 403
        assert caller.post("suspensions", person=peer.device.person_id, reason="x")[0] == 403
    assert looks.post("teams", name="mine")[0] == 403
    assert rows()["peers.Membership"] == before["peers.Membership"]
    assert (rows()["peers.Suspension"], rows()["audit.Event"]) == (1, before["audit.Event"] + 2)  # two people
    assert (looks.get("teams")[0], Membership.objects.get().ended_at) == (200, None)


def test_lists_cost_the_same_however_long_they_are(
    bob: User, staging: Environment, django_assert_num_queries: Any
) -> None:
    """L4."""
    caller = script(bob)
    make_server(staging)
    for peer in make_peers(staging, 6):
        team = add_team(actor=SYSTEM, name=f"team-{peer.device_id}")
        join_team(actor=SYSTEM, team=team, people=[peer.device.person])
        suspend(actor=SYSTEM, targets=[peer], reason="ill")
    for path in ("teams", "memberships", "suspensions", "peers", "grants"):
        with django_assert_num_queries(4):  # the token, its user's roles, the count, the rows
            assert len(caller.names(path, "id")) == 6
