"""The product beside the model: a clock that is set, acts that write exactly their Events, rows of what is meant."""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from audit.models import Event
from audit.services import SYSTEM
from fleet import models as fleet
from fleet.services import add_environment
from nodes.state import Desired
from peers import models as rows
from peers.granting import grant_access
from peers.prolonging import prolong_grants, prolong_memberships
from peers.services import register_device
from peers.teams import join_team
from tests.build import new_public_key
from tests.nodes.journals import Json
from tests.peers.model import (
    HOUR,
    Device,
    Environment,
    Grant,
    Membership,
    Peer,
    Person,
    Server,
    Spot,
    Target,
    Team,
    World,
)
from tests.peers.model_checks import Past, Seen, check_constraints, check_past, check_present, check_rests

BEGIN = dt.datetime(2026, 6, 3, 9, tzinfo=dt.UTC)
WHY = "as the model does"


class Clock(dt.datetime):
    """What Django's timezone module takes the time from."""

    at = BEGIN

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return cls.at


class Rig(RuleBasedStateMachine):
    """A world of its own for each run, undone at its end. Nothing is committed; constraints are asked for instead."""

    def __init__(self) -> None:
        super().__init__()
        self.undone = transaction.atomic()
        self.undone.__enter__()
        self.clock = patch.object(timezone, "datetime", Clock)
        self.clock.start()
        self.world = World(BEGIN)
        self.past: Past = []
        self.seen: Seen = {}
        self.is_whole = True
        self.journals: dict[Server, list[Json]] = {}
        self.asked: list[tuple[Desired, list[Peer]]] = []
        self.set_time(BEGIN)
        for name, zone, rest in (("staging", "UTC", 1), ("production", "Europe/Berlin", 24)):
            row = add_environment(actor=SYSTEM, name=name, time_zone=zone, address_rest=rest * HOUR)
            self.world.environments.append(Environment(row.pk, zone, rest * HOUR))

    def teardown(self) -> None:
        try:
            if self.is_whole:
                check_rests(self.world)
                check_past(self.past)
                check_constraints()
        finally:
            self.clock.stop()
            transaction.set_rollback(True)
            self.undone.__exit__(None, None, None)

    def set_time(self, at: dt.datetime) -> None:
        Clock.at = self.world.now = at

    @contextmanager
    def acts(self, *verbs: str) -> Iterator[None]:
        """Exactly these Events are written, and then everything is as the model has it."""
        self.set_time(self.world.now + dt.timedelta(seconds=1))
        last = max(Event.objects.values_list("pk", flat=True), default=0)
        self.is_whole = False  # what comes after a rule that failed says nothing
        yield
        assert sorted(Event.objects.filter(pk__gt=last).values_list("verb", flat=True)) == sorted(verbs)
        self.look()

    @contextmanager
    def refused(self) -> Iterator[None]:
        with self.acts(), pytest.raises(ValidationError), transaction.atomic():
            yield

    def look(self) -> None:
        world = self.world
        self.seen = check_present(world, self.seen)
        entitled = {
            (one.pk, server.pk) for one in world.people for server in world.servers if any(world.rights(one, server))
        }
        self.is_whole = True
        self.past.append((world.now, world.snapshot(), entitled))

    def until(self, hours: int | None) -> dt.datetime | None:
        return None if hours is None else self.hour() + hours * HOUR

    def hour(self) -> dt.datetime:
        return self.world.now.replace(minute=0, second=0)

    def register(self, person: Person, old: Device | None = None, key: str = "") -> Device:
        key = key or new_public_key()
        replaces = rows.Device.objects.get(pk=old.pk) if old else None
        owner = rows.Person.objects.get(pk=person.pk)
        row = register_device(actor=SYSTEM, person=owner, name="laptop", public_key=key, replaces=replaces)
        return Device(row.pk, person, key, old)

    def membership(self, person: Person, team: Team, hours: int | None) -> Membership:
        until, whom = self.until(hours), rows.Person.objects.get(pk=person.pk)
        [row] = join_team(actor=SYSTEM, team=rows.Team.objects.get(pk=team.pk), people=[whom], until=until)
        return Membership(row.pk, person, team, until)

    def lasting(self) -> list[Membership | Grant]:
        return [*self.world.open_memberships(), *self.world.open_grants()]

    @rule(number=st.integers(0, 23), hours=st.sampled_from([None, 1, 24, 1000]))
    @precondition(lambda self: self.lasting())
    def prolong(self, number: int, hours: int | None) -> None:
        """Another end, later or earlier: nobody comes or goes by it."""
        one, until = self.lasting()[number % len(self.lasting())], self.until(hours)
        if until is None and self.needs_end(one):
            with self.refused():
                self.other_end(one, until)
            return
        with self.acts(f"{type(one).__name__.lower()}.set_end"):
            one.pk, one.until = self.other_end(one, until), until

    def needs_end(self, one: Membership | Grant) -> bool:
        holder = one.person if isinstance(one, Membership) else one.holder
        return isinstance(holder, Person) and holder.kind == "contractor"

    def other_end(self, one: Membership | Grant, until: dt.datetime | None) -> int:
        if isinstance(one, Membership):
            found = [rows.Membership.objects.get(pk=one.pk)]
            return prolong_memberships(actor=SYSTEM, memberships=found, until=until, reason=WHY)[0].pk
        grants = [rows.Grant.objects.get(pk=one.pk)]
        return prolong_grants(actor=SYSTEM, grants=grants, until=until, reason=WHY)[0].pk

    def give(self, asked: Grant) -> int:
        names = {Person: "person", Team: "team", Environment: "environment", Server: "server"}
        models: dict[type, Any] = {
            Person: rows.Person,
            Team: rows.Team,
            Environment: fleet.Environment,
            Server: fleet.Server,
        }
        ends = {names[type(one)]: models[type(one)].objects.get(pk=one.pk) for one in (asked.holder, asked.place)}
        row = grant_access(
            actor=SYSTEM,
            reason=WHY,
            networks=asked.networks,
            hours=asked.hours,
            begins_at=asked.begins,
            until=asked.until,
            **ends,
        )
        return row.pk

    def row_of(self, target: Target) -> rows.Person | rows.Device | rows.Peer:
        if isinstance(target, Spot):
            return rows.Peer.objects.get(device=target.device.pk, server=target.server.pk, ended_at=None)
        if isinstance(target, Device):
            return rows.Device.objects.get(pk=target.pk)
        return rows.Person.objects.get(pk=target.pk)

    def heirs(self, target: Target) -> list[Target]:
        """Nobody gets in by the key that waits to take the place of one that is kept out."""
        if isinstance(target, Person):
            return []
        heir = self.world.heir(target.device if isinstance(target, Spot) else target)
        if isinstance(target, Device):
            return [heir] if heir else []
        return [Spot(peer.device, peer.server) for peer in self.world.live(target.server) if peer.device is heir]

    def kept_out_there(self) -> list[Spot]:
        """Spots that are suspended and have a peer."""
        spots = [Spot(peer.device, peer.server) for peer in self.world.live()]
        return [spot for spot in spots if spot in self.world.suspended]

    def suspension_of(self, target: Target) -> rows.Suspension:
        """The one that is open, on whichever peer."""
        if isinstance(target, Spot):
            there = {"peer__device": target.device.pk, "peer__server": target.server.pk}
            return rows.Suspension.objects.get(ended_at=None, **there)
        return rows.Suspension.objects.get(ended_at=None, **{type(target).__name__.lower(): target.pk})

    def seen_gone(self, peers: Sequence[Peer]) -> None:
        for peer in peers:
            peer.is_gone = True
        self.world.let_in()
