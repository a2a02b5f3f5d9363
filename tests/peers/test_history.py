"""Who had access at any time: what is said later of a moment is what held in it."""

import datetime as dt

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.models import Environment
from tests.peers.past import ACTS, HOUR, WEDNESDAY, Moment, World, clock_at, said_of, seen_now

pytestmark = pytest.mark.django_db
steps = st.lists(
    st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 7), st.integers(0, 7)), min_size=12, max_size=24
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=steps)
def test_what_is_said_of_a_moment_is_what_held_in_it(
    staging: Environment, production: Environment, acts: list[tuple[str, int, int]]
) -> None:
    moments: dict[dt.datetime, Moment] = {}
    with transaction.atomic(), clock_at(WEDNESDAY) as turn:
        world = World(staging, production)
        for number, (name, one, other) in enumerate(acts, 1):
            turn(WEDNESDAY + HOUR * number)
            world.do(name, one, other)
            after = WEDNESDAY + HOUR * number + HOUR / 2
            turn(after)
            moments[after] = seen_now()
        turn(WEDNESDAY + HOUR * 40)
        for at, seen in moments.items():
            assert said_of(at) == seen
        transaction.set_rollback(True)
