"""A lab for each test, and the Console's real processes beside a small fleet in it."""

from collections.abc import Iterator

import pytest

from fleet.models import Environment, User
from tests.lab.fixtures import lab
from tests.lab.lab import Lab
from tests.nodes.lab.parts import Parts, parts
from tests.nodes.lab.scene import Scene, Seat, contractor, scene

__all__ = ["lab"]


@pytest.fixture
def fleet(lab: Lab, staging: Environment, production: Environment) -> Iterator[Scene]:
    """Two servers in staging, one in production; pushed and polled by the test itself."""
    with scene(lab, [staging, staging, production]) as found:
        yield found


@pytest.fixture
def carol(lab: Lab, fleet: Scene, staging: Environment) -> Seat:
    """Let in everywhere, sending packets."""
    return fleet.join(contractor(staging), lab.add_clients(1)[0])


@pytest.fixture
def ben(lab: Lab, fleet: Scene, staging: Environment) -> Seat:
    """The bystander, likewise."""
    return fleet.join(contractor(staging, name="Ben"), lab.add_clients(1)[0])


@pytest.fixture
def console(alice: User, fleet: Scene) -> Iterator[Parts]:
    """Web, worker, beat and broker of that fleet, all running."""
    with parts(alice) as found:
        found.start()
        yield found
