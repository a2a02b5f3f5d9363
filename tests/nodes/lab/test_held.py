"""While many wait for a person on a server, by packets: whoever is suspended is out, whoever is new is in."""

import time
from collections.abc import Iterable

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, Server, ServerStatus, User
from nodes import plan
from nodes.models import HeldPush, Hold, Run
from nodes.services import approve_hold
from peers.granting import end_grants, grant_access
from peers.models import Grant, Peer, Person
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_grant, make_peers, make_person
from tests.fleet_in_lab import Console, console, register, tunnel_file
from tests.lab import machines
from tests.lab.lab import Lab
from tests.lab.packets import Stream
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import enrolled, held_keys
from tests.nodes.lab.scene import wait_until_sent

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


class Office:
    """One machine with a tunnel for each device, and packets through each."""

    def __init__(self, lab: Lab, row: Server) -> None:
        self.client, self.row, self.tunnels = lab.add_clients(1)[0], row, 0

    def sit_down(self, person: Person, muster: Console | None) -> tuple[Stream, str]:
        """With a new device, pushed where there is a Console to do so: (its packets, its key)."""
        device, pair = register(person)
        text = tunnel_file(device, self.row, pair)
        if muster:
            muster.push()
        name, self.tunnels = f"wg{self.tunnels}", self.tunnels + 1
        self.client.connect(text, interface=name)
        return self.client.stream("10.1.0.1", interface=name, rate=20), pair.public_key


def pass_now(streams: Iterable[Stream]) -> None:
    began = time.monotonic()
    for stream in streams:
        stream.wait_for_reply(10, after=began)


def is_silent(streams: list[Stream], seconds: float = 1.0) -> bool:
    """Whether nothing that is sent from now on comes through."""
    began = time.monotonic()
    wait_until_sent(streams, began + seconds)
    return all((stream.last_answered_at() or 0) < began for stream in streams)


def colleagues(count: int, environment: Environment) -> tuple[list[Person], Grant]:
    team, people = add_team(actor=SYSTEM, name="migration"), [make_person(f"Member {n}") for n in range(count)]
    join_team(actor=SYSTEM, team=team, people=people)
    return people, grant_access(actor=SYSTEM, team=team, environment=environment, reason="migration")


def alone(name: str, environment: Environment) -> Person:
    person = make_person(name)
    make_grant(person, environment)
    return person


def test_who_is_suspended_is_out_and_who_is_new_is_in_while_eight_are_held(
    lab: Lab, staging: Environment, alice: User
) -> None:
    """Nobody is "suspended" on a page and connected all the same, as the push waits for something else."""
    with console(lab) as muster:
        row = enrolled(muster, lab.add_server(), staging)
        office, (people, grant) = Office(lab, row), colleagues(9, staging)
        team = [office.sit_down(person, muster)[0] for person in people[:8]]
        ben, ben_key = office.sit_down(alone("Ben", staging), muster)
        ann, _ = office.sit_down(alone("Ann", staging), muster)
        pass_now([*team, ben, ann])

        never, never_key = office.sit_down(people[8], None)
        end_grants(actor=alice, grants=[grant], reason="migration is over")
        muster.push()
        assert [(push.removals, push.held) for push in HeldPush.objects.all()] == [(8, 11)]
        pass_now([*team, ben, ann])

        suspend(actor=alice, targets=[Person.objects.get(name="Ben")], reason="stolen laptop")
        began = time.monotonic()
        muster.push()
        wait_for(lambda: ben_key not in held_keys(lab.of(machines.Server)[0]), 5, "Ben to be out")
        assert is_silent([ben, never])
        assert time.monotonic() - began < 10
        newcomer, _ = office.sit_down(alone("Eve", staging), muster)
        pass_now([*team, ann, newcomer])
        assert never_key not in held_keys(lab.of(machines.Server)[0])
        _stays_held(muster, row)

        approve_hold(actor=alice, hold=Hold.objects.get(), reason="yes, all of them")
        muster.push()
        assert is_silent([*team, ben, never])
        pass_now([ann, newcomer])
        assert never.last_reply_at() is None
        assert ann.unanswered() == []
        for stream in team:
            assert stream.lost(until=began) == 0
    assert _condition(row, Type.IN_SYNC) == (True, "InSync")
    assert not Peer.objects.filter(gone_at=None).exclude(ended_at=None).exists()


def _condition(row: Server, type: Type) -> tuple[bool, str]:
    found = conditions.read(ServerStatus.objects.get(server=row).conditions, type)
    assert found is not None
    return found.status, found.reason


def _stays_held(muster: Console, row: Server) -> None:
    """Sweeps and polls find nothing to do, and it is called held all the time."""
    runs = Run.objects.count()
    muster.push()
    muster.poll()
    muster.push()
    assert Run.objects.count() == runs
    assert (Run.objects.latest("pk").outcome, HeldPush.objects.count()) == ("held", 1)
    assert (_condition(row, Type.HELD), _condition(row, Type.IN_SYNC)) == ((True, "Brake"), (False, "Held"))


def test_a_hold_that_is_over_without_an_act_goes_out_at_a_generation_of_its_own(
    lab: Lab, staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node took another content at this generation, and takes no second one."""
    with console(lab) as muster:
        row, machine = enrolled(muster, lab.add_server(), staging), lab.of(machines.Server)[0]
        peers = make_peers(staging, 10)
        muster.push()
        end_grants(actor=SYSTEM, grants=list(Grant.objects.order_by("pk")[:8]), reason="over")
        muster.push()
        assert len(held_keys(machine)) == 10
        before = Server.objects.get().generation
        monkeypatch.setattr(plan, "FLOOR", 8)
        machine.run(["wg", "set", "wg0", "peer", peers[9].device.public_key, "allowed-ips", "10.1.9.9/32"])
        muster.poll()
        muster.push()
        assert (len(held_keys(machine)), Server.objects.get().generation) == (2, before + 1)
    assert _condition(row, Type.IN_SYNC) == (True, "InSync")
    assert not HeldPush.objects.exists()
    assert Peer.objects.filter(gone_at__lt=timezone.now()).count() == 8
