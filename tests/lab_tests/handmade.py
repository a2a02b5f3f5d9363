"""A server and a client joined by hand, for tests of the lab itself."""

from tests.lab.machines import Client, Server
from tests.lab.tunnels import KeyPair, new_keypair

FORWARD = "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n"
NFTABLES = """\
table inet nat {
  chain postrouting { type nat hook postrouting priority srcnat; oifname "lan*" masquerade; }
}
"""


def serve(server: Server, clients: list[KeyPair], number: int = 1) -> KeyPair:
    """Set up wg0 on a server (10.NUMBER.0.1, fd00:NUMBER::1) for clients .2 on, and start it."""
    keys = new_keypair()
    lines = ["[Interface]", f"Address = 10.{number}.0.1/24, fd00:{number}::1/64", "ListenPort = 51820"]
    lines.append(f"PrivateKey = {keys.private_key}")
    for i, client in enumerate(clients, 2):
        lines += ["[Peer]", f"PublicKey = {client.public_key}"]
        lines += [f"AllowedIPs = 10.{number}.0.{i}/32, fd00:{number}::{i}/128"]
    server.put("/etc/wireguard/wg0.conf", "\n".join(lines) + "\n", 0o600)
    server.run(["systemctl", "enable", "--now", "wg-quick@wg0"])
    return keys


def client_conf(server: Server, server_key: str, keys: KeyPair, allowed: str, number: int = 1, i: int = 2) -> str:
    """A stock client config."""
    return (
        f"[Interface]\nPrivateKey = {keys.private_key}\n"
        f"Address = 10.{number}.0.{i}/32, fd00:{number}::{i}/128\n"
        f"DNS = 10.{number}.0.1\nMTU = 1380\n\n[Peer]\nPublicKey = {server_key}\nAllowedIPs = {allowed}\n"
        f"Endpoint = {server.address}:51820\nPersistentKeepalive = 25\n"
    )


def join(client: Client, server: Server, allowed: str = "10.1.0.0/24, fd00:1::/64", number: int = 1) -> None:
    """Make a tunnel between the two."""
    keys = new_keypair()
    server_keys = serve(server, [keys], number)
    conf = client_conf(server, server_keys.public_key, keys, allowed, number)
    client.connect(conf, f"wg{number - 1}")


def forward(server: Server) -> None:
    """Let a server forward both families and masquerade to its private networks, from a boot on."""
    server.put("/etc/sysctl.d/50-forward.conf", FORWARD)
    server.put("/etc/nftables.conf", NFTABLES)
    server.put("/etc/systemd/system/nftables.service", "[Service]\nType=oneshot\n")
    wants = "/etc/systemd/system/sysinit.target.wants"
    server.shell(f"mkdir -p {wants}; ln -s ../nftables.service {wants}/")
    server.reboot()
