"""Faults of a cable, seen by packets and by TCP."""

import socket
import time

import pytest

from tests.lab.commands import LabError
from tests.lab.faults import Mode
from tests.lab.lab import Lab
from tests.lab.machines import Server

PATIENCE = 15  # of whoever waits for sshd's banner on a busy machine
COUNT = """\
table inet count {
  chain input { type filter hook input priority 0; icmp type echo-request counter; }
}
"""


def ssh_answer(server: Server, timeout: float = 0.5) -> str:
    """What a TCP connection to sshd comes to: its banner, or the name of the error."""
    try:
        with socket.create_connection((server.address, server.ssh_port), timeout) as connection:
            return connection.recv(4).decode()
    except OSError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("mode", "pings", "ssh"),
    [
        ("drop", 0, "TimeoutError"),
        ("reject", 0, "ConnectionRefusedError"),
        ("ssh", 3, "TimeoutError"),
        ("oneway", 0, "TimeoutError"),
        ("link", 0, "TimeoutError"),
    ],
)
def test_a_partition_cuts_off_what_its_mode_says_until_it_is_healed(lab: Lab, mode: Mode, pings: int, ssh: str) -> None:
    server, other = lab.add_servers(2)
    client = lab.add_clients(1)[0]
    assert ssh_answer(server, PATIENCE) == "SSH-"
    server.partition(mode)
    assert (client.ping(server.address).received, ssh_answer(server)) == (pings, ssh)
    assert client.ping(server.address6).received == pings
    assert (client.ping(other.address).received, ssh_answer(other, PATIENCE)) == (3, "SSH-")
    server.heal()
    client.stream(server.address6).wait_for_reply()
    assert (client.ping(server.address).received, ssh_answer(server, PATIENCE)) == (3, "SSH-")


def test_a_partition_outlasts_a_reboot(lab: Lab) -> None:
    servers = lab.add_servers(3)
    client = lab.add_clients(1)[0]
    modes: list[Mode] = ["drop", "reject", "link"]
    for server, mode in zip(servers, modes, strict=True):
        server.partition(mode)
        server.reboot()
    assert [client.ping(server.address).received for server in servers] == [0, 0, 0]
    for server in servers:
        server.heal()
    assert [client.ping(server.address).received for server in servers] == [3, 3, 3]


def test_oneway_lets_what_the_server_is_sent_arrive(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    server.run(["nft", "-f", "-"], input=COUNT)
    server.partition("oneway")
    client.ping(server.address, count=5)
    assert "packets 5 " in server.shell("nft list table inet count")


@pytest.mark.parametrize("is_rebooted", [False, True])
def test_a_slow_cable_delays_both_ways_and_loses_nothing(lab: Lab, is_rebooted: bool) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    server.slow(40)
    if is_rebooted:
        server.reboot()
    stream = client.stream(server.address)
    began = stream.wait_for_reply()
    stream.wait_for_reply(after=began + 0.5)
    packets = [p for p in stream.packets() if p.received_at is not None and p.sent_at > began]
    assert min((p.received_at or 0) - p.sent_at for p in packets) >= 0.08
    assert stream.lost(since=began, until=time.monotonic() - 0.5) == 0
    server.heal()
    fast = client.stream(server.address)
    fast.wait_for_reply(after=fast.wait_for_reply() + 0.2)
    assert min((p.received_at or 9) - p.sent_at for p in fast.packets() if p.received_at) < 0.04


def test_a_fault_of_a_machine_behind_another_is_refused(lab: Lab) -> None:
    inner = lab.add_server("inner", behind=lab.add_bastion())
    with pytest.raises(LabError, match="inner hangs off another node"):
        inner.partition()
