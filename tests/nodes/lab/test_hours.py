"""Access windows from the grant to the packet: hours in the environment's zone, kept by the node."""

import datetime as dt
import time
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment
from fleet.services import change_environment
from peers.due import settle_due
from peers.granting import end_grants, grant_access
from peers.models import Grant, Peer
from peers.windows import DAYS
from tests.build import make_person
from tests.lab.lab import Lab
from tests.nodes.lab.scene import contractor, scene
from tests.nodes.lab.test_lifecycle import shut_out

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def window(zone: str, begins: float, ends: float) -> str:
    """The hours, counted from now, as they are written for that zone."""
    now = timezone.now().astimezone(ZoneInfo(zone))
    begin, end = now + dt.timedelta(hours=begins), now + dt.timedelta(hours=ends)
    return f"{DAYS[begin.weekday()]} {begin:%H:%M}-{end:%H:%M}"


def test_a_tunnel_passes_packets_inside_its_hours_alone(lab: Lab, staging: Environment) -> None:
    """Hours of Kathmandu, then of UTC, five hours and three quarters away; a bystander loses nothing."""
    zone = "Asia/Kathmandu"
    change_environment(actor=SYSTEM, environment=staging, time_zone=zone, reason="where they work")
    with scene(lab, [staging, staging]) as fleet:
        ben = fleet.join(contractor(staging, name="Ben"), lab.add_clients(1)[0])
        began = time.monotonic()
        carol = make_person("Carol")
        grant_access(actor=SYSTEM, person=carol, environment=staging, hours=window(zone, -2, 2), reason="shift")
        seat = fleet.join(carol, lab.add_clients(1)[0])
        change_environment(actor=SYSTEM, environment=staging, time_zone="UTC", reason="moved")
        settle_due()
        assert shut_out(fleet, seat) == [True, True]
        late = window("UTC", 2, 4)
        grant_access(actor=SYSTEM, person=carol, server=fleet.rows[0], hours=late, reason="not yet")
        assert shut_out(fleet, seat) == [True, True]
        grant_access(actor=SYSTEM, person=carol, server=fleet.rows[0], hours=window("UTC", -2, 2), reason="now")
        assert shut_out(fleet, seat) == [False, True]
        end_grants(actor=SYSTEM, grants=[Grant.objects.latest("pk")], reason="over")
        assert shut_out(fleet, seat) == [True, True]
        assert Peer.objects.filter(device=seat.device, ended_at=None).count() == 2
        assert ben.lost(began, time.monotonic()) == [0, 0]
