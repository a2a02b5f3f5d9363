"""Packets: tunnels, pings and streams tell what is true, in both families."""

import time

import pytest

from tests.lab.commands import LabError
from tests.lab.lab import Lab
from tests.lab.packets import PingResult, realtime
from tests.lab.tunnels import new_keypair
from tests.lab_tests.handmade import client_conf, forward, join, serve


def test_a_client_reaches_a_server_through_its_tunnel_in_both_families(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    join(client, server)
    assert client.ping("10.1.0.1") == PingResult(sent=3, received=3)
    assert client.ping("fd00:1::1") == PingResult(sent=3, received=3)
    assert abs(client.wait_for_handshake() - time.time()) < 5
    assert "mtu 1380" in client.shell("ip link show wg0")


def test_a_client_that_never_shook_hands_says_so(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    nobody = new_keypair()
    client.connect(client_conf(server, nobody.public_key, new_keypair(), "10.1.0.0/24"))
    assert client.ping("10.1.0.1") == PingResult(sent=3, received=0)
    assert client.latest_handshake() is None


def test_a_disconnected_client_gets_nothing_through_and_can_connect_again(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    keys = new_keypair()
    conf = client_conf(server, serve(server, [keys]).public_key, keys, "10.1.0.0/24")
    client.connect(conf)
    assert client.ping("10.1.0.1").lost == 0
    client.disconnect()
    assert client.ping("10.1.0.1").received == 0
    client.connect(conf)
    assert client.ping("10.1.0.1").lost == 0


def test_a_client_can_hold_two_full_tunnels_and_ping_through_either(lab: Lab) -> None:
    first, second = lab.add_servers(2)
    client = lab.add_clients(1)[0]
    join(client, first, "0.0.0.0/0, ::/0", number=1)
    join(client, second, "0.0.0.0/0, ::/0", number=2)
    assert client.ping("10.1.0.1", interface="wg0").lost == 0
    assert client.ping("10.2.0.1", interface="wg1").lost == 0
    assert client.ping("fd00:2::1", interface="wg1").lost == 0
    assert client.ping("10.2.0.1", interface="wg0").received == 0


def test_a_host_behind_a_server_is_reached_by_masquerade_or_by_a_return_route_only(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    host = lab.add_host_behind(server)
    routed = lab.add_host_behind(server, return_route=True)
    join(client, server, "0.0.0.0/0, ::/0")
    server.shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    client.ping("10.1.0.1")
    assert (client.ping(host.address).received, client.ping(host.address6).received) == (0, 0)
    assert (client.ping(routed.address).lost, client.ping(routed.address6).lost) == (0, 0)
    forward(server)
    client.stream("10.1.0.1").wait_for_reply(30)
    assert (client.ping(host.address).lost, client.ping(host.address6).lost) == (0, 0)


@pytest.mark.alone
@pytest.mark.parametrize("family", ["address", "address6"])
def test_a_stream_knows_when_the_last_packet_came_through(lab: Lab, family: str) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    stream = client.stream(getattr(server, family))
    first = stream.wait_for_reply()
    before = time.monotonic()
    stream.wait_for_reply(after=before)
    cut = time.monotonic()
    server.partition("drop")
    done = time.monotonic()
    client.ping(server.address, count=1)
    last = stream.last_reply_at()
    assert last is not None
    assert cut - 0.2 <= last <= done + 0.1
    assert stream.lost(until=cut - 0.2) == 0
    assert stream.lost(since=done, until=time.monotonic()) > 0
    assert abs(realtime(first) - (time.time() - (time.monotonic() - first))) < 0.01


@pytest.mark.alone
def test_a_stream_keeps_its_rate(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    stream = client.stream(server.address, rate=100)
    began = stream.wait_for_reply()
    stream.wait_for_reply(after=began + 1)
    sent = [p for p in stream.packets() if began < p.sent_at <= began + 1]
    assert 95 <= len(sent) <= 105


def test_a_stopped_stream_sends_no_more_and_stays_readable(lab: Lab) -> None:
    server, client = lab.add_server(), lab.add_clients(1)[0]
    stream = client.stream(server.address)
    stream.wait_for_reply()
    stream.stop()
    packets = stream.packets()
    client.ping(server.address)
    assert stream.packets() == packets
    assert client.shell("pgrep -c python3; :") == "0\n"


def test_a_stream_that_cannot_start_says_why(lab: Lab) -> None:
    client = lab.add_clients(1)[0]
    with pytest.raises(LabError, match="No such device"):
        client.stream("198.18.0.1", interface="nosuch0")
