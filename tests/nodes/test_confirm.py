"""What a group of answers to a revoke writes, and in which order."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.services import SYSTEM
from fleet.models import Environment, ServerStatus
from nodes.faults import NodeRefused
from nodes.observe import NodeState, ReceiptSeen
from nodes.status import Confirmation, confirm, record_failure
from peers.models import Device, Peer
from peers.revocation import revoke_devices
from tests.build import make_peers, make_server


@pytest.mark.django_db
def test_the_status_is_written_before_the_peers_as_after_a_push(staging: Environment) -> None:
    """E7: in the other order a revoke and a push of one server lock each other out."""
    server = make_server(staging)
    make_peers(staging, 1)
    device = Device.objects.get()
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    record_failure(server.pk, reason="NodeSilent", message="no answer")
    receipt = ReceiptSeen(device.public_key, True, True, True, ())
    with CaptureQueriesContext(connection) as seen:
        assert confirm([Confirmation(server.pk, NodeState(1, 2, "", ""), [receipt])]) == 1
    written = [query["sql"].split('"')[1] for query in seen if query["sql"].startswith("UPDATE")]
    assert written == ["fleet_serverstatus", "peers_receipt", "peers_peer"]
    assert (ServerStatus.objects.get().failures, Peer.objects.get().gone_at is None) == (0, False)


def test_a_refusal_in_half_characters_can_be_stored() -> None:
    """E15."""
    error = NodeRefused("198.51.100.1 port 22", "kernel", "wg \ud800failed\x00", {})
    assert error.message.encode() == b"wg failed"
