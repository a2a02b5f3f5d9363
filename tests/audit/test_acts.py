"""What holds for every act: its Event and its change are one, and only those may ask who may."""

import copy

import pytest
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError

from audit.context import acting_from
from audit.models import Event
from audit.services import SYSTEM, AtMachine
from fleet.models import Environment, User
from tests.acts import ACTS
from tests.asked import Asked
from tests.worlds import World, Worlds, everything, fill_the_ledger

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("asked", ACTS, ids=str)]


@pytest.fixture
def world(worlds: Worlds) -> World:
    return worlds["staging"]


@pytest.fixture
def staging(world: World) -> Environment:
    """Where Bob is an operator."""
    return world.environment


def test_an_act_writes_exactly_one_event_that_tells_who_what_and_why(asked: Asked, world: World, alice: User) -> None:
    before = everything()
    last = before["Event"][-1]["id"]
    with acting_from("person", "", "198.51.100.7"):
        asked.ask(world, alice)
    *others, event = Event.objects.filter(pk__gt=last).order_by("pk")
    assert tuple(other.verb for other in others) == asked.also
    assert (event.verb, event.actor, event.actor_label) == (asked.verb, alice, "alice")
    assert (event.target_label, event.reason) == (asked.target(world), asked.reason)
    assert (event.origin, event.remote_addr) == ("person", "198.51.100.7")
    after = everything()
    assert [name for name in after if after[name] != before[name]] != ["Event"]


def test_no_event_means_no_change(asked: Asked, world: World, alice: User) -> None:
    """G4"""
    before = everything()
    fill_the_ledger()
    with pytest.raises(DatabaseError):
        asked.ask(world, alice)
    assert everything() == before


def test_nobody_without_a_role_gets_it(asked: Asked, world: World, charlie: User, alice: User) -> None:
    """Nor an administrator who was disabled, nor somebody at a machine, whatever name it gives them."""
    before = everything()
    disabled = copy.copy(alice)
    disabled.is_active = False
    for actor in (charlie, disabled, AtMachine(alice.username)):
        with pytest.raises(PermissionDenied):
            asked.ask(world, actor)
    assert everything() == before
    asked.ask(world, SYSTEM)
    assert everything() != before


def test_an_operator_gets_it_inside_staging_alone(asked: Asked, world: World, worlds: Worlds, bob: User) -> None:
    other = worlds["production"]
    before = everything()
    if asked.who != "operator":
        with pytest.raises(PermissionDenied):
            asked.ask(other, bob)
    if asked.who == "admin":
        with pytest.raises(PermissionDenied):
            asked.ask(world, bob)
    assert everything() == before
    if asked.who != "admin":
        asked.ask(world, bob)
        assert Event.objects.latest("pk").actor_label == "bob"
