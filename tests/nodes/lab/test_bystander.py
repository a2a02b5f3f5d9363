"""What others do must not be felt: no packet lost, no handshake renewed, no counter reset."""

import time
from itertools import pairwise

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from peers.granting import end_grants
from peers.models import Grant
from peers.revocation import revoke_devices
from tests.build import make_grant, make_person
from tests.lab.lab import Lab
from tests.nodes.lab.scene import Scene, contractor

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def test_another_client_loses_no_packet_over_issue_revoke_and_withdraw(
    lab: Lab, fleet: Scene, staging: Environment, production: Environment
) -> None:
    """D2, D16: judged at 100 packets a second through each of three servers."""
    others, mine = lab.add_clients(2)
    dave = fleet.join(contractor(staging, production, name="Dave"), mine)
    handshakes, traffic = fleet.handshakes(dave), [fleet.traffic(dave)]
    links = [machine.shell("ip -o link show wg0; wg show wg0 listen-port") for machine in fleet.machines]
    began = time.monotonic()
    carol = fleet.join(contractor(staging, production), others)
    traffic.append(fleet.traffic(dave))
    erin = make_person("Erin")
    grant: Grant = make_grant(erin, staging)
    withdrawn = fleet.issue(erin, others, "phone")
    fleet.console.push()
    traffic.append(fleet.traffic(dave))
    revoke_devices(actor=SYSTEM, devices=[carol.device], reason="contract ended")
    fleet.console.push()
    traffic.append(fleet.traffic(dave))
    end_grants(actor=SYSTEM, grants=[grant], reason="moved on")
    fleet.console.push()
    traffic.append(fleet.traffic(dave))
    assert dave.lost(began, time.monotonic()) == [0, 0, 0]
    assert fleet.handshakes(dave) == handshakes
    assert [machine.shell("ip -o link show wg0; wg show wg0 listen-port") for machine in fleet.machines] == links
    steps = [(new > old) for a, b in pairwise(traffic) for old, new in zip(a, b, strict=True)]
    assert steps == [True] * 12
    assert carol.is_shut_out(time.monotonic()) == [True, True, True]
    gone = [fleet.is_in_kernel(seat.pair.public_key) for seat in (carol, withdrawn)]
    assert gone == [[False] * 3, [False] * 3]
