"""What lies behind a server is reached through it, in both families, and only where that is wanted."""

import pytest

from audit.services import SYSTEM
from fleet.models import Environment
from peers.granting import grant_access
from tests.build import make_person
from tests.fleet_in_lab import connect, console, register, tunnel_file
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled, joined

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    ("forward", "return_route", "is_reached"),
    [
        ("masquerade", False, True),
        ("routed", True, True),
        ("routed", False, False),
        ("none", True, False),
    ],
)
def test_a_host_behind_a_server_is_reached_as_its_forwarding_says(
    lab: Lab, staging: Environment, forward: str, return_route: bool, is_reached: bool
) -> None:
    machine = lab.add_server()
    host = lab.add_host_behind(machine, return_route=return_route)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging, forward=forward)
        client, _, _ = joined(muster, lab, row)
        assert [client.ping(own).lost for own in ("10.1.0.1", "fd00:1::1")] == [0, 0]
        results = [client.ping(address) for address in (host.address, host.address6)]
        assert [result.received > 0 for result in results] == [is_reached, is_reached]
        assert [result.lost == 0 for result in results] == [is_reached, is_reached]


def test_forwarding_outlives_a_reboot(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    host = lab.add_host_behind(machine)
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        client, _, _ = joined(muster, lab, row)
        machine.reboot()
        for address in (host.address, host.address6):
            client.stream(address).wait_for_reply(30)


def test_a_split_tunnel_carries_the_grants_networks_and_nothing_else(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    granted, other = lab.add_host_behind(machine), lab.add_host_behind(machine)
    networks = [f"{granted.address}/32", f"{granted.address6}/128"]
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        person = make_person("Carol")
        grant_access(actor=SYSTEM, person=person, server=row, reason="one machine", networks=networks)
        device, pair = register(person)
        muster.push()
        client = lab.add_clients(1)[0]
        connect(client, device, row, pair)
        assert f"AllowedIPs = {networks[0]}, {networks[1]}\n" in tunnel_file(device, row, pair)
        assert [client.ping(address).lost for address in (granted.address, granted.address6)] == [0, 0]
        assert [client.ping(address).received for address in (other.address, other.address6)] == [0, 0]


def test_two_clients_of_one_server_reach_each_other_only_where_it_forwards(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging, forward="none")
        first, _, _ = joined(muster, lab, row, "Ann")
        joined(muster, lab, row, "Ben")
        assert [first.ping(address).received for address in ("10.1.0.3", "fd00:1::3")] == [0, 0]
