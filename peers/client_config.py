"""A peer's tunnel file for the stock WireGuard client; pure. No name, note or label is ever in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from fleet.pools import holds

EVERYTHING = ("0.0.0.0/0", "::/0")
PASTE = "PASTE-THE-PRIVATE-KEY-OF-THIS-DEVICE-HERE"


@dataclass(frozen=True)
class ClientConfig:
    """What one tunnel file says. `private_key` is the client's own and unknown to the Console."""

    addresses: Sequence[str]
    dns: Sequence[str]
    mtu: int
    server_public_key: str
    endpoint: str
    allowed_ips: Sequence[str]
    preshared_key: str = field(repr=False)
    private_key: str = field(default=PASTE, repr=False)

    def text(self) -> str:
        interface = [("PrivateKey", self.private_key), ("Address", ", ".join(self.addresses))]
        if self.dns:
            interface.append(("DNS", ", ".join(self.dns)))
        interface.append(("MTU", str(self.mtu)))
        peer = [
            ("PublicKey", self.server_public_key),
            ("PresharedKey", self.preshared_key),
            ("Endpoint", self.endpoint),
            ("AllowedIPs", ", ".join(self.allowed_ips or EVERYTHING)),
            ("PersistentKeepalive", "25"),
        ]
        return _section("Interface", interface) + "\n" + _section("Peer", peer)


def without_own(networks: Sequence[str], own: Sequence[str]) -> list[str]:
    """What a site's peer reaches through its tunnel: what is granted, but for what lies behind itself."""
    mine = [ip_network(text) for text in own]
    return [text for text in networks if not any(holds(site, ip_network(text)) for site in mine)]


def _section(name: str, lines: list[tuple[str, str]]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in lines)
