"""A key is revoked while the server that is to hold it is being set up: no push lets it in, no receipt is missing."""

from functools import partial

import pytest

from audit.services import SYSTEM
from fleet.models import Environment, Server
from nodes.bootstrap import InstallResult
from nodes.desired import desired_state, keys_to_kill
from nodes.enrol import _accept
from nodes.models import Enrolment
from nodes.targets import new_key_for
from nodes.tombstones import due_tombstones
from peers.models import Device, Receipt
from peers.revocation import revoke_devices
from tests.acts import HOST_KEY
from tests.build import make_device, make_grant, make_person, make_server, new_public_key
from tests.peers.racing import Act, overtake

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn-new", is_set_up=False)


@pytest.fixture
def device(server: Server) -> Device:
    person = make_person()
    make_grant(person, server.environment)
    return make_device(person)


def setting_up(server: Server) -> Act:
    """The machine has answered; the row becomes an enrolled one, as a worker does it."""
    row = Enrolment.objects.create(server=server, confirmed_host_key=HOST_KEY, requested_by="alice")
    row = Enrolment.objects.select_related("server__environment").get(pk=row.pk)
    result = InstallResult(HOST_KEY, {"public_key": new_public_key()})
    return partial(_accept, row, result, new_key_for(server))


def first_push(server: Server) -> tuple[set[str], list[str], list[str]]:
    """Peers, tombstones and keys to revoke, as the first session with the machine hands them over."""
    dead = [one["public_key"] for one in due_tombstones(server.pk).keys]
    kills = [one["public_key"] for one in keys_to_kill().get(server.pk, [])]
    return set(desired_state(server.pk).content.peers), dead, kills


def test_a_server_that_is_set_up_first_is_asked(server: Server, device: Device) -> None:
    """D18: a push of it may be under way with the key, so its receipt is waited for."""
    revoking = partial(revoke_devices, actor=SYSTEM, devices=[device], reason="lost")
    assert overtake(setting_up(server), revoking) == [None, None]
    assert Receipt.objects.get().is_needless is False
    assert first_push(server) == (set(), [device.public_key], [device.public_key])


def test_a_server_that_is_set_up_after_a_revocation_never_gets_the_key(server: Server, device: Device) -> None:
    """D18: what is pushed there is read after that, and the tombstone goes with it."""
    bystander = make_device(device.person, "phone")
    revoking = partial(revoke_devices, actor=SYSTEM, devices=[device], reason="lost")
    assert overtake(revoking, setting_up(server)) == [None, None]
    assert Receipt.objects.get().is_needless is True
    assert first_push(server) == ({bystander.public_key}, [device.public_key], [])
    assert Server.objects.get().enrolled_at is not None
