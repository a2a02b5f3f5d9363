"""Packets that a bystander loses when one peer is removed: by `wg set`, by syncconf, by wg-quick down and up."""

import argparse
from collections.abc import Callable

from tests.bench.measure import Figures
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.lab.tunnels import new_keypair

ROUNDS = 10
EXTRA = "lpPJ3P9m7fJo52pqAt66IXGWSAdPkNidDlToY3DdAmE="


def measure(_given: argparse.Namespace) -> Figures:
    """Packets lost by one client at 100 a second over ten removals (one of wg-quick) of another peer."""
    with Lab() as lab:
        server, client = lab.add_servers(1)[0], lab.add_clients(1)[0]
        ours, theirs = new_keypair(), new_keypair()
        server.bring_up(
            f"[Interface]\nAddress = 10.9.0.1/16\nListenPort = 51820\nPrivateKey = {ours.private_key}\n\n"
            f"[Peer]\nPublicKey = {theirs.public_key}\nAllowedIPs = 10.9.0.2/32\n"
        )
        client.connect(
            f"[Interface]\nAddress = 10.9.0.2/32\nPrivateKey = {theirs.private_key}\n\n[Peer]\n"
            f"PublicKey = {ours.public_key}\nEndpoint = {server.address}:51820\n"
            "AllowedIPs = 10.9.0.0/16\nPersistentKeepalive = 25\n"
        )
        client.wait_for_handshake("wg0", 10)

        def lost(job: Callable[[], object], rounds: int) -> float:
            stream = client.stream("10.9.0.1", rate=100)
            stream.wait_for_reply(10)
            for _ in range(rounds):
                server.run(["wg", "set", "wg0", "peer", EXTRA, "allowed-ips", "10.9.0.3/32"])
                job()
            stream.wait_for_reply(60, after=stream.packets()[-1].sent_at)
            stream.stop()
            return float(stream.result().lost)

        return {
            "lost_wg_set_remove": lost(lambda: remove(server), ROUNDS),
            "lost_syncconf": lost(lambda: server.run(["bash", "-c", "wg syncconf wg0 <(wg-quick strip wg0)"]), ROUNDS),
            "lost_wg_quick_down_up": lost(lambda: server.shell("wg-quick down wg0; wg-quick up wg0"), 1),
        }


def remove(server: Server) -> None:
    server.run(["wg", "set", "wg0", "peer", EXTRA, "remove"])


def show(figures: Figures, _given: argparse.Namespace) -> None:
    print(f"Packets that another client loses at 100 a second, {ROUNDS} removals (wg-quick: one)\n")
    for name, value in figures.items():
        print(f"  {name:32} {value:10.0f}")
