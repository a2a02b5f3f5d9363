"""Looking changes nothing, and a boot brings back what should run and nothing else."""

from __future__ import annotations

import time

from tests.nodes.node.build import dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import Machine, Session

PEERS = [make_peer(n) for n in range(6)]


def reboot(machine: Machine, hooks: bool = True) -> None:
    """What is in memory goes; then wg-quick opens the interface from the disk."""
    machine.sh("ip link del wg0; rm -rf /run/muster; nft flush ruleset")
    if hooks:
        node = " ".join(machine.words("muster-node")[len(machine.enter) :])
        machine.sh(f"sed -i '1a PreUp = {node} close %i\\nPostUp = {node} load %i' /etc/wireguard/wg0.conf")
    machine.run("wg-quick", "up", "wg0")


def found(reply: dict[str, object]) -> list[tuple[str, str | None]]:
    drift = reply["drift"]
    assert isinstance(drift, list)
    return sorted((row["what"], row["public_key"]) for row in drift)


def test_observe_tells_what_changed_since_this_session_last_asked(machine: Machine, session: Session) -> None:
    first = session.ask("observe", full=False)
    assert sorted(row[0] for row in first["peers"]) == sorted(peer["public_key"] for peer in PEERS)
    link = {"up": True, "public_key": machine.run("wg", "show", "wg0", "public-key").strip(), "listen_port": 51820}
    assert (first["interface"], first["drift"], first["gone"]) == (link, [], [])
    assert [session.ask("observe", full=False)[part] for part in ("peers", "gone")] == [[], []]
    machine.run("wg", "set", "wg0", "peer", make_key(2), "endpoint", "198.51.100.7:1234")
    machine.run("wg", "set", "wg0", "peer", make_key(3), "remove")
    reply = session.ask("observe", full=False)
    assert reply["peers"] == [[make_key(2), "198.51.100.7:1234", 0, 0, 0]]
    assert (reply["gone"], found(reply)) == ([make_key(3)], [("missing", make_key(3))])
    assert len(session.ask("observe", full=True)["peers"]) == 5
    assert len(machine.session("wg0").ask("observe", full=False)["peers"]) == 5


def test_observe_names_each_kind_of_drift(machine: Machine, session: Session) -> None:
    """F16."""
    session.ask("revoke", keys=[dead(1)])
    machine.run("wg", "set", "wg0", "peer", make_key(1), "peer", make_key(90))
    machine.run("wg", "set", "wg0", "peer", make_key(2), "allowed-ips", "10.1.0.200/32")
    machine.run("wg", "set", "wg0", "peer", make_key(3), "preshared-key", "/dev/null")
    machine.run("wg", "set", "wg0", "peer", make_key(4), "remove")
    machine.run("wg", "set", "wg0", "listen-port", "51999")
    machine.sh(f"printf '[Peer]\\nPublicKey = {make_key(91)}\\n' >> /etc/wireguard/wg0.conf")
    machine.run("muster-node", "close", "wg0")
    expected: list[tuple[str, str | None]] = [
        ("allowed_ips", make_key(2)),
        ("closed", None),
        ("conf_peers", make_key(91)),
        ("interface", None),
        ("interface", None),
        ("missing", make_key(4)),
        ("preshared_key", make_key(3)),
        ("tombstoned", make_key(1)),
        ("unknown", make_key(90)),
    ]
    assert found(session.ask("observe", full=True)) == expected


def test_an_interface_that_is_not_there_is_said_to_be_down(machine: Machine, session: Session) -> None:
    """F15."""
    machine.sh("ip link del wg0")
    reply = session.ask("observe", full=True)
    assert reply["interface"] == {"up": False, "public_key": None, "listen_port": None}
    assert (reply["peers"], found(reply)) == ([], [("interface", None)])


def test_a_session_that_observes_can_do_nothing_else(machine: Machine, session: Session) -> None:
    """2.5 (a): observe-only servers."""
    looker = machine.session("--observe", "wg0")
    assert looker.ask("hello")["ok"] is True
    assert len(looker.ask("observe", full=True)["peers"]) == 6
    assert looker.ask("revoke", keys=[dead(1)])["error"]["code"] == "observe_only"
    assert looker.ask("apply", **make_whole(2, PEERS[:1], tombstones=[dead(1)]))["error"]["code"] == "observe_only"
    assert set(machine.peers()) == {make_key(n) for n in range(6)}


def test_a_boot_brings_back_all_but_the_tombstoned_and_the_expired(machine: Machine, session: Session) -> None:
    """D1, F2."""
    soon = int(time.time()) + 2
    ending = [PEERS[0] | {"expires_at": soon}, *PEERS[1:]]
    session.ask("apply", **make_whole(2, ending))
    session.ask("revoke", keys=[dead(1)])
    assert len(machine.peers()) == 5
    machine.sh(f"while [ $(date +%s) -le {soon} ]; do sleep 0.1; done")
    reboot(machine)
    assert machine.peers() == {peer["public_key"]: set(peer["allowed_ips"]) for peer in PEERS[2:]}
    assert session.ask("observe", full=True)["drift"] == []
    assert machine.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding") == "1\n1\n"
    assert machine.run("nft", "list", "ruleset").count("masquerade") == 2
    assert "muster_guard" not in machine.run("nft", "list", "ruleset")


def test_a_boot_takes_out_what_somebody_saved_into_the_conf(machine: Machine, session: Session) -> None:
    """D11."""
    session.ask("revoke", keys=[dead(1)])
    machine.sh(f"printf '[Peer]\\nPublicKey = {make_key(1)}\\nAllowedIPs = 10.1.0.3/32\\n' >> /etc/wireguard/wg0.conf")
    reboot(machine)
    assert set(machine.peers()) == {make_key(n) for n in (0, 2, 3, 4, 5)}
    machine.run("muster-node", "seal", "wg0")
    assert machine.sh("grep -c Peer /etc/wireguard/wg0.conf || true") == "0\n"
    assert machine.sh("stat -c %a /etc/wireguard/wg0.conf") == "600\n"


def test_a_closed_interface_is_opened_by_load(machine: Machine, session: Session) -> None:
    machine.run("muster-node", "close", "wg0")
    assert found(session.ask("observe", full=False)) == [("closed", None)]
    machine.run("muster-node", "load", "wg0")
    assert session.ask("observe", full=False)["drift"] == []


def test_load_without_an_interface_leaves_it_closed_and_ends_well(machine: Machine, session: Session) -> None:
    machine.sh("ip link del wg0")
    machine.run("muster-node", "close", "wg0")
    machine.run("muster-node", "load", "wg0")
    assert "muster_guard_wg0" in machine.run("nft", "list", "tables")


def test_a_damaged_state_falls_to_the_one_before_minus_tombstones(machine: Machine, session: Session) -> None:
    """D19: and says so."""
    session.ask("apply", **make_whole(2, PEERS[:5]))
    session.ask("revoke", keys=[dead(1)])
    machine.sh("printf x | dd of=/var/lib/muster/wg0/state bs=1 seek=400 conv=notrunc 2>/dev/null")
    reboot(machine)
    assert set(machine.peers()) == {make_key(n) for n in (0, 2, 3, 4)}
    assert found(session.ask("observe", full=True)) == [("state", None)]
    assert session.ask("apply", **make_whole(3, PEERS[:5]))["drift"] == []


def test_with_no_good_copy_of_the_state_nobody_gets_in(machine: Machine, session: Session) -> None:
    """D19: until a valid push."""
    machine.sh("echo x > /var/lib/muster/wg0/state; rm -f /var/lib/muster/wg0/state.last")
    reboot(machine)
    assert machine.peers() == {}
    assert found(session.ask("observe", full=True)) == [("state", None)]
    assert session.ask("apply", **make_whole(2, PEERS))["drift"] == []
    assert len(machine.peers()) == 6
