"""A lab as a whole: its servers, who can log in, that labs keep apart, and that nothing is left of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.commands import REPOSITORY, LabError, link_exists, run
from tests.lab.inotify import LIMIT
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.lab.processes import starttime
from tests.lab.slots import HOME, Slot

SSH = [
    "ssh",
    "-F",
    "none",
    "-o",
    "BatchMode=yes",
    "-o",
    "StrictHostKeyChecking=yes",
    "-o",
    "ConnectTimeout=3",
]
CRASH = """
import os, signal
from tests.lab.lab import Lab
lab = Lab()
server, other = lab.add_servers(2, peers=1)
client = lab.add_clients(1)[0]
lab.add_host_behind(server)
server.partition("drop")
other.slow(20)
client.stream(other.address)
print(lab.slot, *[m.pid for m in lab.machines.values()], lab._grounds.processes.pid("relay-s2"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def ssh(lab: Lab, server: Server, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Log in with the lab's key, knowing the lab's host keys only."""
    known = f"UserKnownHostsFile={lab.known_hosts}"
    target = f"root@{server.address}"
    return run([*SSH, "-i", str(lab.ssh_key), "-o", known, *options, target, *words], check=False)


def leftovers(slot: Slot) -> list[str]:
    """What a lab left on this machine: links, mounts, tables, files."""
    links = [name for name in os.listdir("/sys/class/net") if name == slot.bridge or name.startswith(f"{slot.bridge}n")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(slot.folder) in line]
    tables = [t for t in run(["nft", "list", "tables", "bridge"]).stdout.splitlines() if f"{slot.bridge}n" in t]
    return links + mounts + tables + ([str(slot.folder)] if slot.folder.exists() else [])


def is_alive(pid: int) -> bool:
    """A zombie that the machine's init has not yet collected is not alive."""
    return starttime(pid) is not None


def test_a_new_server_has_sshd_and_an_address_and_no_wireguard(lab: Lab) -> None:
    server = lab.add_server()
    assert ssh(lab, server, "hostname").stdout == "s1\n"
    assert server.shell("ls -A /etc/wireguard; ls -A /root; wg show interfaces").split() == [".ssh"]
    printed = run(["ssh-keygen", "-lf", "-"], input=server.host_key + "\n").stdout.split()[1]
    assert server.host_key_fingerprint == printed


def test_an_unknown_key_is_let_in_only_once_it_is_authorized(lab: Lab, tmp_path: Path) -> None:
    server = lab.add_server()
    key = tmp_path / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    login = [
        *SSH,
        "-i",
        str(key),
        "-o",
        f"UserKnownHostsFile={lab.known_hosts}",
        f"root@{server.address}",
        "id",
        "-u",
    ]
    assert run(login, check=False).returncode == 255
    server.authorize(key.with_suffix(".pub").read_text())
    assert run(login).stdout == "0\n"


def test_a_password_logs_in_only_after_it_was_set(lab: Lab, tmp_path: Path) -> None:
    server = lab.add_server()
    asker = tmp_path / "asker"
    asker.write_text("#!/bin/sh\necho 'right horse'\n")
    asker.chmod(0o700)
    options = [o for o in SSH if o not in ("BatchMode=yes",)]
    options[options.index("-o")] = "-v"
    command = [*options, "-o", "NumberOfPasswordPrompts=1", "-o", f"UserKnownHostsFile={lab.known_hosts}"]
    command += ["-o", "PubkeyAuthentication=no", f"root@{server.address}", "id", "-u"]
    environment = {**os.environ, "SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force"}
    assert run(command, check=False, environment=environment).returncode == 255
    server.set_password("root", "right horse")
    assert run(command, environment=environment).stdout == "0\n"


def test_a_plain_user_may_do_everything_by_sudo_if_asked(lab: Lab) -> None:
    server = lab.add_server()
    server.add_user("alice", password="right horse", sudo=True)
    server.add_user("bob")
    as_alice = server.run(["su", "alice", "-c", "sudo -S id -u"], input="right horse\n", check=False)
    as_bob = server.run(["su", "bob", "-c", "sudo -n id -u"], check=False)
    assert (as_alice.stdout, as_bob.stdout) == ("0\n", "")


def test_a_server_behind_a_bastion_is_reached_through_it_only(lab: Lab) -> None:
    bastion = lab.add_bastion()
    inner = lab.add_server("inner", behind=bastion)
    direct = ssh(lab, inner, "hostname")
    known = f"-o UserKnownHostsFile={lab.known_hosts}"
    jump = f"ProxyCommand={' '.join(SSH)} {known} -i {lab.ssh_key} -W %h:%p root@{bastion.address}"
    assert direct.returncode == 255
    assert ssh(lab, inner, "hostname", options=("-o", jump)).stdout == "inner\n"


def test_a_server_with_peers_has_them_in_kernel_and_on_disk_also_after_a_reboot(lab: Lab) -> None:
    server = lab.add_servers(1, peers=20)[0]
    before = sorted(server.run(["wg", "show", "wg0", "peers"]).stdout.split())
    server.reboot()
    assert len(before) == server.read("/etc/wireguard/wg0.conf").count("[Peer]") == 20
    assert sorted(server.run(["wg", "show", "wg0", "peers"]).stdout.split()) == before


def test_a_name_is_given_once(lab: Lab) -> None:
    lab.add_server("vpn-fra")
    with pytest.raises(LabError, match="there is a vpn-fra already"):
        lab.add_server("vpn-fra")


def test_two_labs_side_by_side_do_not_meet(lab: Lab) -> None:
    with Lab() as other:
        ours, theirs = lab.add_clients(1)[0], other.add_server()
        assert other.slot != lab.slot
        assert ours.ping(theirs.address).received == 0
    with pytest.raises(LabError, match=f"slot {lab.slot} is taken"):
        Lab(lab.slot)


def test_a_slot_is_taken_also_for_whoever_has_another_run_folder(lab: Lab) -> None:
    """As in a container that shares this machine's network."""
    script = f"from tests.lab.slots import Slot, try_lock; print(try_lock(Slot({lab.slot})))"
    there = f"mount -t tmpfs tmpfs /run && exec {sys.executable} -c '{script}'"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", there], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert done.stdout == "None\n"


def test_nothing_is_left_of_a_closed_lab() -> None:
    with Lab() as lab:
        slot = Slot(lab.slot)
        servers = lab.add_servers(10, peers=1)
        lab.add_clients(1)[0].stream(servers[0].address)
        servers[1].partition()
        servers[2].slow(10)
        servers[3].power_off()
        pids = [m.pid for m in lab.machines.values() if m.is_on]
        assert leftovers(slot) != []
    assert leftovers(slot) == []
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_sweep_takes_away_all_that_a_killed_process_left(lab: Lab) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    number, *pids = map(int, done.stdout.split())
    assert [pid for pid in pids if not is_alive(pid)] == []
    assert Lab.sweep(number) == [number]
    assert leftovers(Slot(number)) == []
    assert [pid for pid in pids if is_alive(pid)] == []
    assert lab.slot != number and link_exists(Slot(lab.slot).bridge)


def test_the_command_line_makes_a_lab_that_stays_until_it_is_taken_down() -> None:
    python = [sys.executable, "-m", "tests.lab"]
    number = next(n for n in range(15, -1, -1) if not Slot(n).folder.exists())
    slot = ["--slot", str(number)]
    run([*python, *slot, "up", "--servers", "2", "--clients", "1"])
    try:
        assert run([*python, *slot, "exec", "s2", "--", "hostname"]).stdout == "s2\n"
        run([*python, *slot, "partition", "s1", "--mode", "drop"])
        run([*python, *slot, "off", "s2"])
        listed = [line.split() for line in run([*python, "status"]).stdout.splitlines()]
        ours = [[words[1], *words[3:]] for words in listed if words[0] == str(number)]
        assert ours == [["s1", "on", "drop"], ["s2", "off"], ["c1", "on"]]
        assert Lab.sweep(number) == []
    finally:
        run([*python, *slot, "down"])
    assert leftovers(Slot(number)) == []


def test_the_inotify_limit_is_raised_while_a_lab_is_up(lab: Lab) -> None:
    assert int(LIMIT.read_text()) >= 4096
    before = HOME / "inotify-before"
    assert not before.exists() or int(before.read_text()) < 4096
