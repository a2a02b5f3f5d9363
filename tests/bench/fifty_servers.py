"""One Device revoked on 50 real servers, by Muster and by what operators use today, in one run."""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import console as consoles
from tests.bench.measure import Figures, say, seconds, settle_down, trials
from tests.bench.rivals import PLAYBOOK, RAW, Rivals, one_command
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.lab.tunnels import dummy_public_keys
from tests.lab.waiting import wait_for

TARGET = dummy_public_keys(1, seed=4711)[0]


def measure(given: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        return muster(Path(folder), given) | rivals(Path(folder), given)


def muster(folder: Path, given: argparse.Namespace) -> Figures:
    """From the API call to the last receipt, with Django, Celery and the database in it."""
    say(f"{given.servers} servers, {given.peers} peers each, enrolled by the Console ...")
    data = folder / "console"
    data.mkdir()
    with Lab() as lab, consoles.running_console(data) as console:
        machines = lab.add_servers(given.servers)
        devices = consoles.populate(console, machines, lab.ssh_key.read_text(), given.peers)
        found = []
        for device in devices[: given.rounds + 1]:
            wait_for(lambda: console.behind() == 0, 120, "the push that follows")
            settle_down()
            found.append(consoles.revoke(console, device, given.servers))
            say(f"  muster {found[-1].seen:.3f} s")
        memory = resident_mib(console.worker_pid())
    # The first one also pays for what is loaded once; it is told apart and not counted.
    counted = found[1:]
    return {
        "revoke50_muster_s": statistics.median(timing.seen for timing in counted),
        "revoke50_muster_worst_s": max(timing.seen for timing in counted),
        "revoke50_muster_cold_s": found[0].seen,
        "part_api_answered_s": statistics.median(timing.answered for timing in counted),
        "part_first_receipts_s": statistics.median(timing.first_receipts for timing in counted),
        "part_last_receipts_s": statistics.median(timing.last_receipts for timing in counted),
        "worker_rss_mib": memory,
    }


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no such process: {pid}")


def rivals(folder: Path, given: argparse.Namespace) -> Figures:
    """The same on hand-made servers of the same size."""
    with Lab() as lab:
        machines = lab.add_servers(given.servers, peers=given.peers - 1)
        other = Rivals(folder / "rivals", machines, lab.ssh_key, lab.known_hosts)
        other.prepare()
        try:
            return {name: trial(name, job, machines, given.rounds) for name, job in methods(other).items()}
        finally:
            other.close()


def methods(other: Rivals) -> dict[str, Callable[[], float]]:
    def warm_first(warm: Callable[[], None], job: Callable[[], None]) -> Callable[[], float]:
        def one() -> float:
            warm()
            settle_down()
            return seconds(job)

        return one

    command = one_command(TARGET)
    raw = RAW.format(command=command)
    return {
        "revoke50_xargs_fresh_s": lambda: seconds(lambda: other.ssh(command, warm=False)),
        "revoke50_xargs_warm_s": warm_first(
            lambda: other.ssh("true", warm=True), lambda: other.ssh(command, warm=True)
        ),
        "revoke50_ansible_raw_s": warm_first(other.warm_ansible, lambda: other.play(raw)),
        "revoke50_ansible_s": warm_first(other.warm_ansible, lambda: other.play(PLAYBOOK.format(key=TARGET))),
    }


def trial(name: str, job: Callable[[], float], machines: list[Server], rounds: int) -> float:
    def one() -> float:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(give_target, machines))
        took = job()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(check_gone, machines))
        say(f"  {name} {took:.3f} s")
        return took

    return trials(rounds, one)


def give_target(machine: Server) -> None:
    """The peer that is to be revoked, in the kernel and in the conf."""
    machine.run(["wg", "set", "wg0", "peer", TARGET, "allowed-ips", "10.255.0.1/32"])
    lines = f"\n[Peer] # target\nPublicKey = {TARGET} # target\nAllowedIPs = 10.255.0.1/32 # target\n"
    machine.run(["sh", "-c", "cat >> /etc/wireguard/wg0.conf"], input=lines)


def check_gone(machine: Server) -> None:
    if TARGET in machine.run(["wg", "show", "wg0", "peers"]).stdout or TARGET in machine.read(
        "/etc/wireguard/wg0.conf"
    ):
        raise RuntimeError(f"{machine.name} still has the key")


def show(figures: Figures, given: argparse.Namespace) -> None:
    ours = figures["revoke50_muster_s"]
    print(f"Revoke one Device on {given.servers} servers with {given.peers} peers each (medians of {given.rounds};")
    print("servers, Console and rivals share this machine's cores)\n")
    for name, value in figures.items():
        ratio = f"{value / ours:8.1f} x" if name.startswith("revoke50_") and name != "revoke50_muster_s" else ""
        print(f"  {name:32} {value:10.3f} {ratio}")
