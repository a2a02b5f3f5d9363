"""The sweep's chores: one bad row, a full pool or a missing keyring holds up nothing else."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from audit.services import SYSTEM
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, Server, ServerStatus
from fleet.sealing import SealBroken
from nodes.chores import do_chores, settle_all
from nodes.crew import Crew
from nodes.desired import desired_state
from nodes.drain import due_servers
from nodes.models import ReviewItem, Run
from nodes.reviews import hand_on_reviews
from peers.due import settle_due, settle_placements, settle_strays
from peers.granting import end_grants, grant_access
from peers.models import Grant, Peer
from peers.revocation import revoke_devices
from peers.services import register_device
from peers.suspending import suspend
from peers.windows import BadHours
from tests.build import make_device, make_grant, make_peers, make_person, make_review, make_server, new_public_key

pytestmark = pytest.mark.django_db


def test_a_full_pool_holds_up_no_push_of_what_else_is_wanted(staging: Environment) -> None:
    """Whoever is suspended while somebody waits for an address is shut out by the sweep that tells of it."""
    server = make_server(staging, ipv4_pool="10.99.0.0/29")
    Server.objects.filter(pk=server.pk).update(enrolled_at=timezone.now())
    settle_placements()
    make_peers(staging, 5)
    late = make_device(make_person("Late")).person
    Grant.objects.create(person=late, environment=staging, reason="x", granted_by="x")
    suspend(actor=SYSTEM, targets=[Peer.objects.all()[0]], reason="malware")
    for _ in range(3):
        settle_all()
    found = conditions.read(ServerStatus.objects.get().conditions, Type.IN_SYNC)
    assert found is not None
    assert (found.status, found.reason) == (False, "PoolExhausted")
    assert due_servers(server.pk % settings.SHARDS) == [server.pk]


def test_who_waits_for_an_address_loses_what_they_may_not_have_all_the_same(staging: Environment) -> None:
    full, other = make_server(staging, ipv4_pool="10.98.0.0/29"), make_server(staging)
    late = make_person("Late")
    grant = grant_access(actor=SYSTEM, person=late, server=other, reason="x")
    make_device(late)
    settle_placements()
    make_peers(staging, 5)
    Grant.objects.filter(pk=grant.pk).update(ended_at=timezone.now())
    Grant.objects.create(person=late, server=full, reason="x", granted_by="x", begun_at=timezone.now())
    assert list(settle_strays()) == [full.pk]
    assert not Peer.objects.filter(device__person=late, ended_at=None).exists()


def test_one_row_that_cannot_be_read_holds_up_nobody_else(staging: Environment) -> None:
    make_server(staging)
    settle_placements()
    bad, good = make_peers(staging, 2)
    Grant.objects.filter(person=bad.device.person_id).update(hours="now and then")
    Grant.objects.filter(person=good.device.person_id).update(until=timezone.now())
    Peer.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    new = make_person("Erin")
    make_device(new)
    make_grant(new, staging)
    Peer.objects.filter(device__person=new).delete()
    Grant.objects.filter(person=new).update(begun_at=None)
    with pytest.raises(BadHours, match="now and then"):
        settle_due()
    assert Peer.objects.get(pk=good.pk).end == "expired"
    assert Peer.objects.filter(device__person=new, ended_at=None).count() == 1


def test_a_missing_keyring_holds_up_no_chore_that_needs_none(staging: Environment, own_keyrings: Path) -> None:
    make_server(staging)  # it waits for its peers
    person = make_person("Carol")
    make_device(person)
    Grant.objects.create(person=person, environment=staging, reason="x", granted_by="x")
    settings.KEYRING_PEERS.unlink()
    long_ago = timezone.now() - dt.timedelta(days=40)
    Run.objects.create(server=Server.objects.get(), epoch=1, generation=1, outcome="applied", started_at=long_ago)
    crew = Crew()
    try:
        with pytest.raises(SealBroken):
            do_chores(crew)
    finally:
        crew.close()
    assert (Run.objects.count(), Peer.objects.count()) == (0, 0)


def test_a_new_key_that_waits_for_a_person_by_itself_stops_no_handing_on(staging: Environment) -> None:
    """D14: reading a journal hands reviews on too, and must not fail by it."""
    make_server(staging)
    settle_placements()
    peer, other = make_peers(staging, 2)
    for one in (peer, other):
        person = one.device.person
        register_device(actor=SYSTEM, person=person, name="new", public_key=new_public_key(), replaces=one.device)
        make_review(one)
    heir = Peer.objects.get(replaces=peer)
    make_review(heir)
    revoke_devices(actor=SYSTEM, devices=[peer.device, other.device], reason="lost")
    hand_on_reviews()
    waiting = ReviewItem.objects.filter(decided_at=None, peer__ended_at=None)
    assert {item.peer for item in waiting} == {heir, Peer.objects.get(replaces=other)}
    assert desired_state(peer.server_id).content.peers == {}


def test_who_ends_while_a_state_is_read_is_not_called_gone_by_its_push(staging: Environment) -> None:
    """D3: else a key that moves would be let in on the other server while it still passes on this one."""
    server = make_server(staging)
    settle_placements()
    make_peers(staging, 1)
    grants = list(Grant.objects.all())

    def end_after_the_peers(execute: Any, sql: str, *args: Any) -> Any:
        answer = execute(sql, *args)
        if grants and "CASE WHEN" in sql:  # it reads the peers, whose new keys name the old ones
            end_grants(actor=SYSTEM, grants=[grants.pop()], reason="over")
        return answer

    with connection.execute_wrapper(end_after_the_peers):
        read = desired_state(server.pk)
    assert not grants
    assert not {one.public_key for one in read.removals} & set(read.content.peers)
    after = desired_state(server.pk)
    assert ([one.public_key for one in after.removals], after.content.peers) == (list(read.content.peers), {})
