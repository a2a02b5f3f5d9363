"""A new key takes the place of an old one: at its first handshake, within a tick, with the old one's addresses."""

from __future__ import annotations

import json
import time

import pytest

from tests.nodes.node.build import Json, dead, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(4)]
OLD = PEERS[1]


class Client:
    """A WireGuard interface on the same machine, with a key pair of its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        private = machine.run("wg", "genkey").strip()
        self.key = machine.run("wg", "pubkey", stdin=private).strip()
        machine.sh("ip link add client type wireguard 2>/dev/null || wireguard-go client")
        machine.run("wg", "set", "client", "private-key", "/dev/stdin", stdin=private)
        machine.run("ip", "link", "set", "client", "up")

    def peer(self, **changes: object) -> Json:
        """The peer that takes OLD's place."""
        new = make_peer(50, public_key=self.key, preshared_key=None, allowed_ips=OLD["allowed_ips"])
        return new | {"replaces": OLD["public_key"]} | changes

    def shake_hands(self) -> None:
        server = self.machine.run("wg", "show", "wg0", "public-key").strip()
        words = ["peer", server, "endpoint", "127.0.0.1:51820", "persistent-keepalive", "1"]
        self.machine.run("wg", "set", "client", *words, "allowed-ips", "10.1.0.0/24")
        wait(self.machine, 20, f'wg show wg0 latest-handshakes | grep {self.key} | grep -qv "\t0$"')


@pytest.fixture
def client(machine: Machine, session: Session) -> Client:
    return Client(machine)


def tick(machine: Machine) -> None:
    assert json.loads(machine.run("muster-node", "tick", "wg0")) == {"ok": True}


def networks(machine: Machine, key: str) -> list[str] | None:
    """Of a peer in the kernel; None where it is not there."""
    found = machine.peers().get(key)
    return None if found is None else sorted(found)


def test_the_addresses_move_at_the_first_handshake_and_the_old_key_is_dead(
    machine: Machine, session: Session, client: Client
) -> None:
    after = [*PEERS, client.peer()]
    assert session.ask("apply", **make_delta(2, PEERS, after))["drift"] == []
    tick(machine)
    assert (networks(machine, OLD["public_key"]), networks(machine, client.key)) == (OLD["allowed_ips"], [])
    client.shake_hands()
    tick(machine)
    assert (networks(machine, OLD["public_key"]), networks(machine, client.key)) == (None, OLD["allowed_ips"])
    [entry] = session.ask("journal", after=0)["entries"]
    assert (entry["what"], entry["public_key"]) == ("rotated", OLD["public_key"])
    assert entry["detail"] == "replaced by " + client.key
    assert OLD["public_key"] in machine.sh("cat /var/lib/muster/tombstones")
    assert session.ask("observe", full=True)["drift"] == []
    tick(machine)
    assert session.ask("hello")["state"]["journal"] == 1


def test_the_daemon_does_it_within_a_tick(machine: Machine, session: Session, client: Client) -> None:
    """Also when it has nothing else to do."""
    session.ask("apply", **make_delta(2, PEERS, [*PEERS, client.peer()]))
    daemon = machine.popen("muster-node", "daemon")
    try:
        machine.run("wg", "set", "wg0", "peer", make_key(90))
        wait(machine, 20, f"! wg show wg0 peers | grep -q {make_key(90)}")
        # One more tick has looked since: the next one finds all as it was.
        settled = int(time.time()) + 3
        wait(machine, 20, f"[ $(stat -c %Y /run/muster/wg0.seen) -ge {settled} ]")
        client.shake_hands()
        wait(machine, 10, f"wg show wg0 allowed-ips | grep {client.key} | grep -q {OLD['allowed_ips'][0]}")
    finally:
        machine.sh("pkill -f '[ ]daemon$'")
        daemon.communicate()
    assert networks(machine, OLD["public_key"]) is None


def wait(machine: Machine, seconds: int, condition: str) -> None:
    """Until the shell's condition holds on the machine."""
    machine.sh(f"timeout {seconds} sh -c 'until {condition}; do sleep 0.1; done'")


def test_a_push_that_does_not_know_of_it_is_a_conflict_and_brings_the_old_key_back_in_no_case(
    machine: Machine, session: Session, client: Client
) -> None:
    after = [*PEERS, client.peer()]
    session.ask("apply", **make_delta(2, PEERS, after))
    client.shake_hands()
    tick(machine)
    error = session.ask("apply", **make_whole(3, after))["error"]
    assert (error["code"], error["keys"]) == ("conflict", [OLD["public_key"]])
    reply = session.ask("apply", **make_whole(3, after, journal_seen=1))
    assert reply["withheld"] == [OLD["public_key"]]
    rest = [peer for peer in PEERS if peer is not OLD]
    settled = [*rest, {name: value for name, value in client.peer().items() if name != "replaces"}]
    assert session.ask("apply", **make_whole(4, settled, journal_seen=1))["drift"] == []
    assert networks(machine, client.key) == OLD["allowed_ips"]


def test_an_old_key_that_is_revoked_meanwhile_leaves_its_addresses_too(
    machine: Machine, session: Session, client: Client
) -> None:
    """As after a kill between the tombstone and the move."""
    session.ask("apply", **make_delta(2, PEERS, [*PEERS, client.peer()]))
    session.ask("revoke", keys=[dead(1)])
    tick(machine)
    assert (networks(machine, OLD["public_key"]), networks(machine, client.key)) == (None, OLD["allowed_ips"])


def test_who_was_shut_out_at_the_machine_does_not_come_in_by_a_new_key(
    machine: Machine, session: Session, client: Client
) -> None:
    session.ask("apply", **make_delta(2, PEERS, [*PEERS, client.peer()]))
    machine.run("muster-node", "suspend", "wg0", OLD["public_key"], "--reason", "laptop missing")
    client.shake_hands()
    tick(machine)
    assert (networks(machine, OLD["public_key"]), networks(machine, client.key)) == (None, [])
    assert [entry["what"] for entry in session.ask("journal", after=0)["entries"]] == ["suspended"]


def test_nor_where_the_old_key_is_revoked_after_that(machine: Machine, session: Session, client: Client) -> None:
    """As the Console does where the new key came first to another server; nor by a push that knows of nothing."""
    session.ask("apply", **make_delta(2, PEERS, [*PEERS, client.peer()]))
    machine.run("muster-node", "suspend", "wg0", OLD["public_key"], "--reason", "laptop missing")
    client.shake_hands()
    session.ask("revoke", keys=[dead(1)])
    tick(machine)
    assert networks(machine, client.key) == []
    rest = [peer for peer in PEERS if peer is not OLD]
    alone = {name: value for name, value in client.peer().items() if name != "replaces"}
    assert session.ask("apply", **make_whole(3, [*rest, alone]))["error"]["code"] == "conflict"
    assert session.ask("apply", **make_whole(3, [*rest, alone], journal_seen=1))["ok"]
    assert networks(machine, client.key) == OLD["allowed_ips"]


def test_a_boot_keeps_it_as_it_was(machine: Machine, session: Session, client: Client) -> None:
    session.ask("apply", **make_delta(2, PEERS, [*PEERS, client.peer()]))
    machine.sh("ip link del wg0; rm -rf /run/muster; wg-quick up wg0")
    machine.run("muster-node", "load", "wg0")
    assert (networks(machine, OLD["public_key"]), networks(machine, client.key)) == (OLD["allowed_ips"], [])
    client.shake_hands()
    tick(machine)
    assert networks(machine, client.key) == OLD["allowed_ips"]


@pytest.mark.parametrize(
    "more",
    [
        [make_peer(50, allowed_ips=OLD["allowed_ips"])],
        [make_peer(50, allowed_ips=OLD["allowed_ips"], replaces=make_key(2))],
        [make_peer(50, replaces=make_key(50))],
        [make_peer(50, replaces=make_key(1)), make_peer(51, replaces=make_key(1))],
        [make_peer(n, allowed_ips=OLD["allowed_ips"], replaces=make_key(90)) for n in (50, 51)],
        [make_peer(50, replaces=make_key(51)), make_peer(51, replaces=make_key(50))],
        [make_peer(50, replaces=None)],
        [make_peer(50, replaces="old")],
    ],
)
def test_addresses_are_shared_with_the_key_that_is_replaced_and_with_no_other(
    machine: Machine, session: Session, more: list[Json]
) -> None:
    before = sorted(machine.run("wg", "show", "wg0", "dump").splitlines())
    assert session.ask("apply", **make_whole(2, [*PEERS, *more]))["error"]["code"] == "bad_request"
    assert sorted(machine.run("wg", "show", "wg0", "dump").splitlines()) == before
    good = make_peer(50, allowed_ips=OLD["allowed_ips"], replaces=OLD["public_key"])
    assert session.ask("apply", **make_whole(2, [*PEERS, good]))["ok"]
