"""Orders of acts that the model found to go wrong once."""

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from peers.models import Device, Peer, Suspension
from peers.services import register_device
from peers.suspending import Target, suspend
from tests.build import make_device, make_grant, make_person, make_server, new_public_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def old(staging: Environment) -> Device:
    make_server(staging)
    person = make_person()
    make_grant(person, staging)
    return make_device(person)


@pytest.mark.parametrize("kind", [Device, Peer])
def test_a_key_is_suspended_although_the_one_that_waits_for_its_place_is_already(old: Device, kind: type) -> None:
    new = register_device(actor=SYSTEM, person=old.person, name="new", public_key=new_public_key(), replaces=old)
    targets: list[Target] = [
        one if kind is Device else Peer.objects.get(device=one, ended_at=None) for one in (new, old)
    ]
    for target in targets:
        suspend(actor=SYSTEM, targets=[target], reason="stolen")
    assert {one.target for one in Suspension.objects.filter(ended_at=None)} == set(targets)
