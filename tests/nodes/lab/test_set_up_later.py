"""A server that is set up after a revocation of a key that it was to hold, judged by packets."""

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from peers.due import settle_placements
from peers.models import Peer, Receipt
from peers.revocation import revoke_devices
from tests.fleet_in_lab import client_file, console, register
from tests.lab.lab import Lab
from tests.nodes.lab.scene import contractor

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_a_key_that_was_revoked_before_its_server_was_set_up_never_passes_there(lab: Lab, staging: Environment) -> None:
    """D18: nothing was waited for from it, and its tombstones came with the first push."""
    with console(lab) as its:
        machine = lab.add_server()
        row = its.add(machine, staging, 1)
        settle_placements()
        seats = [register(contractor(staging, name=name)) for name in ("Carol", "Ben")]
        revoke_devices(actor=SYSTEM, devices=[seats[0][0]], reason="lost")
        assert Receipt.objects.get().is_needless
        assert its.enrol(row, machine).state == "done"
        its.push()
        assert machine.shell("wg show wg0 peers").split() == [seats[1][1].public_key]
        lost = []
        for client, (device, pair) in zip(lab.add_clients(2), seats, strict=True):
            client.connect(client_file(Peer.objects.select_related("server").get(device=device), pair))
            lost.append(client.ping("10.1.0.1").lost)
        assert lost == [3, 0]
        held = machine.shell("muster-node observe wg0")
        assert ('"tombstones":1' in held, '"peers":1' in held) == (True, True)
        assert Receipt.objects.get().is_needless
