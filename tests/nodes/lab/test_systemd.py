"""Our units and the drop-in as a real systemd reads them: the daemon in its sandbox, reload, restart, SaveConfig."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.commands import Completed, run
from tests.lab.fixtures import module_lab
from tests.lab.floods import Flood
from tests.lab.lab import Lab
from tests.lab.machines import Client
from tests.lab.packets import Stream
from tests.lab.systemd import Systemd
from tests.lab.tunnels import KeyPair, new_keypair
from tests.lab.waiting import wait_for
from tests.nodes.lab.alone import GATEWAY, Alone, address_of, alone, new_peers, peer
from tests.nodes.node.build import Json

__all__ = ["module_lab"]
pytestmark = pytest.mark.lab

TICK = 5.0
CONF, SAID = "/etc/wireguard/wg0.conf", "/run/lab-daemon.log"
FORWARDING = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
# As the power cut finds it: nothing in memory.
CLEAR = """\
kill -9 -- -$(cat /run/lab-units/muster-node.service 2>/dev/null) 2>/dev/null || true
ip link del wg0
rm -rf /run/muster /run/lab-units /run/wireguard/*
nft flush ruleset
echo 0 >/proc/sys/net/ipv4/ip_forward
"""
TRY = "touch {0}/try 2>/dev/null && rm {0}/try && echo {0}"


@dataclass
class Ground:
    """One server under systemd. Alice has a stock client and sends all along; Bob and Carol never wait."""

    node: Alone
    systemd: Systemd
    pairs: list[KeyPair]
    peers: list[Json]
    lab: Lab
    client: Client
    alice: Stream
    bob: Flood
    carol: Flood

    @property
    def keys(self) -> list[str]:
        return [pair.public_key for pair in self.pairs]

    def wake_alice(self) -> None:
        """A stock client takes 15 s to ask for a new session after its server lost the old one; a new one none."""
        self.client.disconnect()
        self.client.connect(self.node.tunnel_file(self.pairs[0], address_of(0)))
        self.alice.wait_for_reply(20, after=time.monotonic())

    def put_into_conf(self, *rows: str) -> None:
        self.node.machine.shell(f"printf '{''.join(row + chr(92) + 'n' for row in rows)}' >>{CONF}")

    def carol_in_conf(self) -> None:
        self.put_into_conf("[Peer]", f"PublicKey = {self.keys[2]}", "AllowedIPs = 10.1.0.0/24")

    def conf(self) -> str:
        return self.node.machine.read(CONF)


@pytest.fixture(scope="module")
def shared(module_lab: Lab) -> Iterator[Ground]:
    """Carol is revoked; systemd has booted the machine's services."""
    node = alone(module_lab.add_server())
    pairs, peers = new_peers(3)
    node.push(peers)
    node.revoke(pairs[2].public_key)
    client = module_lab.add_clients(1)[0]
    node.machine.put("/etc/systemd/system/muster-node.service.d/lab.conf", f"[Service]\nStandardError=append:{SAID}\n")
    node.machine.shell(CLEAR)
    with Systemd(node.machine) as systemd:
        systemd.boot()
        bob, carol = (node.flood(client, pairs[number], address_of(number)) for number in (1, 2))
        client.connect(node.tunnel_file(pairs[0], address_of(0)))
        yield Ground(node, systemd, pairs, peers, module_lab, client, client.stream(GATEWAY), bob, carol)
        bob.close()
        carol.close()


@pytest.fixture
def ground(shared: Ground) -> Iterator[Ground]:
    """Alice and Bob get through before each test."""
    conf = shared.conf()
    shared.wake_alice()
    shared.bob.wait_for_reply(time.monotonic())
    yield shared
    shared.node.machine.put(CONF, conf, 0o600)


def inside_daemon(ground: Ground, script: str) -> list[str]:
    """The lines that a script writes among what the daemon sees, with the daemon's own rights on files."""
    pid = ground.systemd.show("muster-node", "MainPID")
    rights = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs"]
    return ground.systemd.run("nsenter", "-t", pid, "-m", "--", *rights, "sh", "-c", script, check=False).stdout.split()


def test_a_boot_of_both_units_side_by_side_alarms_nobody(ground: Ground) -> None:
    """The daemon ticks while wg-quick is still at it."""
    assert ground.systemd.systemctl("is-active", "muster-node", "wg-quick@wg0").stdout.split() == ["active", "active"]
    assert (ground.node.machine.read(SAID), ground.node.journal(), ground.node.drift()) == ("", [], [])


def test_systemd_runs_the_daemon_with_the_rights_that_its_unit_says(ground: Ground) -> None:
    status = ground.systemd.run("cat", f"/proc/{ground.systemd.show('muster-node', 'MainPID')}/status").stdout
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (rows["NoNewPrivs"], rows["Seccomp"], int(rows["CapEff"], 16)) == ("1", "2", 1 << 12)
    folders = ["/", "/etc", "/etc/wireguard", "/usr/local/sbin", "/var/lib", "/root", "/home"]
    tried = "\n".join(TRY.format(folder) for folder in [*folders, "/var/lib/muster", "/run/muster"])
    assert inside_daemon(ground, tried) == ["/var/lib/muster", "/run/muster"]
    # Its own empty /tmp; the homes cannot even be listed.
    assert inside_daemon(ground, "ls /tmp /root /home") == ["/tmp:"]
    settings = ["kernel/hostname", "net/ipv4/ip_forward"]
    writes = "\n".join(f"(cat /proc/sys/{one} >/proc/sys/{one}) 2>/dev/null && echo {one}" for one in settings)
    assert inside_daemon(ground, writes) == ["net/ipv4/ip_forward"]


def put_in(ground: Ground) -> None:
    """The revoked key, with its address, by hand."""
    ground.node.machine.run(["wg", "set", "wg0", "peer", ground.keys[2], "allowed-ips", f"{address_of(2)}/32"])


def test_the_daemon_takes_out_and_leaves_out_inside_its_sandbox(ground: Ground) -> None:
    """D11, E10: a revoked key put in by hand, and a peer taken out by hand."""
    began = time.monotonic()
    put_in(ground)
    ground.carol.wait_for_reply(began)
    wait_for(lambda: ground.node.keys() == set(ground.keys[:2]), TICK + 2, "the tick to take it out")
    out = time.monotonic()
    assert ("tombstoned", ground.keys[2]) in ground.node.journal()
    done = ground.alice.wait_for_reply(5, after=out)
    assert (ground.alice.lost(since=began, until=done), ground.carol.replies(out)) == (0, [])
    ground.node.machine.run(["wg", "set", "wg0", "peer", ground.keys[0], "remove"])
    wait_for(lambda: ("suspended", ground.keys[0]) in ground.node.journal(), TICK + 2, "the local suspend")
    ground.node.push(ground.peers)
    assert ground.node.keys() == set(ground.keys[:2])


def test_a_deleted_interface_is_back_within_a_tick_and_forwards(ground: Ground) -> None:
    """E10, F15: by asking systemd, whose PostUp is our load; the daemon waits for neither."""
    ground.node.machine.shell(f"ip link del wg0; for one in {FORWARDING}; do echo 0 >$one; done")
    gone = time.monotonic()
    took = ground.bob.wait_for_reply(gone, 3 * TICK) - gone
    print(f"back after {took:.1f} s")
    assert took < TICK + 5
    wait_for(lambda: ground.node.keys() == set(ground.keys[:2]), 5, "both peers")
    assert ground.node.machine.shell(f"cat {FORWARDING}").split() == ["1", "1"]
    wait_for(lambda: ground.node.drift() == [], 5, "nothing to differ")
    assert ground.node.journal()[-1] == ("restored", None)
    assert ground.node.machine.read(SAID) == "muster-node: wg0 is gone; asking for wg-quick@wg0.service\n"


def test_an_interface_that_came_without_our_hooks_is_loaded_by_the_daemon_alone(ground: Ground) -> None:
    """E10, F15: also its masquerade and the machine's forwarding, from behind a read-only /proc/sys."""
    bare = f"sed -i '/^PostUp/d;/^PreUp/d' {CONF}; ip link del wg0; nft flush ruleset"
    zero = f"for one in {FORWARDING}; do echo 0 >$one; done"
    ended = "until ! ip link show wg0 && ! test -e /run/wireguard/wg0.sock; do sleep 0.01; done"
    ground.node.machine.shell(f"{bare}; {zero}; {ended}; wg-quick up wg0")
    ground.bob.wait_for_reply(time.monotonic(), 2 * TICK)
    wait_for(lambda: ground.node.machine.shell(f"cat {FORWARDING}").split() == ["1", "1"], 5, "the forwarding")
    assert "masquerade" in ground.node.machine.shell("nft list ruleset")


def test_reload_loses_no_packet_of_a_live_client(ground: Ground) -> None:
    """D11: and takes out at once what was put in; the stock reload, as a control, empties the interface."""
    began = time.monotonic()
    put_in(ground)
    for _ in range(5):
        ground.systemd.systemctl("reload", "wg-quick@wg0")
    assert ground.node.keys() == set(ground.keys[:2])
    done = ground.alice.wait_for_reply(5, after=time.monotonic())
    assert ground.alice.lost(since=began, until=done) == 0
    ground.node.machine.run(["bash", "-c", "exec wg syncconf wg0 <(exec wg-quick strip wg0)"])
    assert ground.node.keys() == set()
    ground.systemd.systemctl("reload", "wg-quick@wg0")
    assert ground.node.keys() == set(ground.keys[:2])


def settings_in(conf: str) -> set[str]:
    return {row.partition("=")[0].strip() for row in conf.split("\n") if row and not row.startswith("#")}


def test_a_restart_takes_peers_and_saveconfig_out_of_the_conf_before_it_starts(ground: Ground) -> None:
    """D11."""
    conf, began = ground.conf(), time.monotonic()
    ground.node.machine.shell(f"sed -i 's/^ListenPort/SaveConfig = true\\n&/' {CONF}")
    ground.carol_in_conf()
    assert ground.node.drift() == ["conf_peers"]
    ground.systemd.systemctl("restart", "wg-quick@wg0")
    ground.bob.wait_for_reply(time.monotonic())
    assert ground.node.keys() == set(ground.keys[:2])
    # SaveConfig had wg-quick write the conf anew, peers in it, when it went down.
    assert settings_in(ground.conf()) == settings_in(conf)
    assert (ground.node.drift(), ground.carol.replies(began)) == ([], [])


def test_saveconfig_by_hand_saves_nobody_who_may_not_come_back(ground: Ground) -> None:
    """D11: down writes every peer into the conf, and up by hand loads them before any hook of ours."""
    began = time.monotonic()
    ground.node.machine.shell(f"sed -i 's/^ListenPort/SaveConfig = true\\n&/' {CONF}; wg-quick down wg0")
    assert ground.conf().count("[Peer]") == 2
    ground.carol_in_conf()
    ground.node.machine.run(["wg-quick", "up", "wg0"])
    ground.bob.wait_for_reply(time.monotonic())
    assert ground.node.keys() == set(ground.keys[:2])
    assert set(ground.node.drift()) == {"conf_peers"}
    ground.systemd.systemctl("restart", "wg-quick@wg0")
    assert (ground.conf().count("[Peer]"), ground.conf().count("SaveConfig"), ground.node.drift()) == (0, 0, [])
    assert ground.conf().count("PreUp") == ground.conf().count("PostUp") == 1
    assert ground.carol.replies(began) == []


def test_save_and_strip_of_wg_quick_hurt_nobody(ground: Ground) -> None:
    """D11: what `wg-quick save` writes is told of as drift until a start takes it out."""
    began = time.monotonic()
    ground.node.machine.run(["wg-quick", "save", "wg0"])
    assert ground.node.drift() == ["conf_peers", "conf_peers"]
    assert ground.node.machine.shell("wg-quick strip wg0").count("[Peer]") == 2
    ground.systemd.systemctl("reload", "wg-quick@wg0")
    done = ground.alice.wait_for_reply(5, after=time.monotonic())
    assert ground.alice.lost(since=began, until=done) == 0


def test_the_daemon_is_stopped_and_started_within_a_second_and_nobody_notices(ground: Ground) -> None:
    began = time.monotonic()
    ground.systemd.systemctl("stop", "muster-node")
    assert time.monotonic() - began < 1
    assert ground.systemd.show("muster-node", "Result") == "success"
    ground.systemd.systemctl("start", "muster-node")
    done = ground.alice.wait_for_reply(5, after=time.monotonic())
    assert ground.alice.lost(since=began, until=done) == 0


def by_ssh(ground: Ground, folder: Path, op: str, **fields: object) -> Completed:
    """One request through the real door, with the Console's key."""
    key = folder / "console_key"
    key.write_text(ground.node.machine.read("/run/console_key"))
    key.chmod(0o600)
    options = ["-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    options += ["-o", f"UserKnownHostsFile={ground.lab.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    line = json.dumps({"v": 1, "id": 1, "op": op, **fields}) + "\n"
    return run(["ssh", *options, f"root@{ground.node.machine.address}"], input=line, check=False)


@contextmanager
def guest(ground: Ground, expires_at: int | None = None) -> Iterator[Flood]:
    """One more key, which gets through before the test goes on."""
    pair = new_keypair()
    ground.node.push([*ground.peers, peer(pair, address_of(9), expires_at)])
    flood = ground.node.flood(ground.client, pair, address_of(9))
    try:
        flood.wait_for_reply(0)
        yield flood
    finally:
        flood.close()


def test_the_ssh_door_works_with_the_daemon_dead(ground: Ground, tmp_path: Path) -> None:
    """D1: by packets; the others go on."""
    with guest(ground) as dave:
        ground.systemd.systemctl("stop", "muster-node")
        item = {"public_key": dave.public_key, "reason": "lost"}
        answer = json.loads(by_ssh(ground, tmp_path, "revoke", keys=[item]).stdout)
        shut = time.monotonic()
        assert [row["kernel"] and row["disk"] for row in answer["receipts"]] == [True]
        ground.systemd.systemctl("start", "muster-node")
        ground.bob.wait_for_reply(shut + 1)
        assert dave.replies(shut + 0.1) == []
        assert len(dave.begun(shut)) > 50


def test_the_daemon_works_with_ssh_dead(ground: Ground, tmp_path: Path) -> None:
    """D10, E11: what ends goes on time; the others go on."""
    assert by_ssh(ground, tmp_path, "hello").returncode == 0
    end = int(time.time()) + 4
    with guest(ground, expires_at=end) as dave:
        ground.node.machine.shell("kill $(cat /run/sshd.pid); while [ -e /run/sshd.pid ]; do sleep 0.01; done")
        try:
            assert by_ssh(ground, tmp_path, "hello").returncode == 255
            wait_for(lambda: ground.node.keys() == set(ground.keys[:2]), 4 + TICK + 3, "the end of her access")
            out = time.monotonic()
            ground.bob.wait_for_reply(out + 0.5)
            assert dave.replies(out) == []
        finally:
            ground.node.machine.shell("/usr/sbin/sshd -E /run/sshd.log")
    assert by_ssh(ground, tmp_path, "hello").returncode == 0


def test_systemd_finds_nothing_wrong_with_the_units(ground: Ground) -> None:
    for unit in ("/etc/systemd/system/muster-node.service", "wg-quick@wg0.service"):
        assert (
            ground.systemd.run("sh", "-c", f"systemd-analyze verify --man=no --recursive-errors=no {unit} 2>&1").stdout
            == ""
        )
