"""However many people, peers or receipts there are, the database is asked equally often."""

import base64
import os
from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from fleet.models import Environment, Server
from nodes import brake, status
from nodes.desired import desired_state, keys_to_kill
from nodes.models import Hold
from nodes.observe import NodeState, PeerSeen, ReceiptSeen
from nodes.services import approve_hold
from nodes.status import Confirmation
from peers.due import settle_due, settle_placements
from peers.granting import end_grants, grant_access
from peers.leaving import offboard
from peers.models import Device, Grant, Peer, Person, Receipt, Team
from peers.revocation import revoke_devices
from peers.rights import rights_of
from peers.settle import Ending, settle
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_peers, make_person, make_server
from tests.nodes.pushes import push

pytestmark = pytest.mark.django_db


def queries(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as seen:
        work()
    return len(seen)


def new_people(environment: Environment, count: int) -> list[int]:
    """People with a device and a grant whose peers are not made yet."""
    people = [make_person(f"Person {number}") for number in range(count)]
    Device.objects.bulk_create(Device(person=p, name="x", public_key=_key()) for p in people)
    Grant.objects.bulk_create(Grant(person=p, environment=environment, reason="x") for p in people)
    return [person.pk for person in people]


def _key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def settled(people: list[int], server: Server) -> None:
    with act(Verb.PEER_SETTLE, actor=SYSTEM) as this:
        settle(people, this=this, ending=Ending())
        this.on(server, changes={})


def suspend_people(people: list[Person]) -> None:
    suspend(actor=SYSTEM, targets=people, reason="lost")


def offboard_people(people: list[Person]) -> None:
    offboard(actor=SYSTEM, people=people, reason="left")


def test_settling_twenty_people_asks_as_often_as_three(staging: Environment) -> None:
    servers = [make_server(staging), make_server(staging)]
    groups = [new_people(staging, count) for count in (3, 3, 20)]
    _, few, many = (queries(lambda group=group: settled(group, servers[0])) for group in groups)  # type: ignore[misc]
    assert Peer.objects.count() == 52
    assert few == many


def test_ending_thirty_accesses_asks_as_often_as_three(staging: Environment) -> None:
    server = make_server(staging)
    groups = [new_people(staging, count) for count in (3, 30)]
    for group in groups:
        settled(group, server)
    Grant.objects.update(ended_at=timezone.now())
    few, many = (queries(lambda group=group: settled(group, server)) for group in groups)  # type: ignore[misc]
    assert not Peer.objects.filter(ended_at=None).exists()
    assert few == many


def test_a_team_of_thirty_comes_in_and_loses_its_grant_in_as_many_queries_as_one_of_three(staging: Environment) -> None:
    make_server(staging)
    counts = []
    for number in (3, 3, 30):
        people = [make_person(f"Person {n} of {number}") for n in range(number)]
        Device.objects.bulk_create(Device(person=one, name="x", public_key=_key()) for one in people)
        team = add_team(actor=SYSTEM, name=f"team-{Team.objects.count()}")
        join_team(actor=SYSTEM, team=team, people=people)
        given = queries(lambda: grant_access(actor=SYSTEM, team=team, environment=staging, reason="x"))  # noqa: B023
        grants = list(Grant.objects.filter(team=team))
        counts.append((given, queries(lambda: end_grants(actor=SYSTEM, grants=grants, reason="x"))))  # noqa: B023
    assert Peer.objects.exclude(ended_at=None).count() == 36
    assert counts[1] == counts[2]


@pytest.mark.parametrize("shut_out", [suspend_people, offboard_people])
def test_shutting_out_who_is_on_thirty_servers_asks_as_often_as_on_three(
    staging: Environment, production: Environment, shut_out: Callable[[list[Person]], object]
) -> None:
    for place, number in ((staging, 3), (production, 30)):
        for _ in range(number):
            make_server(place)
    counts = []
    for place in (staging, staging, production):
        person = make_person()
        make_grant(person, place)
        make_device(person)
        settle_placements()
        counts.append(queries(lambda: shut_out([person])))  # noqa: B023
    assert Peer.objects.count() == 36
    assert counts[1] == counts[2]


def test_the_sweep_asks_as_often_of_thirty_people_as_of_three_while_nothing_is_due(staging: Environment) -> None:
    make_server(staging)
    counts = []
    for number in (3, 27):
        make_peers(staging, number)
        settle_due()
        counts.append(queries(settle_due))
    assert Peer.objects.filter(ended_at=None).count() == 30
    assert counts[0] == counts[1]


def test_who_is_wanted_where_takes_two_queries(staging: Environment) -> None:
    make_server(staging)
    make_peers(staging, 12)
    people = set(Device.objects.values_list("person", flat=True))
    assert queries(lambda: rights_of(people, timezone.now())) == 2


def test_the_desired_state_of_a_hundred_peers_takes_as_many_queries_as_of_ten(staging: Environment) -> None:
    servers = [make_server(staging), make_server(staging)]
    settled(new_people(staging, 10), servers[0])
    few = queries(lambda: desired_state(servers[0].pk))
    settled(new_people(staging, 90), servers[0])
    assert len(desired_state(servers[0].pk).content.peers) == 100
    assert queries(lambda: desired_state(servers[0].pk)) == few


def test_a_confirmed_push_of_thirty_new_peers_is_written_down_in_as_many_queries_as_of_three(
    staging: Environment,
) -> None:
    server, counts = make_server(staging), []
    for number in (3, 27):
        make_peers(staging, number)
        desired = desired_state(server.pk)
        assert len(desired.entering) == number
        seen = NodeState(desired.epoch, desired.generation, "d", "d")
        counts.append(queries(lambda: status.record_applied(desired, seen, [], [])))  # noqa: B023
    assert counts[0] == counts[1]
    assert desired_state(server.pk).entering == {}


def test_holding_thirty_takes_as_many_queries_as_holding_six(staging: Environment) -> None:
    server, counts = make_server(staging), []
    for number in (6, 30):
        found = make_peers(staging, number)
        push(server)
        grants = Grant.objects.filter(person__in=[peer.device.person_id for peer in found], ended_at=None)
        end_grants(actor=SYSTEM, grants=list(grants), reason="over")
        counts.append(queries(lambda: brake.preview(desired_state(server.pk))))
        assert len(brake.preview(desired_state(server.pk))[0].held) == number
        approve_hold(actor=SYSTEM, hold=_held(server), reason="yes")
        push(server)
    assert counts[0] == counts[1]


def _held(server: Server) -> Hold:
    brake.check(desired_state(server.pk))
    return Hold.objects.get(approved_at=None)


def confirmed(server: Server) -> None:
    keys = Receipt.objects.filter(server=server, confirmed_at=None).values_list("public_key", flat=True)
    receipts = [ReceiptSeen(key, True, True, True, ()) for key in keys]
    assert status.confirm([Confirmation(server.pk, NodeState(1, 1, "d", "d"), receipts)]) == len(receipts)


def test_thirty_receipts_are_written_down_in_as_many_queries_as_three(staging: Environment) -> None:
    server = make_server(staging)
    Server.objects.update(enrolled_at=timezone.now())
    counts = []
    for number in (3, 3, 30):
        devices = [peer.device for peer in make_peers(staging, number)[:number]]
        revoke_devices(actor=SYSTEM, devices=devices, reason="gone")
        asked = queries(keys_to_kill)
        counts.append((asked, queries(lambda: confirmed(server))))
    assert counts[1] == counts[2]
    assert not Receipt.objects.filter(confirmed_at=None).exists()


def test_what_a_poll_found_is_written_down_in_as_many_queries_for_thirty_peers(staging: Environment) -> None:
    server = make_server(staging)
    make_grant(make_person(), staging)
    counts = []
    for number in (3, 27):
        keys = [peer.device.public_key for peer in make_peers(staging, number)]
        seen = [PeerSeen(key, "192.0.2.1:5", 1, 2, 3) for key in keys]
        counts.append(queries(lambda: status.record_observation(server.pk, NodeState(1, 1, "", ""), seen, [], "")))  # noqa: B023
    assert counts[0] == counts[1]
    assert Peer.objects.filter(status__transfer_rx=2).count() == 30
