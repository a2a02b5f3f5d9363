"""Three enrolled servers, two in staging and one in production, on real WireGuard."""

from collections.abc import Iterator

import pytest

from fleet.models import Environment
from nodes.models import Enrolment
from tests.fleet_in_lab import Console, console
from tests.lab.fixtures import lab

__all__ = ["lab"]
