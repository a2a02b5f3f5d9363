"""A push that takes many peers for one cause waits for a person; nothing else does."""

import pytest

from audit.models import Event
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, Server, User
from nodes.brake import UNRECORDED
from nodes.models import HeldPush, Hold
from nodes.services import approve_hold
from peers.granting import end_grants
from peers.models import Grant, Peer, PeerStatus, Receipt
from peers.revocation import revoke_devices
from tests.build import make_peers
from tests.fleet_in_lab import Console, console
from tests.lab import machines
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import enrolled, held_keys, joined

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def end_access_of(peers: list[Peer], actor: User) -> None:
    people = {peer.device.person_id for peer in peers}
    end_grants(actor=actor, grants=list(Grant.objects.filter(person__in=people)), reason="project is over")


def condition(server: Server, type: Type) -> tuple[bool, str, str]:
    server.status.refresh_from_db()
    found = conditions.read(server.status.conditions, type)
    assert found is not None
    return found.status, found.reason, found.message


def fifty_peers(muster: Console, lab: Lab, environment: Environment) -> tuple[Server, list[Peer]]:
    row = enrolled(muster, lab.add_server(), environment)
    peers = make_peers(environment, 50)
    muster.push()
    assert len(held_keys(lab.of(machines.Server)[0])) == 50
    return row, sorted(peers, key=lambda peer: peer.device.public_key)


def test_twelve_of_fifty_wait_with_their_cause_and_go_on_approval(lab: Lab, staging: Environment, alice: User) -> None:
    with console(lab) as muster:
        row, peers = fifty_peers(muster, lab, staging)
        machine = lab.of(machines.Server)[0]
        end_access_of(peers[:12], alice)
        muster.push()
        assert len(held_keys(machine)) == 50
        hold = Hold.objects.get()
        event = Event.objects.get(verb="grant.end")
        at = f"{event.timestamp:%Y-%m-%d %H:%M} UTC"
        cause = f"grant.end {event.target_label} by alice at {at} (project is over)"
        assert (hold.cause, hold.act, hold.approved_at) == (cause, event.act, None)
        message = f"12 of 50 peers would go: {cause}"
        assert condition(row, Type.HELD) == (True, "Brake", message)
        assert condition(row, Type.IN_SYNC) == (False, "Held", message)
        push = HeldPush.objects.get()
        assert (push.server, push.removals, push.held) == (row, 12, 50)

        revoke_devices(actor=alice, devices=[peers[20].device], reason="stolen")
        muster.push()
        assert peers[20].device.public_key not in held_keys(machine)
        assert Receipt.objects.filter(confirmed_at=None).count() == 0
        assert len(held_keys(machine)) == 49

        approve_hold(actor=alice, hold=hold, reason="yes, all twelve")
        muster.push()
        gone = {peer.device.public_key for peer in [*peers[:12], peers[20]]}
        assert held_keys(machine) == {peer.device.public_key for peer in peers} - gone
        assert condition(row, Type.HELD)[:2] == (False, "Pushed")
        assert condition(row, Type.IN_SYNC)[:2] == (True, "InSync")
        assert Peer.objects.filter(gone_at=None).count() == 37
    held = Event.objects.get(verb="push.held")
    assert (held.reason, held.changes) == (cause, {row.name: ["50 peers", "38 peers"]})
    approved = Event.objects.get(verb="push.approve")
    assert (approved.actor_label, approved.reason) == ("alice", "yes, all twelve")


def test_one_approval_is_for_every_server_of_the_cause(lab: Lab, staging: Environment, alice: User) -> None:
    three = lab.add_servers(3)
    with console(lab) as muster:
        rows = [enrolled(muster, machine, staging, number) for number, machine in enumerate(three, 1)]
        peers = make_peers(staging, 20)
        muster.push()
        three[2].partition("reject")
        end_access_of([peer for peer in peers if peer.server_id == rows[0].pk][:8], alice)
        muster.push()
        assert [len(held_keys(machine)) for machine in three] == [20, 20, 20]
        approve_hold(actor=alice, hold=Hold.objects.get(), reason="checked")
        three[2].heal()

        def have_followed() -> bool:
            muster.push()
            return [len(held_keys(machine)) for machine in three] == [12, 12, 12]

        # What was not held went to the one that is cut off in vain: it is tried again within five seconds.
        wait_for(have_followed, 30, "all three to follow")
    assert Hold.objects.count() == 1


def test_one_by_one_no_end_of_access_waits(lab: Lab, staging: Environment, alice: User) -> None:
    with console(lab) as muster:
        row, peers = fifty_peers(muster, lab, staging)
        for peer in peers[:8]:
            end_access_of([peer], alice)
        revoke_devices(actor=alice, devices=[peer.device for peer in peers[8:16]], reason="stolen")
        muster.push()
        assert held_keys(lab.of(machines.Server)[0]) == {peer.device.public_key for peer in peers[16:]}
        assert condition(row, Type.IN_SYNC)[:2] == (True, "InSync")
    assert not Hold.objects.exists()


def test_rows_that_are_lost_take_no_peer_from_a_server(lab: Lab, staging: Environment, alice: User) -> None:
    with console(lab) as muster:
        row, peers = fifty_peers(muster, lab, staging)
        client, _, _ = joined(muster, lab, row)
        lost = [peer.pk for peer in peers[:12]]
        Grant.objects.filter(person__in=[peer.device.person_id for peer in peers[:12]]).delete()
        PeerStatus.objects.filter(peer__in=lost).delete()
        Peer.objects.filter(pk__in=lost).delete()
        end_access_of([peers[30]], alice)
        for _ in range(2):
            muster.push()
            hold = Hold.objects.get()
            assert hold.cause == UNRECORDED
            assert condition(row, Type.HELD)[:2] == (True, "Brake")
            assert [(push.server, push.removals, push.held) for push in hold.pushes.all()] == [(row, 12, 51)]
        assert len(held_keys(lab.of(machines.Server)[0])) == 51
        approve_hold(actor=alice, hold=hold, reason="the rows are gone on purpose")
        muster.push()
        assert len(held_keys(lab.of(machines.Server)[0])) == 38
        assert client.ping("10.1.0.1").lost == 0
        assert condition(row, Type.IN_SYNC)[:2] == (True, "InSync")
