"""Whatever the order of acts, access is what a small model says: now, on every server, and at each time before.

MUSTER_MODEL_RUNS=1000 looks for longer and elsewhere, and for the shortest run that shows what is wrong; by itself it
looks at the same few runs each time.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from audit.models import Event
from audit.services import SYSTEM
from fleet import models as fleet
from nodes.chores import release_rested
from nodes.desired import desired_state
from nodes.observe import NodeState, ReceiptSeen
from nodes.status import Confirmation, confirm, record_applied
from peers import models as rows
from peers.due import settle_due, settle_placements
from peers.granting import end_grants
from peers.leaving import offboard
from peers.moving import let_moved_in, move_grant
from peers.revocation import revoke_devices, revoke_key, revoke_person
from peers.services import add_person
from peers.suspending import resume, suspend
from peers.teams import add_team, leave_team
from tests.build import make_server, new_public_key
from tests.nodes.journals import Node, journal, read
from tests.peers.model import HOUR, HOURS, Device, Environment, Grant, Person, Server, Spot, Target, Team
from tests.peers.model_rig import WHY, Rig

pytestmark = pytest.mark.django_db

RUNS = int(os.environ.get("MUSTER_MODEL_RUNS", "0"))
STRAY = "the peers were not what the grants say"
ANY = st.integers(0, 23)
LATER = st.sampled_from([None, 1, 6, 24, 100, 1000])  # hours
One = TypeVar("One")


def pick(found: Sequence[One], number: int) -> One:
    return found[number % len(found)]


class Access(Rig):
    """Each rule is one act, a second after the one before. Time passes in whole hours, and then chores are done."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(3):
            self.new_server(number)
        for number in range(3):
            self.new_person(number, "employee")
            self.new_device(number)
        self.world.teams = [Team(add_team(actor=SYSTEM, name=f"team-{number}").pk) for number in range(2)]
        for number in range(2):
            self.join(number, 0, None)
        for holder, place in ((3, 6), (1, 1), (2, 1)):  # of the first team to staging, of two people to one server
            self.grant(holder=holder, place=place, networks=(), hours="", begins=0, lasts=None)
        self.rotate(0)
        self.suspend(8)  # one peer, after three people and four devices

    # -- people, devices, servers

    @rule(number=ANY, kind=st.sampled_from(["employee", "contractor", "service"]))
    @precondition(lambda self: len(self.world.people) < 4)
    def new_person(self, number: int, kind: str) -> None:
        with self.acts("person.add"):
            row = add_person(actor=SYSTEM, name=f"Person {number}", kind=kind)
            self.world.people.append(Person(row.pk, kind))

    @rule(number=ANY)
    @precondition(lambda self: len(self.world.servers) < 5)
    def new_server(self, number: int) -> None:
        environment = pick(self.world.environments, number)
        with self.acts("server.add", "peer.settle"):
            place = fleet.Environment.objects.get(pk=environment.pk)
            server = make_server(place, ipv4_pool="10.0.0.0/25", ipv6_pool="fd00::/121")
            assert settle_placements() == {}
            self.world.servers.append(Server(server.pk, environment))
            self.world.follow()

    @rule(number=ANY)
    @precondition(lambda self: self.world.people and len(self.world.devices) < 12)
    def new_device(self, number: int) -> None:
        person = pick(self.world.people, number)
        if person.has_left:
            with self.refused():
                self.register(person)
            return
        with self.acts("device.register"):
            self.world.devices.append(self.register(person))
            self.world.follow()

    @rule(number=ANY)
    @precondition(lambda self: self.world.devices and len(self.world.devices) < 12)
    def rotate(self, number: int) -> None:
        """A new key that waits to take an old one's place."""
        old, world = pick(self.world.devices, number), self.world
        waits = old.replaces is not None and not old.replaces.is_dead
        shut = any(target in world.suspended for target in (old, *(Spot(old, server) for server in world.servers)))
        if old.is_dead or waits or world.heir(old) or shut:
            with self.refused():
                self.register(old.person, old)
            return
        with self.acts("device.register"):
            world.devices.append(self.register(old.person, old))
            world.follow()

    # -- teams and grants

    @rule(one=ANY, other=ANY, hours=LATER)
    def join(self, one: int, other: int, hours: int | None) -> None:
        person, team = pick(self.world.people, one), pick(self.world.teams, other)
        endless = hours is None and person.kind == "contractor"
        if person.has_left or endless or person in self.world.members(team):
            with self.refused():
                self.membership(person, team, hours)
            return
        with self.acts("team.join"):
            self.world.memberships.append(self.membership(person, team, hours))
            self.world.follow()

    @rule(number=ANY)
    @precondition(lambda self: self.world.open_memberships())
    def leave(self, number: int) -> None:
        one = pick(self.world.open_memberships(), number)
        with self.acts("team.leave"):
            row = rows.Membership.objects.get(pk=one.pk)
            leave_team(actor=SYSTEM, memberships=[row], reason=WHY)
            one.is_over = True
            self.world.follow()

    @rule(
        holder=ANY,
        place=ANY,
        networks=st.sampled_from([(), ("10.0.0.0/8",), ("192.0.2.0/24",)]),
        hours=st.sampled_from(sorted(HOURS)),
        begins=st.sampled_from([0, 0, 0, 5, 30]),
        lasts=LATER,
    )
    def grant(
        self, holder: int, place: int, networks: tuple[str, ...], hours: str, begins: int, lasts: int | None
    ) -> None:
        world = self.world
        holders: list[Person | Team] = [*world.people, *world.teams]
        places: list[Environment | Server] = [*world.servers, *world.servers, *world.environments]
        held, where = pick(holders, holder), pick(places, place)
        begin = self.hour() + begins * HOUR if begins else None
        until = None if lasts is None else (begin or self.hour()) + lasts * HOUR
        asked = Grant(0, held, where, networks, hours, begin or world.now, until)
        if isinstance(held, Person) and (held.has_left or (until is None and held.kind == "contractor")):
            with self.refused():
                self.give(asked)
            return
        with self.acts("grant.add"):
            asked.begins = begin or world.now
            asked.pk = self.give(asked)
            world.grants.append(asked)
            world.follow()

    @rule(number=ANY)
    @precondition(lambda self: self.world.open_grants())
    def end_grant(self, number: int) -> None:
        one = pick(self.world.open_grants(), number)
        with self.acts("grant.end"):
            end_grants(actor=SYSTEM, grants=[rows.Grant.objects.get(pk=one.pk)], reason=WHY)
            one.is_over = True
            self.world.follow()

    @rule(number=ANY)
    @precondition(lambda self: self.kept_out_there())
    def come_back(self, number: int) -> None:
        """Who is suspended on one server loses all access to it, and gets it anew."""
        (device, server), world = pick(self.kept_out_there(), number), self.world
        lost = list(dict.fromkeys(grant for grant, _ in world.rights(device.person, server)))
        with self.acts("grant.end"):
            ended = rows.Grant.objects.filter(pk__in=[one.pk for one in lost])
            end_grants(actor=SYSTEM, grants=list(ended), reason=WHY)
            for one in lost:
                one.is_over = True
            world.follow()
        with self.acts("grant.add"):
            again = Grant(0, device.person, server, (), "", world.now, self.until(24))
            again.pk = self.give(again)
            world.grants.append(again)
            world.follow()

    @rule(number=ANY, to=ANY)
    @precondition(lambda self: any(isinstance(one.place, Server) for one in self.world.open_grants()))
    def move(self, number: int, to: int) -> None:
        world = self.world
        one = pick([one for one in world.open_grants() if isinstance(one.place, Server)], number)
        old, new = one.place, pick(world.servers, to)
        assert isinstance(old, Server)
        people = [one.holder] if isinstance(one.holder, Person) else world.members(one.holder)
        others = [grant for person in people for grant, _ in world.rights(person, old) if grant is not one]
        row, server = rows.Grant.objects.get(pk=one.pk), fleet.Server.objects.get(pk=new.pk)
        if others or old is new:
            with self.refused():
                move_grant(actor=SYSTEM, grant=row, server=server, reason=WHY)
            return
        with self.acts("grant.move"):
            moved = move_grant(actor=SYSTEM, grant=row, server=server, reason=WHY)
            self.moved(one, new, moved.pk)

    def moved(self, one: Grant, new: Server, pk: int) -> None:
        """Who was not there before waits until the old peer is gone; who was still waiting waits for the first one.
        Who is kept out of the old server is kept out of both from now on."""
        world, old = self.world, one.place
        before = {peer.device: peer for peer in world.live() if peer.server is old}
        staying = {peer.device for peer in world.live(new)}
        one.is_over = True
        begins = max(one.begins, world.now)
        world.grants.append(Grant(pk, one.holder, new, one.networks, one.hours, begins, one.until))
        world.follow()
        for peer in world.live(new):
            was = before.get(peer.device)
            if peer.device not in staying and was and was.has_ended:
                first = was.waits_for or was
                peer.waits_for = first if first.server is not new else None
                world.copy_suspension(Spot(was.device, was.server), Spot(peer.device, new))

    # -- suspending, revoking, leaving

    @rule(number=ANY)
    def suspend(self, number: int) -> None:
        world = self.world
        people = [one for one in world.people if not one.has_left]
        devices = [one for one in world.devices if not one.is_dead]
        found: list[Target] = [*people, *devices, *(Spot(peer.device, peer.server) for peer in world.live())]
        if not found:
            return
        target = pick(found, number)
        if target in world.suspended:
            with self.refused():
                suspend(actor=SYSTEM, targets=[self.row_of(target)], reason=WHY)
            return
        with self.acts("suspension.begin"):
            suspend(actor=SYSTEM, targets=[self.row_of(target)], reason=WHY)
            world.suspended += [one for one in (target, *self.heirs(target)) if one not in world.suspended]

    @rule(number=ANY)
    @precondition(lambda self: self.world.suspended)
    def resume(self, number: int) -> None:
        """Also of whom has no peer there now."""
        one = pick(self.world.suspended, number)
        with self.acts("suspension.end"):
            resume(actor=SYSTEM, suspension=self.suspension_of(one), reason=WHY)
            self.world.suspended.remove(one)

    @rule(number=ANY)
    @precondition(lambda self: self.world.devices)
    def revoke_device(self, number: int) -> None:
        one = pick(self.world.devices, number)
        row = rows.Device.objects.get(pk=one.pk)
        if one.is_dead:
            with self.refused():
                revoke_devices(actor=SYSTEM, devices=[row], reason=WHY)
            with self.refused():
                self.register(one.person, key=one.key)
            return
        with self.acts("revocation.add"):
            revoke_devices(actor=SYSTEM, devices=[row], reason=WHY)
            self.world.kill([one])

    @rule(number=ANY)
    def revoke_person(self, number: int) -> None:
        one = pick(self.world.people, number)
        theirs = [device for device in self.world.devices if device.person is one and not device.is_dead]
        row = rows.Person.objects.get(pk=one.pk)
        if not theirs:
            with self.refused():
                revoke_person(actor=SYSTEM, person=row, reason=WHY)
            return
        with self.acts("revocation.add"):
            revoke_person(actor=SYSTEM, person=row, reason=WHY)
            self.world.kill(theirs)

    @rule(number=ANY)
    def revoke_key(self, number: int) -> None:
        """One that a device has, or that nobody has: then it can never be issued."""
        found = [one for one in self.world.devices if not one.is_dead]
        device = pick([None, *found], number)
        key = device.key if device else new_public_key()
        with self.acts("revocation.add"):
            revoke_key(actor=SYSTEM, public_key=key, reason=WHY)
            self.world.dead_keys.add(key)
            self.world.kill([device] if device else [])
        with self.refused():
            self.register(self.world.people[0], key=key)

    @rule(one=ANY, other=ANY)
    def leave_for_good(self, one: int, other: int) -> None:
        world = self.world
        people = list({pick(world.people, one): None, pick(world.people, one + other % 2): None})
        found = [rows.Person.objects.get(pk=person.pk) for person in people]
        if any(person.has_left for person in people):
            with self.refused():
                offboard(actor=SYSTEM, people=found, reason=WHY)
            return
        with self.acts("person.leave", "revocation.add"):
            offboard(actor=SYSTEM, people=found, reason=WHY)
            self.gone_for_good(people)

    def gone_for_good(self, people: list[Person]) -> None:
        world = self.world
        for person in people:
            person.has_left = True
        for grant in world.grants:
            grant.is_over = grant.is_over or grant.holder in people
        for membership in world.memberships:
            membership.is_over = membership.is_over or membership.person in people
        world.suspended = [one for one in world.suspended if owner(one) not in people]
        world.kill([one for one in world.devices if one.person in people])

    # -- what servers say

    @rule(number=ANY)
    def ask(self, number: int) -> None:
        """What a server is to hold is read; whenever it answers, it holds that."""
        server = pick(self.world.servers, number)
        ended = [peer for peer in self.world.peers if peer.server is server and peer.has_ended]
        self.asked.append((desired_state(server.pk), ended))

    @rule(number=ANY)
    @precondition(lambda self: self.asked)
    def answer(self, number: int) -> None:
        desired, ended = self.asked.pop(number % len(self.asked))
        with self.acts():
            record_applied(desired, NodeState(desired.epoch, desired.generation, "d", "d"), [], [])
            self.seen_gone(ended)

    @rule(number=ANY)
    def prove(self, number: int) -> None:
        """A server hands in all the receipts that are waited for."""
        server = pick(self.world.servers, number)
        pending = rows.Receipt.objects.filter(server=server.pk, confirmed_at=None)
        keys = list(pending.values_list("public_key", flat=True))
        acts = len(set(pending.values_list("revocation", flat=True)))
        with self.acts(*["revocation.confirmed"] * acts):
            receipts = [ReceiptSeen(key, True, True, True, ()) for key in keys]
            assert confirm([Confirmation(server.pk, NodeState(1, 1, "d", "d"), receipts)]) == len(keys)
            let_moved_in()
            self.seen_gone([one for one in self.world.peers if one.server is server and one.device.key in keys])

    @rule(number=ANY, where=ANY, what=st.sampled_from(["rotated", "revoked"]))
    @precondition(lambda self: self.world.devices)
    def told(self, number: int, where: int, what: str) -> None:
        """A node's journal: a new key came and the old one died there, or somebody revoked it at the machine."""
        one, server = pick(self.world.devices, number), pick(self.world.servers, where)
        counts = not one.is_dead and (what == "revoked" or any(two.replaces is one for two in self.world.devices))
        with self.acts("revocation.add" if counts else "journal.entry"):
            entries = self.journals.setdefault(server, [])
            entries.append({"what": what, "public_key": one.key, "at": int(self.world.now.timestamp())})
            read(fleet.Server.objects.get(pk=server.pk), Node(journal(*entries)))
            self.world.kill([one] if counts else [])

    # -- time

    @rule(hours=st.sampled_from([1, 2, 5, 13, 24, 60, 200, 800]))
    def time_passes(self, hours: int) -> None:
        """To a full hour, where the sweep does at once all that is due; nobody strayed by the acts themselves."""
        self.set_time(self.hour() + hours * HOUR)
        last = max(Event.objects.values_list("pk", flat=True), default=0)
        assert settle_due() == {}
        release_rested()
        self.world.let_in()
        self.world.follow()
        strays = Event.objects.filter(pk__gt=last, reason=STRAY).values_list("changes", flat=True)
        assert [found["peers"] for found in strays] == [["0", "0"]] * len(strays)
        self.look()


def owner(target: Target) -> Person:
    if isinstance(target, Person):
        return target
    return target.person if isinstance(target, Device) else target.device.person


@pytest.mark.timeout(600 + 60 * RUNS)
def test_access_is_what_the_model_says_whatever_the_order_of_acts() -> None:
    """D3, D9."""
    chosen = settings(
        max_examples=RUNS or 20,
        stateful_step_count=30,
        derandomize=not RUNS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=list(Phase) if RUNS else [Phase.generate],
    )
    run_state_machine_as_test(Access, settings=chosen)
