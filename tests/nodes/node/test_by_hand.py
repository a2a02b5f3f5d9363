"""What somebody changes at a server by hand: what the tick mends, what a look reports, what the next push repairs."""

from __future__ import annotations

import json

import pytest

from tests.nodes.node.build import Json, dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(6)]
NEIGHBOUR = make_key(5)


def tick(machine: Machine, code: int = 0) -> Json:
    reply: Json = json.loads(machine.run("muster-node", "tick", "wg0", code=code))
    return reply


def drift(session: Session) -> list[tuple[str, str | None, str]]:
    rows = session.ask("observe", full=True)["drift"]
    return [(row["what"], row["public_key"], row["detail"]) for row in rows]


def journal(session: Session) -> list[tuple[str, str | None]]:
    return [(row["what"], row["public_key"]) for row in session.ask("journal", after=0)["entries"]]


def row_of(machine: Machine, key: str) -> list[str]:
    """Preshared key and networks of a peer, as the kernel has them."""
    rows = [row.split("\t") for row in machine.run("wg", "show", "wg0", "dump").splitlines()]
    [found] = [[row[1], row[3]] for row in rows if row[0] == key]
    return found


HAND_EDITS = {
    "allowed_ips": (("allowed-ips", "10.1.0.99/32"), "kernel has: 10.1.0.99/32"),
    "preshared_key": (("preshared-key", "/dev/null"), "differs"),
}


@pytest.mark.parametrize("what", HAND_EDITS)
def test_a_peer_edited_by_hand_is_reported_and_left_to_the_next_push(
    machine: Machine, session: Session, what: str
) -> None:
    """F16: no tick adopts or mends it, for it changes who is reached and not who gets in; the same push repairs it."""
    words, detail = HAND_EDITS[what]
    before, beside = row_of(machine, make_key(2)), row_of(machine, NEIGHBOUR)
    tick(machine)
    machine.run("wg", "set", "wg0", "peer", make_key(2), *words)
    edited = row_of(machine, make_key(2))
    tick(machine)
    assert row_of(machine, make_key(2)) == edited != before
    assert (drift(session), journal(session)) == ([(what, make_key(2), detail)], [])
    reply = session.ask("apply", **make_whole(1, PEERS))
    assert (reply["result"], reply["changed"]["updated"], reply["drift"]) == ("already", 1, [])
    assert (row_of(machine, make_key(2)), row_of(machine, NEIGHBOUR)) == (before, beside)


def test_an_address_taken_from_a_peer_by_hand_goes_back_to_it(machine: Machine, session: Session) -> None:
    """F16: an unknown key that took it is out at the next tick, and with that the tick has mended the peer too."""
    address = PEERS[2]["allowed_ips"][0]
    tick(machine)
    machine.run("wg", "set", "wg0", "peer", make_key(90), "allowed-ips", address)
    assert address not in row_of(machine, make_key(2))[1]
    tick(machine)
    assert row_of(machine, make_key(2))[1].split(",") == PEERS[2]["allowed_ips"]
    assert (drift(session), journal(session)) == ([], [("unknown", make_key(90))])


LINK_EDITS = {
    "wg set wg0 listen-port 51999": ["port 51820: in state alone", "port 51999: not in state"],
    "ip addr add 10.7.0.1/24 dev wg0": ["10.7.0.1/24: not in state"],
    "ip addr del 10.1.0.1/24 dev wg0": ["10.1.0.1/24: in state alone"],
    "ip link set wg0 down": ["fd00:1::1/64: in state alone", "up: in state alone"],
    "ip link set wg0 mtu 1300": ["mtu 1300: not in state", "mtu 1420: in state alone"],
    "wg genkey | wg set wg0 private-key /dev/stdin": ["the private key is not that of the conf"],
}


@pytest.mark.parametrize(("edit", "details"), LINK_EDITS.items(), ids=range(len(LINK_EDITS)))
def test_settings_of_the_interface_changed_by_hand_are_reported_each_time(
    machine: Machine, session: Session, edit: str, details: list[str]
) -> None:
    """F16: no tick and no push changes a running interface; a look says what differs, and so does every push."""
    machine.sh(edit)
    tick(machine)
    expected = [("interface", None, detail) for detail in details]
    assert drift(session) == expected
    reply = session.ask("apply", **make_whole(2, PEERS))
    assert [(row["what"], row["public_key"], row["detail"]) for row in reply["drift"]] == expected
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS}
    assert journal(session) == []


def test_an_interface_that_was_renamed_is_never_called_right_and_a_revoke_still_reaches_it(
    machine: Machine, session: Session
) -> None:
    """F15: looks and ticks say so, and the receipt is what was read back from every interface."""
    tick(machine)
    machine.sh("ip link set wg0 down; ip link set wg0 name wg9; ip link set wg9 up")
    assert ("interface", None, "up: in state alone") in drift(session)
    assert tick(machine, code=1)["error"]["code"] == "kernel"
    receipts = session.ask("revoke", keys=[dead(1)])["receipts"]
    assert [row["kernel"] and row["disk"] and row["durable"] for row in receipts] == [True]
    assert make_key(1) not in machine.run("wg", "show", "all", "peers")
    assert NEIGHBOUR in machine.run("wg", "show", "all", "peers")
    machine.sh("ip link del wg9; wg-quick up wg0")
    tick(machine)
    assert set(machine.peers()) == {peer["public_key"] for peer in PEERS} - {make_key(1)}
    assert drift(session) == []


def test_a_private_key_is_in_no_answer(machine: Machine, session: Session) -> None:
    """C3: though it is compared."""
    old = machine.run("wg", "show", "wg0", "private-key").strip()
    machine.sh("wg genkey | wg set wg0 private-key /dev/stdin")
    new = machine.run("wg", "show", "wg0", "private-key").strip()
    said = str([session.ask("observe", full=True), session.ask("apply", **make_whole(2, PEERS)), session.ask("hello")])
    assert ("private key" in said, old in said, new in said) == (True, False, False)
