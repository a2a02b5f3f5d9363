"""Tombstones for servers that never held the key: handed over until the disk there has them."""

import datetime as dt

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, ServerStatus
from peers.models import Tombstone
from peers.revocation import revoke_key
from tests.build import new_public_key
from tests.fleet_in_lab import console
from tests.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]

FULL = """
cp -a /var/lib/muster /tmp/kept && mount -t tmpfs -o size=64k tmpfs /var/lib/muster && cp -a /tmp/kept/. /var/lib/muster
dd if=/dev/zero of=/var/lib/muster/fill 2>/dev/null || true
"""


def cursor() -> int:
    return ServerStatus.objects.get().tombstone_cursor


def test_a_tombstone_that_a_full_disk_did_not_take_is_handed_over_again(lab: Lab, staging: Environment) -> None:
    """D21."""
    with console(lab) as its:
        machine = lab.add_server()
        its.enrol(its.add(machine, staging, 1), machine)
        machine.shell(FULL)
        key = new_public_key()
        revoke_key(actor=SYSTEM, public_key=key, reason="lost")
        Tombstone.objects.update(created_at=timezone.now() - dt.timedelta(hours=1))
        its.poll()
        assert cursor() == 0
        machine.shell("rm /var/lib/muster/fill")
        its.poll()
        assert (cursor(), key in machine.read("/var/lib/muster/tombstones")) == (Tombstone.objects.get().pk, True)
