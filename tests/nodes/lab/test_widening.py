"""A pool is widened under live tunnels: judged by packets."""

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.machines import Client, Host
from tests.lab.packets import Stream
from tests.lab.tunnels import new_keypair
from tests.nodes.lab.alone import GATEWAY, Alone, alone, peer
from tests.nodes.lab.scene import wait_until_sent
from tests.nodes.node.build import INTERFACE, Json

pytestmark = pytest.mark.lab

GATEWAY6 = "fd00:1::1"
SIZES = [(23, 63), (22, 62), (21, 60), (20, 56), (16, 48)]


def connected(node: Alone, client: Client, host: Host, ipv4: str, ipv6: str) -> Json:
    """The peer of a client, whose tunnel leads to the pool and to the host."""
    pair = new_keypair()
    text = node.tunnel_file(pair, ipv4).replace(f"{ipv4}/32", f"{ipv4}/32, {ipv6}/128")
    client.connect(text.replace("10.1.0.0/24", f"10.1.0.0/16, fd00:1::/48, {host.address}/32, {host.address6}/128"))
    return peer(pair, ipv4) | {"allowed_ips": [f"{ipv4}/32", f"{ipv6}/128"]}


def test_a_pool_is_widened_and_nobody_loses_a_packet(lab: Lab) -> None:
    """D4: five times; who has an address out of the new part reaches what is behind the server, after a boot too."""
    machine = lab.add_server()
    host, (ben, dora) = lab.add_host_behind(machine), lab.add_clients(2)
    node = alone(machine)
    machine.shell("systemctl start muster-node")
    peers = [connected(node, ben, host, "10.1.0.3", "fd00:1::3")]
    node.push(peers)
    his = [ben.stream(address, rate=100) for address in (GATEWAY, GATEWAY6, host.address, host.address6)]
    for stream in his:
        stream.wait_for_reply(15)
    began = time.monotonic()
    for ipv4, ipv6 in SIZES:
        node.push(peers, interface=wide(ipv4, ipv6))
        wait_until_sent(his, time.monotonic() + 0.3)
    peers.append(connected(node, dora, host, "10.1.99.9", "fd00:1:0:99::9"))
    node.push(peers, interface=wide(*SIZES[-1]))
    hers = [dora.stream(address, rate=50) for address in (GATEWAY, GATEWAY6, host.address, host.address6)]
    for stream in hers:
        stream.wait_for_reply(15)
    wait_until_sent(his, time.monotonic() + 1)
    assert lost(his, began) == [0, 0, 0, 0]
    assert node.journal() == []
    machine.reboot()
    booted = time.monotonic()
    for stream in (*his, *hers):
        stream.wait_for_reply(30, after=booted)
    assert node.drift() == []


def wide(ipv4: int, ipv6: int) -> Json:
    return INTERFACE | {"addresses": [f"{GATEWAY}/{ipv4}", f"{GATEWAY6}/{ipv6}"]}


def lost(streams: list[Stream], began: float) -> list[int]:
    return [stream.lost(since=began) for stream in streams]
