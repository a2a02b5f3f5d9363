"""Install makes a machine a server, twice with the same result, and leaves alone what is not ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.nodes.node.build import INTERFACE, Json, console_key, make_peer, make_whole, make_wish
from tests.nodes.node.machine import Machine


def install(machine: Machine, name: str = "wg0", code: int = 0, **changes: Any) -> Json:
    reply: Json = json.loads(machine.run("muster-install", name, stdin=json.dumps(make_wish(**changes)), code=code))
    assert reply["ok"] is (code == 0)
    return reply


@pytest.fixture
def clean(machine: Machine) -> Machine:
    machine.sh("rm -rf /root/.ssh /home/muster /etc/sudoers.d/muster")
    return machine


def test_it_opens_an_interface_and_answers_its_public_key(clean: Machine) -> None:
    reply = install(clean)
    assert reply["public_key"] == clean.run("wg", "show", "wg0", "public-key").strip()
    assert (reply["unit"], reply["installed"]) == ("none", [])
    state = clean.session("wg0").ask("observe", full=True)
    assert (state["drift"], state["state"]["epoch"], state["state"]["generation"]) == ([], 3, 0)
    modes = clean.sh(
        "stat -c %a /etc/wireguard/wg0.conf /var/lib/muster/wg0/state /root/.ssh /root/.ssh/authorized_keys"
    )
    assert modes.split() == ["600", "600", "700", "600"]
    assert clean.sh("cat /root/.ssh/authorized_keys") == (
        f'restrict,command="/usr/local/sbin/muster-node session wg0" {console_key(1)} muster:wg0\n'
    )


def test_a_second_run_changes_nothing(clean: Machine) -> None:
    first = install(clean)
    session = clean.session("wg0")
    assert session.ask("apply", **make_whole(1, [make_peer(1)], epoch=3))["ok"] is True
    files = "cd /; sha256sum etc/wireguard/wg0.conf root/.ssh/authorized_keys var/lib/muster/wg0/state"
    before = clean.sh(files), clean.peers()
    assert install(clean) == first
    assert (clean.sh(files), clean.peers()) == before


def test_a_new_epoch_opens_a_new_count_and_keeps_the_peers(clean: Machine) -> None:
    install(clean)
    session = clean.session("wg0")
    session.ask("apply", **make_whole(8, [make_peer(1)], epoch=3))
    install(clean, epoch=4)
    state = session.ask("hello")["state"]
    assert (state["epoch"], state["generation"], state["peers"]) == (4, 0, 1)


def test_the_user_muster_may_run_one_command(clean: Machine) -> None:
    install(clean, user="muster")
    assert clean.sh("cat /etc/sudoers.d/muster") == (
        "muster ALL=(root) NOPASSWD: /usr/local/sbin/muster-node session wg0\n"
    )
    assert clean.sh("stat -c '%a %U' /etc/sudoers.d/muster /home/muster/.ssh/authorized_keys") == (
        "440 root\n644 root\n"
    )
    assert clean.sh("cat /home/muster/.ssh/authorized_keys") == (
        f'restrict,command="sudo -n /usr/local/sbin/muster-node session wg0" {console_key(1)} muster:wg0\n'
    )
    as_muster = "su muster -c 'sudo -n /usr/local/sbin/muster-node {0}' </dev/null"
    assert clean.sh(as_muster.format("session wg0")) == ""
    clean.sh(as_muster.format("session wg1"), code=1)
    clean.sh(as_muster.format("revoke wg0 x --reason x"), code=1)
    assert clean.sh("getent shadow muster | cut -d: -f2") == "*\n"


def test_the_line_moves_with_the_user(clean: Machine) -> None:
    install(clean, user="muster")
    install(clean, observe_only=True)
    assert clean.sh("cat /home/muster/.ssh/authorized_keys") == ""
    assert 'command="/usr/local/sbin/muster-node session --observe wg0"' in clean.sh("cat /root/.ssh/authorized_keys")


def test_a_second_interface_lives_beside_the_first(clean: Machine) -> None:
    clean.sh("mkdir -m 700 /root/.ssh; echo 'ssh-ed25519 AAAA alice@example.com' > /root/.ssh/authorized_keys")
    install(clean)
    other = INTERFACE | {"addresses": ["10.2.0.1/24"], "listen_port": 51821}
    install(clean, "wg1", interface=other, console_key=console_key(2))
    install(clean, console_key=console_key(3))
    lines = clean.sh("cat /root/.ssh/authorized_keys").splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["alice@example.com", "muster:wg1", "muster:wg0"]
    assert [key for key in map(console_key, (1, 2, 3)) if key in str(lines)] == [console_key(2), console_key(3)]
    for name in ("wg0", "wg1"):
        assert clean.session(name).ask("observe", full=True)["drift"] == []


def test_a_key_opens_one_thing_only(clean: Machine) -> None:
    install(clean)
    other = INTERFACE | {"addresses": ["10.2.0.1/24"], "listen_port": 51821}
    reply = install(clean, "wg1", code=1, interface=other)
    assert reply["error"]["code"] == "bad_request"


def test_the_unit_is_enabled_sealed_and_reloads_without_an_outage(clean: Machine) -> None:
    install(clean)
    assert clean.sh("cat /etc/systemd/system/wg-quick@wg0.service.d/muster.conf").splitlines() == [
        "[Service]",
        "ExecStartPre=/usr/local/sbin/muster-node seal wg0",
        "ExecReload=",
        "ExecReload=/usr/local/sbin/muster-node load wg0",
    ]
    link = "/etc/systemd/system/multi-user.target.wants/wg-quick@wg0.service"
    assert clean.run("readlink", link) == "/lib/systemd/system/wg-quick@.service\n"


def unit(machine: Machine, setting: str) -> str:
    """The value of a setting of the daemon's unit, as systemd reads it."""
    rows = machine.sh("cat /etc/systemd/system/muster-node.service").splitlines()
    [value] = [row.partition("=")[2] for row in rows if row.startswith(setting + "=")]
    return value


def test_the_unit_of_the_daemon_is_one_that_systemd_takes_and_calls_safe(clean: Machine) -> None:
    install(clean)
    path = "/etc/systemd/system/muster-node.service"
    assert clean.sh(f"systemd-analyze verify {path} 2>&1") == ""
    # The exposure of ordinary units is 9.6 of 10; 2.0 is "OK".
    clean.sh(f"systemd-analyze security --offline=yes --threshold=20 {path}")
    assert clean.run("readlink", "/etc/systemd/system/multi-user.target.wants/muster-node.service").strip() == path


def test_the_daemon_does_its_work_with_the_rights_that_its_unit_leaves_it(clean: Machine) -> None:
    """By its Exec line as written, with no other capability than the one."""
    install(clean)
    session = clean.session("wg0")
    session.ask("apply", **make_whole(1, [make_peer(n) for n in range(6)], epoch=3))
    kept = unit(clean, "CapabilityBoundingSet").lower().removeprefix("cap_")
    rights = ["setpriv", f"--bounding-set=-all,+{kept}", "--inh-caps=-all", "--no-new-privs"]
    daemon = clean.popen(*rights, *unit(clean, "ExecStart").split())
    clean.run("wg", "set", "wg0", "peer", make_peer(90)["public_key"], "peer", make_peer(2)["public_key"], "remove")
    try:
        clean.sh("timeout 30 sh -c 'until grep -q unknown /var/lib/muster/wg0/journal; do sleep 0.1; done'")
        entries = session.ask("journal", after=0)["entries"]
        assert {(entry["what"], entry["public_key"]) for entry in entries} == {
            ("unknown", make_peer(90)["public_key"]),
            ("suspended", make_peer(2)["public_key"]),
        }
    finally:
        clean.sh("pkill -f '[ ]daemon$'")
        daemon.communicate()


def test_the_installed_hooks_bring_the_peers_back_after_a_boot(clean: Machine) -> None:
    install(clean)
    session = clean.session("wg0")
    session.ask("apply", **make_whole(1, [make_peer(1), make_peer(2)], epoch=3))
    clean.sh("ip link del wg0; rm -rf /run/muster; nft flush ruleset; wg-quick up wg0")
    assert len(clean.peers()) == 2
    assert session.ask("observe", full=True)["drift"] == []
    clean.sh("wg-quick save wg0")
    assert [row["what"] for row in session.ask("observe", full=True)["drift"]] == ["conf_peers", "conf_peers"]
    install(clean)
    assert session.ask("observe", full=True)["drift"] == []


def test_a_foreign_interface_is_refused_and_left_as_it_was(clean: Machine) -> None:
    clean.make_interface()
    before = clean.sh("sha256sum /etc/wireguard/wg0.conf")
    error = install(clean, code=1)["error"]
    assert error["code"] == "foreign_conf"
    assert "away" not in error["message"]  # whoever moves it away cuts off all of its clients
    assert clean.sh("sha256sum /etc/wireguard/wg0.conf") == before
    clean.sh("rm /etc/wireguard/wg0.conf")
    assert install(clean, code=1)["error"]["code"] == "foreign_conf"
    clean.sh("test ! -e /root/.ssh/authorized_keys")


def test_a_missing_tool_is_named_when_packages_may_not_be_put_in(clean: Machine) -> None:
    clean.sh("mount --bind /dev/null /usr/sbin/nft")
    try:
        error = install(clean, code=1)["error"]
    finally:
        clean.sh("umount /usr/sbin/nft")
    assert (error["code"], "nft" in error["message"]) == ("packages", True)
    clean.sh("test ! -e /etc/wireguard/wg0.conf")


@pytest.mark.parametrize(
    "changes",
    [
        {"console_key": console_key(1) + " bob@example.com"},
        {"console_key": console_key(1) + "\nssh-ed25519 AAAA"},
        {"console_key": 'command="id" ' + console_key(1)},
        {"console_key": console_key(1)[:-4]},
        {"user": "bob"},
        {"epoch": None},
        {"observe_only": 0},
        {"interface": INTERFACE | {"name": "wg0"}},
        {"hooks": []},
    ],
)
def test_a_wrong_wish_does_nothing(clean: Machine, changes: dict[str, Any]) -> None:
    assert install(clean, code=1, **changes)["error"]["code"] == "bad_request"
    clean.sh("test ! -e /etc/wireguard/wg0.conf; test ! -e /root/.ssh")
