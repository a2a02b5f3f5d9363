"""No receipt while the key is still somewhere on the server, and one without anybody's act once it is gone."""

import pytest

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment
from peers.models import Device, Receipt
from peers.revocation import revoke_devices
from tests.fleet_in_lab import console
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.nodes.lab.acts import enrolled, held_keys, joined

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]
HOOK = "#!/bin/sh\n# wg set wg0 peer KEY allowed-ips 10.1.0.2/32\n"


def in_conf(machine: Server, key: str) -> str:
    conf = machine.read("/etc/wireguard/wg0.conf")
    machine.put("/etc/wireguard/wg0.conf", f"{conf}\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.1.0.2/32\n", 0o600)
    return "/etc/wireguard/wg0.conf"


def in_hook(machine: Server, key: str) -> str:
    conf = machine.read("/etc/wireguard/wg0.conf")
    machine.put("/etc/wireguard/wg0.conf", f"{conf}PostUp = /usr/local/bin/later.sh\n", 0o600)
    machine.put("/usr/local/bin/later.sh", HOOK.replace("KEY", key), 0o755)
    return "/usr/local/bin/later.sh"


def in_unit(machine: Server, key: str) -> str:
    unit = f"[Service]\nExecStart=/usr/bin/wg set wg0 peer {key} allowed-ips 10.1.0.2/32\n"
    machine.put("/etc/systemd/system/second.service", unit)
    return "/etc/systemd/system/second.service"


def in_second_interface(machine: Server, key: str) -> str:
    machine.put("/etc/wireguard/wg7.conf", f"[Interface]\n[Peer]\nPublicKey = {key}\nAllowedIPs = ::/0\n", 0o600)
    return "/etc/wireguard/wg7.conf"


def take_out(machine: Server, path: str, key: str) -> None:
    machine.run(["sed", "-i", f"\\#{key}#d", path])


def receipt_of(device: Device) -> Receipt:
    return Receipt.objects.get(public_key=device.public_key)


@pytest.mark.parametrize("hide", [in_conf, in_hook, in_unit, in_second_interface])
def test_a_key_that_is_left_on_the_disk_gets_no_receipt_until_it_is_gone(
    lab: Lab, staging: Environment, hide: object
) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        client, device, _ = joined(muster, lab, row)
        path = hide(machine, device.public_key)  # type: ignore[operator]
        revoke_devices(actor=SYSTEM, devices=[device], reason="left")
        muster.push()
        receipt = receipt_of(device)
        assert (receipt.confirmed_at, receipt.is_gone_from_kernel, receipt.is_gone_from_disk) == (None, True, False)
        assert receipt.found == [path]
        assert device.public_key not in held_keys(machine)
        assert client.ping("10.1.0.1").received == 0
        take_out(machine, path, device.public_key)
        muster.push()
        receipt = receipt_of(device)
        assert receipt.confirmed_at is not None
        assert (receipt.is_gone_from_disk, receipt.is_durable, receipt.found) == (True, True, [])
    assert Event.objects.filter(verb="revocation.confirmed").count() == 1


def test_a_key_on_another_interface_of_the_machine_is_taken_out_there_too(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        _, device, _ = joined(muster, lab, row)
        machine.shell(
            "(ip link add wg7 type wireguard || wireguard-go wg7) >/dev/null 2>&1 && ip link set wg7 up && "
            f"wg set wg7 peer {device.public_key} allowed-ips 10.9.0.2/32"
        )
        assert held_keys(machine, "wg7") == {device.public_key}
        revoke_devices(actor=SYSTEM, devices=[device], reason="left")
        muster.push()
        assert held_keys(machine, "wg7") == set()
        assert receipt_of(device).confirmed_at is not None
