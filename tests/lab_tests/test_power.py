"""Power: what a boot brings back from disk, and what is lost with RAM."""

import pytest

from tests.lab.commands import LabError
from tests.lab.lab import Lab
from tests.lab_tests.handmade import forward, join

DROP_IN = "[Service]\nExecStartPre=/bin/sh -c 'echo before %i >/run/order'\nEnvironment=FROM_DROP_IN=yes\n"
KEEPER = "[Service]\nExecStart=/bin/sh -c 'echo run >>/run/runs; exit 1'\nRestart=on-failure\nRestartSec=0.05\n"


def test_a_reboot_keeps_the_disk_and_loses_what_ram_holds(lab: Lab) -> None:
    server = lab.add_server()
    server.put("/root/kept", "yes")
    server.put("/run/lost", "no")
    server.shell("nft add table inet lost; ip link add lost type dummy; sysctl -qw net.ipv4.ip_forward=1")
    server.reboot()
    assert server.read("/root/kept") == "yes"
    assert server.shell("ls /run/lost 2>/dev/null; nft list ruleset; ip -br link show type dummy; :") == ""
    assert server.read("/proc/sys/net/ipv4/ip_forward") == "0\n"


def test_a_machine_that_is_off_answers_nothing_and_can_be_read_on_disk(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    server.put("/etc/marker", "on disk")
    server.power_off()
    assert client.ping(server.address).received == 0
    assert (server.disk / "etc/marker").read_text() == "on disk"
    with pytest.raises(LabError, match="s1 is switched off"):
        server.run(["true"])
    server.power_on()
    assert client.ping(server.address).lost == 0


def test_a_boot_starts_enabled_tunnels_after_their_drop_ins(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    server.put("/etc/systemd/system/wg-quick@.service.d/50-order.conf", DROP_IN)
    join(client, server)
    assert client.ping("10.1.0.1").lost == 0
    server.shell("rm /run/order")
    server.reboot()
    assert server.read("/run/order") == "before wg0\n"
    stream = client.stream("10.1.0.1")
    stream.wait_for_reply(30)
    assert server.run(["systemctl", "is-active", "wg-quick@wg0"]).stdout == "active\n"
    assert server.boot_log().count("failed") == 0


def test_a_tunnel_whose_first_step_fails_does_not_start(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    join(client, server)
    server.put("/etc/systemd/system/wg-quick@wg0.service.d/50-no.conf", "[Service]\nExecStartPre=/bin/false\n")
    server.reboot()
    assert server.run(["wg", "show", "interfaces"]).stdout.strip() == ""
    assert "ExecStartPre=/bin/false" in server.boot_log()


def test_a_disabled_tunnel_stays_down_after_a_boot(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    join(client, server)
    server.run(["systemctl", "disable", "wg-quick@wg0"])
    server.reboot()
    assert server.run(["wg", "show", "interfaces"]).stdout.strip() == ""


def test_a_service_that_fails_is_started_again_and_stops_when_told(lab: Lab) -> None:
    server = lab.add_server()
    server.put("/etc/systemd/system/keeper.service", KEEPER)
    server.run(["systemctl", "enable", "--now", "keeper"])
    server.shell("while [ $(wc -l </run/runs) -lt 3 ]; do sleep 0.01; done")
    server.run(["systemctl", "stop", "keeper"])
    assert server.run(["systemctl", "is-active", "keeper"], check=False).stdout == "inactive\n"


def test_forwarding_and_firewall_of_the_disk_are_back_after_a_boot(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    host = lab.add_host_behind(server)
    join(client, server, "0.0.0.0/0, ::/0")
    assert client.ping(host.address).received == 0
    forward(server)
    client.stream("10.1.0.1").wait_for_reply(30)
    assert client.ping(host.address).lost == 0
    assert client.ping(host.address6).lost == 0


def test_a_server_with_a_host_behind_it_has_its_cable_again_after_a_reboot(lab: Lab) -> None:
    server = lab.add_server()
    host = lab.add_host_behind(server)
    for _ in range(3):
        server.reboot()
        server.stream(host.address).wait_for_reply(10)
