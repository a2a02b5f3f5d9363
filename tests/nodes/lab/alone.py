"""A server of the lab made a node by the installer itself, with no Console: asked and pushed to by the test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.floods import Flood
from tests.lab.machines import Client, Server
from tests.lab.tunnels import KeyPair, new_keypair
from tests.nodes.node.build import Json, make_whole, make_wish
from tests.nodes.node.machine import INSTALLER, PROGRAM, SCRIPT

GATEWAY = "10.1.0.1"
TUNNEL = """[Interface]
PrivateKey = {private}
Address = {address}/32
[Peer]
PublicKey = {server}
Endpoint = {endpoint}:51820
AllowedIPs = 10.1.0.0/24
PersistentKeepalive = 1
"""


@dataclass
class Alone:
    """One node: its machine, its public key, and the last generation that the test pushed."""

    machine: Server
    public_key: str
    generation: int = 0

    def ask(self, op: str, **fields: object) -> Json:
        """One request in a session of its own."""
        line = json.dumps({"v": 1, "id": 1, "op": op, **fields})
        answer: Json = json.loads(self.machine.run([PROGRAM, "session", "wg0"], input=line + "\n").stdout)
        return answer

    def push(self, peers: Sequence[Json], **changes: object) -> None:
        """As a Console that has read the journal and knows nothing against it."""
        self.generation += 1
        seen = self.ask("hello")["state"]["journal"]
        push = make_whole(self.generation, list(peers), approved=True, journal_seen=seen, **changes)
        answer = self.ask("apply", **push)
        assert answer.get("drift") == [], answer

    def revoke(self, *keys: str) -> None:
        answer = self.ask("revoke", keys=[{"public_key": key, "reason": "lost"} for key in keys])
        assert all(row["kernel"] and row["disk"] and row["durable"] for row in answer["receipts"]), answer

    def keys(self) -> set[str]:
        """The peers in its kernel."""
        return set(self.machine.run(["wg", "show", "wg0", "peers"]).stdout.split())

    def journal(self) -> list[tuple[str, str | None]]:
        return [(row["what"], row["public_key"]) for row in self.ask("journal", after=0)["entries"]]

    def drift(self) -> list[str]:
        return [row["what"] for row in self.ask("observe", full=True)["drift"]]

    def flood(self, client: Client, pair: KeyPair, address: str) -> Flood:
        """The key, from that address, a hundred times a second; whoever asks closes it."""
        return Flood(client.pid, pair, self.machine.address, self.public_key, (address, GATEWAY))

    def tunnel_file(self, pair: KeyPair, address: str) -> str:
        """A stock client's file; it shakes hands within a second or two of a wake-up, by its keepalive."""
        values = {"private": pair.private_key, "address": address, "server": self.public_key}
        return TUNNEL.format(endpoint=self.machine.address, **values)


def alone(machine: Server) -> Alone:
    """Installs, for a Console whose SSH key is made there too: /run/console_key."""
    machine.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "/run/console_key"])
    machine.put(PROGRAM, SCRIPT.read_text(), 0o755)
    machine.put("/root/muster_install.py", INSTALLER.read_text())
    line = json.dumps(make_wish(console_key=machine.read("/run/console_key.pub").strip(), epoch=1))
    answer = json.loads(machine.run(["python3", "-IS", "/root/muster_install.py", PROGRAM, "wg0"], input=line).stdout)
    assert answer["ok"], answer
    return Alone(machine, answer["public_key"])


def peer(pair: KeyPair, address: str, expires_at: int | None = None) -> Json:
    return {
        "public_key": pair.public_key,
        "preshared_key": None,
        "allowed_ips": [f"{address}/32"],
        "expires_at": expires_at,
    }


def new_peers(count: int) -> tuple[list[KeyPair], list[Json]]:
    """Key pairs with the addresses 10.1.0.2 and on."""
    pairs = [new_keypair() for _ in range(count)]
    return pairs, [peer(pair, address_of(number)) for number, pair in enumerate(pairs)]


def address_of(number: int) -> str:
    return f"10.1.0.{number + 2}"
