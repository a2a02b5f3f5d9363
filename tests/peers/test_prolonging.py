"""Another end for a membership or a grant: the same peers go on, earlier or later, and history stays what it was."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from nodes.desired import desired_state
from peers.dossier import dossier_of
from peers.due import begin_grants, expire_peers
from peers.expiry import warn_of_ends
from peers.granting import end_grants, grant_access
from peers.leaving import offboard
from peers.models import ExpiryWarning, Grant, Membership, Peer, Person, Team
from peers.moving import move_grant
from peers.prolonging import prolong_grants, prolong_memberships
from peers.requests import approve_request
from peers.rights import rights_of
from peers.story import ends_of, request_of
from peers.teams import add_team, join_team, leave_team
from tests.build import make_device, make_person, make_request, make_server
from tests.doors import rows

pytestmark = pytest.mark.django_db
DAY = dt.timedelta(days=1)
WHY = "the contract was renewed"
Row = Membership | Grant


def in_days(days: float) -> dt.datetime:
    return timezone.now().replace(microsecond=0) + days * DAY


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn")


@pytest.fixture
def team(server: Server, staging: Environment) -> Team:
    """With an endless grant to staging."""
    found = add_team(actor=SYSTEM, name="web")
    grant_access(actor=SYSTEM, team=found, environment=staging, reason="work")
    return found


@dataclass
class Held:
    """What a contractor has until in five days."""

    row: Row
    person: Person

    def prolong(self, until: dt.datetime | None, *, actor: Any = SYSTEM, reason: str = WHY) -> Row:
        if isinstance(self.row, Membership):
            return prolong_memberships(actor=actor, memberships=[self.row], until=until, reason=reason)[0]
        return prolong_grants(actor=actor, grants=[self.row], until=until, reason=reason)[0]

    def end(self) -> None:
        if isinstance(self.row, Membership):
            leave_team(actor=SYSTEM, memberships=[self.row], reason=WHY)
        else:
            end_grants(actor=SYSTEM, grants=[self.row], reason=WHY)


@pytest.fixture(params=["membership", "grant"])
def held(request: pytest.FixtureRequest, team: Team, staging: Environment) -> Held:
    person = make_person("Carol", Person.Kind.CONTRACTOR)
    make_device(person)
    if request.param == "membership":
        (row,) = join_team(actor=SYSTEM, team=team, people=[person], until=in_days(5))
        return Held(row, person)
    values: dict[str, Any] = {"networks": ["10.0.0.0/8"], "hours": "mon-sun 00:00-24:00", "until": in_days(5)}
    return Held(grant_access(actor=SYSTEM, person=person, environment=staging, reason="database", **values), person)


@pytest.mark.parametrize("days", [30, 2])
def test_the_peer_is_the_same_row_with_another_end(days: int, held: Held, server: Server) -> None:
    """Later or earlier: no address, preshared key or tunnel file is another one, and the server is told of the end."""
    before: dict[str, Any] = {**Peer.objects.values().get()}
    generation = Server.objects.get().generation
    until = in_days(days)
    new = held.prolong(until)
    after: dict[str, Any] = {**Peer.objects.values().get()}
    changed = {name for name in after if after[name] != before[name]}
    assert (changed - {"windows", "windows_from"}, after["expires_at"]) == ({"expires_at"}, until)
    assert Server.objects.get().generation == generation + 1
    (told,) = desired_state(server.pk).content.peers.values()
    assert told.expires_at == int(until.timestamp())
    assert type(new).objects.get(pk=new.pk).until == until


def test_the_old_row_ends_and_a_new_one_goes_on_from_it(held: Held) -> None:
    old_until = held.row.until
    new = held.prolong(in_days(30))
    held.row.refresh_from_db()
    begin = new.began_at if isinstance(new, Membership) else new.begins_at
    assert (held.row.until, held.row.ended_at, new.goes_on_from, new.ended_at) == (old_until, begin, held.row, None)
    assert new.end_reason == WHY
    if isinstance(new, Grant) and isinstance(held.row, Grant):
        same = ("person_id", "environment_id", "networks", "hours", "pool", "reason", "begun_at")
        assert [getattr(new, name) for name in same] == [getattr(held.row, name) for name in same]
    event = Event.objects.latest("pk")
    assert (event.verb, event.reason) == (f"{new._meta.model_name}.set_end", WHY)
    assert list(event.changes_dict) == [f"{new._meta.model_name} {held.row.pk}"]


def test_history_at_each_time_is_what_it_was_then(held: Held, alice: User) -> None:
    was, person = timezone.now(), held.person.pk
    old_until = held.row.until
    until = in_days(30)
    held.prolong(until)
    ends = [next(iter(rights_of([person], at)[person].values())) for at in (was, timezone.now())]
    assert [[right.until for right in found] for found in ends] == [[old_until], [until]]
    said = [step.what for step in dossier_of(timezone.now(), alice, held.person).timeline]
    kinds = {"left a team", "joined a team", "other end in a team", "access granted", "other end of access"}
    other = ("joined a team", "other end in a team")
    other = other if isinstance(held.row, Membership) else ("access granted", "other end of access")
    assert sorted(kinds & set(said)) == sorted(other)


def test_what_was_prolonged_lives_on_after_its_first_end_and_ends_at_its_last(held: Held) -> None:
    """D10: nothing has no end by it."""
    soon = timezone.now() + dt.timedelta(seconds=1)
    type(held.row)._default_manager.filter(pk=held.row.pk).update(until=soon)
    Peer.objects.update(expires_at=soon)
    new = held.prolong(in_days(30))
    assert (expire_peers(), Peer.objects.get().expires_at) == (0, new.until)
    past = timezone.now() - dt.timedelta(seconds=1)
    type(new)._default_manager.filter(pk=new.pk).update(until=past)
    Peer.objects.update(expires_at=past)
    assert (expire_peers(), Peer.objects.get().end) == (1, "expired")


def _over(held: Held) -> None:
    type(held.row)._default_manager.filter(pk=held.row.pk).update(until=timezone.now())


BAD: dict[str, tuple[Callable[[Held], object], dt.timedelta | None, str, str]] = {
    "past": (lambda held: None, -DAY, WHY, "Give an end in the future"),
    "endless": (lambda held: None, None, WHY, "needs an end date"),
    "no reason": (lambda held: None, 9 * DAY, " ", "Say why"),
    "two lines": (lambda held: None, 9 * DAY, "a\nb", "reason"),
    "ended": (Held.end, 9 * DAY, WHY, "no open .* any more"),
    "over": (_over, 9 * DAY, WHY, "no open .* any more"),
    "done already": (lambda held: held.prolong(in_days(8)), 9 * DAY, WHY, "no open .* any more"),
    "left": (
        lambda held: offboard(actor=SYSTEM, people=[held.person], reason=WHY),
        9 * DAY,
        WHY,
        "has left|no open .* any more",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_may_not_be_changes_nothing(what: str, held: Held) -> None:
    prepare, later, reason, message = BAD[what]
    prepare(held)
    before, peers = rows(), list(Peer.objects.values())
    with pytest.raises(ValidationError, match=message):
        held.prolong(timezone.now() + later if later else None, reason=reason)
    assert (rows(), list(Peer.objects.values())) == (before, peers)


def test_nothing_chosen_is_refused(team: Team) -> None:
    before = rows()
    with pytest.raises(ValidationError, match="Choose at least one membership"):
        prolong_memberships(actor=SYSTEM, memberships=[], until=in_days(1), reason=WHY)
    with pytest.raises(ValidationError, match="Choose at least one grant"):
        prolong_grants(actor=SYSTEM, grants=[], until=in_days(1), reason=WHY)
    assert rows() == before


def test_an_employee_may_stay_without_an_end(held: Held) -> None:
    Person.objects.update(kind=Person.Kind.EMPLOYEE)
    assert (held.prolong(None).until, Peer.objects.get().expires_at) == (None, None)


def test_several_have_the_same_end_by_one_act_or_none_of_them(team: Team) -> None:
    people = [make_person(name, Person.Kind.CONTRACTOR) for name in ("Ann", "Ben", "Eve")]
    for person in people:
        make_device(person)
    members = join_team(actor=SYSTEM, team=team, people=people, until=in_days(5))
    leave_team(actor=SYSTEM, memberships=[members[2]], reason=WHY)
    until = in_days(30)
    before = rows()
    with pytest.raises(ValidationError, match="no open"):
        prolong_memberships(actor=SYSTEM, memberships=members, until=until, reason=WHY)
    assert rows() == before
    prolong_memberships(actor=SYSTEM, memberships=[members[0], members[1], members[0]], until=until, reason=WHY)
    assert set(Peer.objects.filter(ended_at=None).values_list("device__person__name", "expires_at")) == {
        ("Ann", until),
        ("Ben", until),
    }
    assert Event.objects.filter(verb="membership.set_end").count() == 1


def test_only_who_operates_all_that_it_gives_sets_its_end(
    held: Held, team: Team, bob: User, charlie: User, production: Environment
) -> None:
    """B3: as for joining."""
    if isinstance(held.row, Membership):
        far = grant_access(actor=SYSTEM, team=team, environment=production, reason="x", until=in_days(1))
    else:
        far = grant_access(actor=SYSTEM, person=held.person, environment=production, reason="x", until=in_days(1))
    both: dict[str, Any] = {"until": in_days(9), "reason": WHY}
    before = rows()
    with pytest.raises(PermissionDenied):
        if isinstance(held.row, Membership):
            held.prolong(in_days(9), actor=bob)
        else:
            prolong_grants(actor=bob, grants=[held.row, far], **both)
    with pytest.raises(PermissionDenied):
        held.prolong(in_days(9), actor=charlie)
    assert rows() == before
    end_grants(actor=SYSTEM, grants=[far], reason=WHY)
    assert held.prolong(in_days(9), actor=bob).goes_on_from == held.row


def test_a_new_end_is_warned_of_again_once(held: Held) -> None:
    assert (warn_of_ends(), warn_of_ends()) == (1, 0)
    far = held.prolong(in_days(30))
    assert warn_of_ends() == 0
    held.row = far
    near = held.prolong(in_days(3))
    assert (warn_of_ends(), warn_of_ends()) == (1, 0)
    assert ExpiryWarning.objects.latest("pk").expires_at == near.until


def test_a_team_s_grant_goes_on_for_all_of_the_team(team: Team, server: Server) -> None:
    """To whoever has an earlier end by their membership, that one counts."""
    carol, ann = make_person("Carol", Person.Kind.CONTRACTOR), make_person("Ann")
    for person, until in ((carol, in_days(5)), (ann, None)):
        make_device(person)
        join_team(actor=SYSTEM, team=team, people=[person], until=until)
    until = in_days(30)
    prolong_grants(actor=SYSTEM, grants=list(Grant.objects.all()), until=until, reason=WHY)
    ends = dict(Peer.objects.values_list("device__person__name", "expires_at"))
    assert ends == {"Carol": Membership.objects.get(person=carol).until, "Ann": until}


def test_what_begins_later_begins_then_and_may_not_end_before(team: Team, server: Server, alice: User) -> None:
    person = make_person("Carol")
    make_device(person)
    grant = grant_access(actor=SYSTEM, person=person, server=server, reason="x", begins_at=in_days(3), until=in_days(5))
    with pytest.raises(ValidationError, match="Give an end after the beginning"):
        prolong_grants(actor=SYSTEM, grants=[grant], until=in_days(2), reason=WHY)
    (new,) = prolong_grants(actor=SYSTEM, grants=[grant], until=in_days(30), reason=WHY)
    assert (new.begins_at, new.begun_at, Peer.objects.count()) == (grant.begins_at, None, 0)
    found = dossier_of(timezone.now(), alice, person)
    assert ([one.pk for one in found.later], found.grants) == ([new.pk], [])
    Grant.objects.filter(pk=new.pk).update(begins_at=timezone.now())
    begin_grants()
    assert Peer.objects.get().expires_at == new.until


def test_the_story_goes_on_over_ends_and_moves(staging: Environment, server: Server, alice: User, bob: User) -> None:
    """Who asked, who gave which end and why; and what moved goes on too."""
    asked = make_request(make_person("Carol"), staging, actor=alice)
    type(asked)._default_manager.filter(pk=asked.pk).update(environment=None, server=server)
    asked.refresh_from_db()
    approve_request(actor=bob, request=asked)
    grant = Grant.objects.get()
    (second,) = prolong_grants(actor=SYSTEM, grants=[grant], until=in_days(60), reason=WHY)
    moved = move_grant(actor=SYSTEM, grant=second, server=make_server(staging), reason="nearer")
    (last,) = prolong_grants(actor=bob, grants=[moved], until=in_days(90), reason="once more")
    assert request_of(last) == asked
    assert [(end.row, end.who, end.why) for end in ends_of(grant)] == [
        (grant, "bob", "project"),
        (second, "Console", WHY),
    ]
    assert [(end.row, end.who, end.why) for end in ends_of(last)] == [
        (moved, "Console", "project"),
        (last, "bob", "once more"),
    ]
    assert ends_of(Grant.objects.get(pk=moved.pk)) == ends_of(last)
