"""A machine laid out as Red Hat's are: dnf, tools in /usr/sbin, sudo's own path, other places that a boot reads."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import Json, dead, make_key, make_peer, make_whole, make_wish
from tests.nodes.node.machine import PROGRAM, Machine, Session

PEERS = [make_peer(n) for n in range(6)]
# nft and ip in /usr/sbin alone; no apt; what dnf is going to bring is kept aside.
LAYOUT = """
for folder in bin sbin; do
    mkdir -p /mnt/$folder/upper /mnt/$folder/work /mnt/kept/$folder
    layers=lowerdir=/usr/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work
    mount -t overlay overlay -o $layers /usr/$folder
done
cp -aL /usr/bin/wg /usr/bin/wg-quick /mnt/kept/bin
cp -aL /usr/sbin/nft /usr/bin/ip /mnt/kept/sbin
rm -f /usr/bin/apt-get
cat >/etc/sudoers
"""
BARE = "rm -f /usr/bin/wg /usr/bin/wg-quick /usr/bin/ip /usr/sbin/ip /usr/sbin/nft /usr/bin/dnf /usr/bin/yum /run/asked"
MANAGER = '#!/bin/sh\\necho "$0 $*" >>/run/asked\\n{bring}\\n'
# As Red Hat ships it, and a line that hardening guides add.
SUDOERS = """Defaults   !visiblepw
Defaults    always_set_home
Defaults    env_reset
Defaults    secure_path = /sbin:/bin:/usr/sbin:/usr/bin
Defaults    use_pty
root    ALL=(ALL)       ALL
%wheel  ALL=(ALL)       ALL
#includedir /etc/sudoers.d
"""


@pytest.fixture(scope="module")
def rhel() -> Iterator[Machine]:
    machine = Machine()
    try:
        machine.run("sh", "-ec", LAYOUT, stdin=SUDOERS)
        yield machine
    finally:
        machine.end()


def bare(machine: Machine, manager: str, bring: str = "cp -a /mnt/kept/. /usr") -> Machine:
    """Without the tools, and with a package manager that brings them."""
    machine.sh(f"{BARE}; printf '{MANAGER.format(bring=bring)}' >/usr/bin/{manager}; chmod 755 /usr/bin/{manager}")
    return machine


def install(machine: Machine, code: int = 0, **changes: object) -> Json:
    wish = json.dumps(make_wish(packages=True, **changes))
    answer: Json = json.loads(machine.run("muster-install", "wg0", stdin=wish, code=code))
    return answer


@pytest.mark.parametrize("manager", ["yum", "dnf"])
def test_what_is_missing_comes_by_its_package_manager(rhel: Machine, manager: str) -> None:
    answer = install(bare(rhel, manager))
    packages = ["iproute", "nftables", "wireguard-tools"]
    assert (answer["ok"], answer.get("installed")) == (True, packages)
    assert rhel.sh("cat /run/asked") == f"/usr/bin/{manager} install -y {' '.join(packages)}\n"
    assert rhel.sh("for tool in nft ip wg; do command -v $tool; done").split() == [
        "/usr/sbin/nft",
        "/usr/sbin/ip",
        "/usr/bin/wg",
    ]
    assert rhel.session("wg0").ask("observe", full=True)["drift"] == []


def test_a_package_manager_that_fails_is_named_with_what_is_missing(rhel: Machine) -> None:
    error = install(bare(rhel, "dnf", "exit 1"), code=1)["error"]
    assert (error["code"], error["message"]) == (
        "packages",
        "dnf could not put in: iproute, nftables, wireguard-tools",
    )


def test_the_node_works_with_its_tools_in_usr_sbin_and_as_muster_by_sudos_own_path(rhel: Machine) -> None:
    """Whose secure_path lacks /usr/local/sbin, and which gives no terminal to who has none."""
    install(bare(rhel, "dnf"), user="muster")
    push = {"v": 1, "id": 1, "op": "apply", **make_whole(1, PEERS, epoch=3)}
    revoke = {"v": 1, "id": 2, "op": "revoke", "keys": [dead(1)]}
    lines = "".join(json.dumps(request) + "\n" for request in (push, revoke))
    said = rhel.run("su", "muster", "-c", f"sudo -n {PROGRAM} session wg0", stdin=lines)
    taken, revoked = map(json.loads, said.splitlines())
    assert (taken["result"], taken["drift"]) == ("applied", [])
    assert (revoked["receipts"][0]["kernel"], revoked["receipts"][0]["disk"]) == (True, True)
    assert set(rhel.peers()) == {peer["public_key"] for peer in PEERS} - {make_key(1)}
    rhel.sh("ip link del wg0; rm -rf /run/muster; nft flush ruleset; wg-quick up wg0")
    assert set(rhel.peers()) == {peer["public_key"] for peer in PEERS} - {make_key(1)}
    rhel.sh("su muster -c 'sudo -n /usr/bin/id' </dev/null", code=1)


PLACES = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/etc/systemd/network",
    "/etc/network",
    "/etc/netplan",
    "/etc/NetworkManager/system-connections",
    "/etc/sysconfig/network-scripts",
    "/etc/rc.local",
    "/etc/rc.d",
    "/etc/init.d",
    "/etc/crontab",
    "/etc/cron.d",
    "/var/spool/cron",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_receipt_while_the_key_is_left_where_some_machine_boots_from(
    machine: Machine, session: Session, place: str
) -> None:
    """M7, D1: Debian's places and Red Hat's; what another key needs is not held up by it."""
    machine.sh("mountpoint -q /var/spool || mount -t tmpfs tmpfs /var/spool")
    path = place if place in ("/etc/rc.local", "/etc/crontab") else place + "/50-vpn/tunnel"
    machine.sh(f"rm -rf {place}; mkdir -p $(dirname {path})")
    machine.run("sh", "-c", f"cat > {path}", stdin=f"@reboot wg set wg0 peer {make_key(1)} allowed-ips 10.1.0.3/32\n")
    left, gone = session.ask("revoke", keys=[dead(1), dead(2)])["receipts"]
    assert (left["kernel"], left["disk"], left["found"]) == (True, False, [path])
    assert (gone["kernel"], gone["disk"], gone["found"]) == (True, True, [])
    machine.sh(f"rm -r {place}")
    [again] = session.ask("revoke", keys=[dead(1)])["receipts"]
    assert (again["disk"], again["found"]) == (True, [])
