"""WireGuard by hand: key pairs, stock config files, and a tunnel brought up from one as wg-quick does."""

import random
from base64 import b64encode
from dataclasses import dataclass

from tests.lab.commands import run

QUICK_ONLY = {"address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown", "saveconfig"}


@dataclass(frozen=True)
class KeyPair:
    """A WireGuard key pair, both in base64."""

    private_key: str
    public_key: str


def new_keypair() -> KeyPair:
    """Make a key pair with wg(8)."""
    private_key = run(["wg", "genkey"]).stdout.strip()
    return KeyPair(private_key, run(["wg", "pubkey"], input=private_key + "\n").stdout.strip())


def dummy_public_keys(count: int, seed: int) -> list[str]:
    """`count` keys that nobody holds, the same ones for the same seed."""
    source = random.Random(seed)  # noqa: S311
    return [
        b64encode(bytes([source.randrange(2, 255) & 254 | 2, *source.randbytes(30), 64])).decode() for _ in range(count)
    ]


def provisioned_conf(number: int, peers: int) -> str:
    """A hand-made server config: 10.NUMBER.0.1/16 and dummy peers from 10.NUMBER.128.0 on."""
    octet = number % 256
    lines = ["[Interface]", f"Address = 10.{octet}.0.1/16", "ListenPort = 51820"]
    lines.append(f"PrivateKey = {new_keypair().private_key}")
    for i, public_key in enumerate(dummy_public_keys(peers, seed=1000 + number)):
        address = f"10.{octet}.{128 + i // 250}.{i % 250 + 1}"
        lines += ["", "[Peer]", f"# dummy-{i}", f"PublicKey = {public_key}", f"AllowedIPs = {address}/32"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Conf:
    """A config file taken apart: what wg(8) reads, and what wg-quick(8) adds."""

    stripped: str
    addresses: list[str]
    mtu: int
    allowed_ips: list[str]


def parse_conf(text: str) -> Conf:
    """Take a stock client config apart."""
    values: dict[str, list[str]] = {}
    kept = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        name = key.strip().lower()
        values.setdefault(name, []).extend(v.strip() for v in value.split(",") if v.strip())
        if name not in QUICK_ONLY:
            kept.append(line)
    return Conf(
        "\n".join(kept) + "\n",
        values.get("address", []),
        int(values.get("mtu", ["1420"])[0]),
        values.get("allowedips", []),
    )


def up_script(conf: Conf, interface: str, *, routes: bool) -> str:
    """A shell script that brings the tunnel up; /run/INTERFACE.conf holds what wg(8) reads."""
    lines = [f"addr add {address} dev {interface}" for address in conf.addresses]
    lines.append(f"link set mtu {conf.mtu} up dev {interface}")
    if routes:
        lines += [_route(network, interface) for network in dict.fromkeys(conf.allowed_ips)]
    return "\n".join(
        [
            "set -e; umask 077; mkdir -p /run/wireguard",
            f"ip link add {interface} type wireguard 2>/dev/null ||",
            f"  LOG_LEVEL=error wireguard-go {interface} >/run/{interface}.log 2>&1",
            f"wg setconf {interface} /run/{interface}.conf",
            "ip -batch - <<'END'",
            *lines,
            "END",
        ]
    )


def _route(network: str, interface: str) -> str:
    """Several tunnels may have the same route: the lowest number wins."""
    metric = 100 + int("".join(filter(str.isdigit, interface)) or 0)
    return f"route add {network} dev {interface} metric {metric}"


def down_script(interface: str) -> str:
    """A shell script that takes the tunnel away and ends when it is gone; wireguard-go ends by itself."""
    gone = f"while ip link show {interface} >/dev/null 2>&1; do sleep 0.01; done"
    return f"ip link del {interface} 2>/dev/null; {gone}"
