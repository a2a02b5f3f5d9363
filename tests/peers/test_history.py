"""Who had access at any time: what is said later of a moment is what held in it."""

import datetime as dt

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.services import change_environment
from peers.history_rows import State
from tests.peers.past import ACTS, HOUR, WEDNESDAY, Moment, World, clock_at, said_of, seen_now

NOW_ALONE = {State.ISSUED, State.SUSPENDING, State.LETTING_IN, State.SHUT}
pytestmark = pytest.mark.django_db
Act = tuple[str, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 7), st.integers(0, 7)), min_size=5, max_size=12
)
STORY: list[Act] = [
    *(("give", 4, 0), ("register", 1, 0), ("give", 3, 5), ("join", 1, 1), ("shut_out", 0, 0), ("let_in", 0, 0)),
    *(("move", 0, 1), ("see_gone", 2, 0), ("build", 0, 0), ("sweep", 0, 0), ("give", 7, 2), ("revoke", 0, 0)),
    *(("see_gone", 0, 0), ("go", 0, 0), ("give", 1, 4), ("sweep", 0, 0), ("end", 0, 0), ("leave", 0, 0)),
]


def lived(world: World, acts: list[Act], moments: dict[dt.datetime, Moment]) -> None:
    """An act an hour, and half an hour after it what holds then; at last what is said of each of these moments."""
    for number, (name, one, other) in enumerate(acts, 1):
        world.turn(WEDNESDAY + HOUR * number)
        world.do(name, one, other)
        after = WEDNESDAY + HOUR * number + HOUR / 2
        world.turn(after)
        moments[after] = seen_now()
    world.turn(WEDNESDAY + HOUR * 40)
    for at, seen in moments.items():
        assert said_of(at) == seen, (at, acts)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=steps)
def test_what_is_said_of_a_moment_is_what_held_in_it(
    staging: Environment, production: Environment, acts: list[Act]
) -> None:
    with transaction.atomic(), clock_at(WEDNESDAY) as turn:
        lived(World(staging, production, turn), acts, {})
        transaction.set_rollback(True)


def test_a_story_with_every_state_is_told_as_it_was(staging: Environment, production: Environment) -> None:
    moments: dict[dt.datetime, Moment] = {}
    with clock_at(WEDNESDAY) as turn:
        lived(World(staging, production, turn), STORY, moments)
    told = {said if isinstance(said, str) else said[0] for moment in moments.values() for said in moment.values()}
    assert told == set(State) - NOW_ALONE - {State.NOT_SET_UP}  # all servers of the story are set up


def test_hours_are_read_in_the_zone_that_the_environment_had(staging: Environment, production: Environment) -> None:
    """From eight to six in Tokyo begins before midnight in UTC."""
    with clock_at(WEDNESDAY) as turn:
        world = World(staging, production, turn)
        world.do("give", 4, 4)
        seen = seen_now()
        turn(WEDNESDAY + HOUR)
        change_environment(actor=SYSTEM, environment=staging, reason="they moved", time_zone="Asia/Tokyo")
        turn(WEDNESDAY + HOUR * 2)
        assert {state for state, *_ in seen.values()} == {State.OUTSIDE}
        assert said_of(WEDNESDAY) == seen
        assert {state for state, *_ in said_of(WEDNESDAY + HOUR * 2).values()} == {State.HAS}
