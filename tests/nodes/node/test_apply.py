"""What a push does to a real interface, and what no push may do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.nodes.node.build import (
    INTERFACE,
    Json,
    dead,
    digest_of,
    make_delta,
    make_key,
    make_peer,
    make_whole,
)
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(50)]


@pytest.fixture
def session(machine: Machine) -> Session:
    machine.make_interface()
    return machine.session("wg0")


def networks(peers: list[Json]) -> dict[str, set[str]]:
    return {peer["public_key"]: set(peer["allowed_ips"]) for peer in peers}


def error(reply: Json) -> str:
    assert reply["ok"] is False
    return str(reply["error"]["code"])


def test_a_whole_push_makes_the_interface_what_it_says(machine: Machine, session: Session) -> None:
    reply = session.ask("apply", **make_whole(1, PEERS))
    assert reply["changed"] == {"added": 50, "removed": 0, "updated": 0}
    assert (reply["result"], reply["withheld"], reply["drift"]) == ("applied", [], [])
    assert reply["state"]["digest"] == reply["state"]["pushed_digest"] == digest_of(PEERS)
    assert machine.peers() == networks(PEERS)


def test_a_delta_changes_only_what_differs(machine: Machine, session: Session) -> None:
    """D16: ifindex, port and private key stay, and so does every other peer."""
    session.ask("apply", **make_whole(1, PEERS))
    facts = "cat /sys/class/net/wg0/ifindex; wg show wg0 private-key; wg show wg0 listen-port"
    before = machine.sh(facts)
    changed = [PEERS[0] | {"allowed_ips": ["10.1.0.99/32"], "preshared_key": None}, *PEERS[2:], make_peer(60)]
    reply = session.ask("apply", **make_delta(2, PEERS, changed))
    assert reply["changed"] == {"added": 1, "removed": 1, "updated": 1}
    assert (reply["drift"], reply["state"]["digest"]) == ([], digest_of(changed))
    assert machine.peers() == networks(changed)
    assert machine.sh(facts) == before


def test_addresses_can_change_owners_in_one_push(machine: Machine, session: Session) -> None:
    session.ask("apply", **make_whole(1, PEERS[:3]))
    swapped = [
        PEERS[0] | {"allowed_ips": PEERS[1]["allowed_ips"]},
        PEERS[1] | {"allowed_ips": PEERS[2]["allowed_ips"]},
        PEERS[2] | {"allowed_ips": []},
    ]
    reply = session.ask("apply", **make_delta(2, PEERS[:3], swapped))
    assert reply["drift"] == []
    assert machine.peers() == networks(swapped)


def test_the_fence_takes_only_a_higher_pair(machine: Machine, session: Session) -> None:
    """D5, F8: replays in any order are stale or already."""
    first, second = make_whole(1, PEERS[:4]), make_whole(2, PEERS[:3])
    session.ask("apply", **first)
    session.ask("apply", **second)
    for _ in range(20):
        refused = session.ask("apply", **first)
        assert (error(refused), refused["error"]["state"]["generation"]) == ("stale", 2)
        assert session.ask("apply", **second)["result"] == "already"
    assert error(session.ask("apply", **make_whole(2, PEERS[:4]))) == "stale"
    assert error(session.ask("apply", **make_whole(9, PEERS[:4], epoch=0))) == "stale"
    assert machine.peers() == networks(PEERS[:3])
    assert session.ask("apply", **make_whole(1, PEERS[:4], epoch=2))["result"] == "applied"


@pytest.mark.parametrize("size", ["whole", "delta"])
def test_the_same_push_repairs_a_drifted_kernel(machine: Machine, session: Session, size: str) -> None:
    whole, after = make_whole(1, PEERS[:5]), PEERS[:4]
    session.ask("apply", **whole)
    push = make_delta(2, PEERS[:5], after) if size == "delta" else make_whole(2, after)
    session.ask("apply", **push)
    machine.run("wg", "set", "wg0", "peer", make_key(1), "allowed-ips", "10.1.0.77/32")
    machine.run("wg", "set", "wg0", "peer", make_key(70), "allowed-ips", "10.1.0.78/32")
    reply = session.ask("apply", **push)
    assert reply["changed"] == {"added": 0, "removed": 1, "updated": 1}
    assert (reply["result"], reply["drift"]) == ("already", [])
    assert machine.peers() == networks(after)


def test_a_delta_on_what_is_not_held_asks_for_the_whole(machine: Machine, session: Session) -> None:
    session.ask("apply", **make_whole(1, PEERS[:5]))
    reply = session.ask("apply", **make_delta(2, PEERS[:4], PEERS[:6]))
    assert (error(reply), reply["error"]["state"]["digest"]) == ("base", digest_of(PEERS[:5]))
    assert machine.peers() == networks(PEERS[:5])


def test_content_that_is_not_its_digest_is_refused(machine: Machine, session: Session) -> None:
    session.ask("apply", **make_whole(1, PEERS[:5]))
    assert error(session.ask("apply", **make_whole(2, PEERS[:6], digest=digest_of(PEERS)))) == "digest"
    delta = make_delta(2, PEERS[:5], PEERS[:6], digest=digest_of(PEERS))
    assert error(session.ask("apply", **delta)) == "digest"
    assert machine.peers() == networks(PEERS[:5])


def test_the_brake_holds_twelve_of_fifty_until_it_is_approved(machine: Machine, session: Session) -> None:
    """2.9: and a revocation passes it."""
    session.ask("apply", **make_whole(1, PEERS))
    reply = session.ask("apply", **make_whole(2, PEERS[12:], tombstones=[dead(0)]))
    assert (error(reply), reply["error"]["removals"]) == ("brake", 11)
    assert (reply["error"]["state"]["generation"], reply["error"]["state"]["peers"]) == (1, 49)
    assert machine.peers() == networks(PEERS[1:])
    five = [peer["public_key"] for peer in PEERS[1:7]]
    assert error(session.ask("apply", **make_whole(2, PEERS[12:], decided=five[:5]))) == "brake"
    assert session.ask("apply", **make_whole(2, PEERS[12:], decided=five))["result"] == "applied"
    assert session.ask("apply", **make_whole(3, PEERS[24:], approved=True))["result"] == "applied"
    assert machine.peers() == networks(PEERS[24:])


def test_the_brake_does_not_count_the_expired_but_counts_those_made_to_expire(session: Session) -> None:
    past = int(time.time()) - 10
    expired = [peer | {"expires_at": past} for peer in PEERS[:12]]
    session.ask("apply", **make_whole(1, [*expired, *PEERS[12:]]))
    assert session.ask("apply", **make_whole(2, PEERS[12:]))["result"] == "applied"
    ended = [peer | {"expires_at": past} for peer in PEERS[12:24]]
    reply = session.ask("apply", **make_whole(3, [*ended, *PEERS[24:]]))
    assert (error(reply), reply["error"]["removals"]) == ("brake", 12)


def test_an_expired_peer_is_held_but_does_not_run(machine: Machine, session: Session) -> None:
    expired = PEERS[0] | {"expires_at": int(time.time()) - 1}
    alive = PEERS[1] | {"expires_at": int(time.time()) + 600}
    reply = session.ask("apply", **make_whole(1, [expired, alive]))
    assert (reply["state"]["peers"], reply["drift"]) == (2, [])
    assert machine.peers() == networks([alive])


def test_a_push_that_still_holds_a_revoked_key_gets_the_rest(machine: Machine, session: Session) -> None:
    """D1, D18: revocation wins over any later push."""
    session.ask("revoke", keys=[dead(3)])
    reply = session.ask("apply", **make_whole(1, PEERS[:5]))
    rest = [*PEERS[:3], PEERS[4]]
    assert (reply["withheld"], reply["drift"]) == ([make_key(3)], [])
    assert (reply["state"]["pushed_digest"], reply["state"]["digest"]) == (digest_of(PEERS[:5]), digest_of(rest))
    assert machine.peers() == networks(rest)


def test_without_an_interface_state_is_taken_and_the_kernel_named(machine: Machine) -> None:
    session = machine.session("wg0")
    push = make_whole(1, PEERS[:2])
    reply = session.ask("apply", **push)
    assert (error(reply), reply["error"]["state"]["generation"]) == ("kernel", 1)
    machine.make_interface()
    assert session.ask("apply", **push)["result"] == "already"
    assert machine.peers() == networks(PEERS[:2])


def test_settings_of_the_interface_are_reported_and_left_alone(machine: Machine, session: Session) -> None:
    other = INTERFACE | {"addresses": ["10.1.0.1/24"], "listen_port": 4500, "mtu": 1400}
    drift = session.ask("apply", **make_whole(1, PEERS[:2], interface=other))["drift"]
    assert [row["detail"] for row in drift] == [
        "fd00:1::1/64: not in state",
        "mtu 1400: in state alone",
        "mtu 1420: not in state",
        "port 4500: in state alone",
        "port 51820: not in state",
    ]
    assert {row["what"] for row in drift} == {"interface"}
    assert machine.run("wg", "show", "wg0", "listen-port") == "51820\n"


def test_networks_beyond_the_interface_get_routes_and_lose_them(machine: Machine, session: Session) -> None:
    routes = "ip -4 route show proto 117; ip -6 route show proto 117"
    wide = [PEERS[0] | {"allowed_ips": ["198.51.100.0/24", "203.0.113.7/32", "fd77::/64"]}]
    session.ask("apply", **make_whole(1, wide))
    lines = machine.sh(routes).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["198.51.100.0/24", "dev", "wg0"],
        ["203.0.113.7", "dev", "wg0"],
        ["fd77::/64", "dev", "wg0"],
    ]
    session.ask("apply", **make_whole(2, PEERS[:1]))
    assert machine.sh(routes) == ""


def test_table_off_in_the_conf_means_no_routes(machine: Machine, session: Session) -> None:
    machine.sh("sed -i '1a Table = off' /etc/wireguard/wg0.conf")
    session.ask("apply", **make_whole(1, [PEERS[0] | {"allowed_ips": ["198.51.100.0/24"]}]))
    assert machine.sh("ip route show dev wg0 proto 117") == ""


def test_the_servers_own_key_is_no_peer(machine: Machine, session: Session) -> None:
    """A6."""
    own = machine.run("wg", "show", "wg0", "public-key").strip()
    assert error(session.ask("apply", **make_whole(1, [PEERS[0] | {"public_key": own}]))) == "bad_request"
    assert session.ask("apply", **make_whole(1, PEERS[:1]))["result"] == "applied"


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"peers": [make_peer(1), make_peer(1)]},
        {"peers": [make_peer(1), make_peer(2, allowed_ips=["10.1.0.3/32"])]},
        {"approved": 1},
        {"decided": ["x"]},
        {"epoch": -1},
        {"generation": "1"},
        {"digest": "0" * 63},
        {"tombstones": [{"public_key": make_key(1)}]},
        {"base": "0" * 64},
        {"v": 2},
    ],
)
def test_a_push_with_a_wrong_field_changes_nothing(machine: Machine, session: Session, changes: dict[str, Any]) -> None:
    """A12."""
    push = make_whole(1, [make_peer(1)]) | changes
    push["digest"] = changes.get("digest") or digest_of(push["peers"])
    assert error(session.ask("apply", **push)) == "bad_request"
    assert machine.peers() == {}


def test_a_full_disk_leaves_what_was_held(machine: Machine, session: Session) -> None:
    """F3."""
    machine.sh("mkdir -p /var/lib/muster; mount -t tmpfs -o size=16k tmpfs /var/lib/muster")
    session.ask("apply", **make_whole(1, PEERS[:2]))
    machine.sh("dd if=/dev/zero of=/var/lib/muster/fill 2>/dev/null", code=1)
    assert error(session.ask("apply", **make_whole(2, PEERS))) == "disk"
    assert machine.peers() == networks(PEERS[:2])
    machine.sh("rm /var/lib/muster/fill; umount /var/lib/muster; mkdir -p /var/lib/muster/wg0")


def test_a_line_that_is_no_request_ends_the_session(machine: Machine, session: Session) -> None:
    reply = session.send(b"hello")
    assert (reply["id"], error(reply)) == (None, "bad_request")
    assert session.process.wait(5) == 1


def test_an_unknown_op_is_answered_and_the_session_goes_on(session: Session) -> None:
    assert error(session.ask("reboot")) == "bad_request"
    assert session.ask("hello")["node"]["protocol"] == 1


def test_no_answer_holds_a_secret(machine: Machine, session: Session) -> None:
    """C3: compared with the real dump."""
    session.ask("apply", **make_whole(1, PEERS))
    machine.run("wg", "set", "wg0", "peer", make_key(0), "preshared-key", "/dev/null")
    replies = [
        session.ask("hello"),
        session.ask("observe", full=True),
        session.ask("apply", **make_whole(1, PEERS)),
        session.ask("apply", **make_whole(2, [PEERS[0] | {"preshared_key": PEERS[1]["preshared_key"] + " "}])),
        session.ask("revoke", keys=[dead(1)]),
    ]
    rows = [row.split("\t") for row in machine.run("wg", "show", "wg0", "dump").splitlines()]
    secrets = {rows[0][0], *(row[1] for row in rows[1:]), *(str(peer["preshared_key"]) for peer in PEERS)}
    assert len(secrets) > 50
    assert [secret for secret in secrets if secret in str(replies)] == []
