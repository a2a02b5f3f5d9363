"""What a server once confirmed is remembered by itself: neither drift nor an open session wears it away."""

import pytest

from audit.models import Event
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, ServerStatus
from nodes.desired import desired_state
from nodes.observe import DriftSeen, NodeState
from nodes.status import record_applied, record_observation
from tests.build import make_server

pytestmark = pytest.mark.django_db


def at(generation: int) -> NodeState:
    return NodeState(epoch=1, generation=generation, digest="0" * 64, pushed_digest="0" * 64, journal=0)


def test_a_server_that_drifts_for_an_hour_is_still_known_as_set_back(staging: Environment) -> None:
    """F19."""
    server = make_server(staging)
    type(server).objects.filter(pk=server.pk).update(epoch=1, generation=100)
    record_applied(desired_state(server.pk), at(100), [], [])
    ServerStatus.objects.update(tombstone_cursor=77)
    drift = [DriftSeen("", "interface", "down")]
    for _ in range(60):
        record_observation(server.pk, at(100), [], drift, "1.0.0")
    assert not Event.objects.filter(verb="server.set_back").exists()
    record_observation(server.pk, at(50), [], drift, "1.0.0")
    status = ServerStatus.objects.get()
    found = conditions.read(status.conditions, Type.INTACT)
    assert found is not None and (found.status, found.reason) == (False, "SetBack")
    assert status.tombstone_cursor == 0
    assert Event.objects.filter(verb="server.set_back").count() == 1
