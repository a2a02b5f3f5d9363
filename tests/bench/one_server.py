"""One server with 10,000 peers: the real script and the real wireguard-go, as a session, daemon or person uses them."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.measure import Figures, rests, say, seconds, settle_down
from tests.lab.waiting import wait_for
from tests.nodes.node.build import INTERFACE, dead, digest_of, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import PROGRAM, Machine, Session

Json = dict[str, Any]
TICK, WINDOW = 5.0, 4
ADDRESSES = ["10.1.0.1/16", "fd00:1::1/64"]
MEGABYTE = 1_000_000
TARGETS = {
    "one_server_apply_s": 5.0,
    "one_server_revoke_s": 0.1,
    "one_server_tick_cpu_ms": 50.0,
    "one_server_session_peak_mb": 60.0,
    "one_server_daemon_peak_mb": 60.0,
}


def measure(given: argparse.Namespace) -> Figures:
    """Medians, each trial on a machine of its own."""
    say(f"one server, {given.crowd} peers ...")
    found = []
    for _ in range(given.rounds):
        found.append(trial(given.crowd, settle_down, WINDOW))
        say("  " + " ".join(f"{name.removeprefix('one_server_')} {value:.3f}" for name, value in found[-1].items()))
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def missed(figures: Figures) -> list[str]:
    """The targets that were measured and not met."""
    return [name for name, most in TARGETS.items() if name in figures and figures[name] > most]


def show(figures: Figures, given: argparse.Namespace) -> None:
    print(f"One server with {given.crowd} peers (medians of {given.rounds})\n")
    for name, value in figures.items():
        verdict = "MISSED" if name in missed(figures) else "met"
        target = f"at most {TARGETS[name]:6g}   {verdict}" if name in TARGETS else ""
        print(f"  {name:32} {value:10.3f}   {target}".rstrip())


class Box(Machine):
    """A machine on which the script is run as installed, by the machine's own Python."""

    def words(self, *words: str) -> list[str]:
        return [*self.enter, PROGRAM if words[0] == "muster-node" else words[0], *words[1:]]


def trial(crowd: int, settle: Callable[[], None], ticks: int) -> Figures:
    """Every figure once; RuntimeError where the node did not do what was timed."""
    box = Box()
    try:
        box.make_interface(address=ADDRESSES[0])
        figures = requests(box, crowd, settle)
        settle()
        took = seconds(lambda: box.run("muster-node", "revoke", "wg0", make_key(2), "--reason", "benchmark"))
        figures["one_server_revoke_cli_s"] = took
        check(make_key(2) not in box.peers(), "the key is gone")
        figures |= daemon(box, settle, ticks)
        restart(box)
        settle()
        figures["one_server_load_s"] = seconds(lambda: box.run("muster-node", "load", "wg0"))
        check(len(box.peers()) == crowd - 1, "all but the revoked are loaded")
        return figures
    finally:
        box.end()


def restart(box: Box) -> None:
    """The interface as a boot makes it: closed, and without peers."""
    box.run("ip", "link", "del", "wg0")
    wait_for(lambda: not box.sh("ls /run/wireguard"), 60, "wireguard-go to end")
    box.run("muster-node", "close", "wg0")
    box.run("wg-quick", "up", "wg0")


def requests(box: Box, crowd: int, settle: Callable[[], None]) -> Figures:
    """What a session is asked, over one session."""
    interface = INTERFACE | {"addresses": ADDRESSES}
    peers = [make_peer(number) for number in range(crowd + 1)]
    first, second = (digest_of(rows, interface) for rows in (peers[:crowd], peers))
    delta = make_delta(2, [], peers[crowd:], digest=second, base=first)
    session = box.session("wg0")
    timed = Timed(session, settle)
    answer = timed("apply", "apply", **make_whole(1, peers[:crowd], interface=interface))
    check(answer["changed"]["added"] == crowd and not answer["drift"], "every peer is in")
    answer = timed("delta", "apply", **delta)
    check(answer["changed"] == {"removed": 0, "added": 1, "updated": 0}, "one peer more is in")
    receipt = timed("revoke", "revoke", keys=[dead(1)])["receipts"][0]
    check(receipt["durable"] and receipt["kernel"] and receipt["disk"], "the receipt holds")
    check(len(timed("observe_full", "observe", full=True)["peers"]) == crowd, "all but one are seen")
    check(timed("observe_delta", "observe", full=False)["peers"] == [], "nothing has changed since")
    pid = child_of(session.process)
    return {**timed.figures, "one_server_session_peak_mb": peak_mb(pid)}


class Timed:
    """Asks over a session, and keeps the seconds from the request's first byte to the answer's last."""

    def __init__(self, session: Session, settle: Callable[[], None]) -> None:
        self.session, self.settle = session, settle
        self.figures: Figures = {}

    def __call__(self, name: str, op: str, **fields: Any) -> Json:
        line = json.dumps({"v": 1, "id": 1, "op": op, **fields}).encode() + b"\n"
        streams = self.session.process
        assert streams.stdin and streams.stdout
        self.settle()
        began = time.monotonic()
        streams.stdin.write(line)
        streams.stdin.flush()
        said = streams.stdout.readline()
        self.figures[f"one_server_{name}_s"] = time.monotonic() - began
        answer: Json = json.loads(said)
        check(answer["ok"], f"{op}: {said[:300]!r}")
        return answer


def daemon(box: Box, settle: Callable[[], None], ticks: int) -> Figures:
    """What its quiet ticks cost: the daemon with the programs that it runs, and wireguard-go that answers those."""
    with running_daemon(box) as pid:
        settle()
        before, slept = (own_and_childrens_ms(pid), wireguard_ms(box)), number_in_status(pid, "voluntary_ctxt_switches")
        end = time.monotonic() + ticks * TICK
        wait_for(lambda: time.monotonic() > end, ticks * TICK + 5, "the window to end", interval=0.1)
        after = own_and_childrens_ms(pid), wireguard_ms(box)
        check(number_in_status(pid, "voluntary_ctxt_switches") >= slept + ticks, "the daemon woke for each tick")
        peak = peak_mb(pid)
    return {
        "one_server_tick_cpu_ms": (after[0] - before[0]) / ticks,
        "one_server_tick_wireguard_go_ms": (after[1] - before[1]) / ticks,
        "one_server_daemon_peak_mb": peak,
    }


@contextmanager
def running_daemon(box: Box) -> Iterator[int]:
    """Its pid, once the first tick is over; that one reads all there is, and is not quiet."""
    box.run("rm", "/run/muster/wg0.seen")
    process = box.popen("muster-node", "daemon")
    pid = wait_for(lambda: child_of(process), 10, "the daemon to start")
    try:
        wait_for(lambda: "wg0.seen" in box.run("ls", "/run/muster").split(), 30, "the first tick")
        wait_for(lambda: rests(lambda: own_and_childrens_ms(pid)), 30, "its end")
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        process.communicate(timeout=10)


def child_of(process: "subprocess.Popen[bytes]") -> int:
    """The pid of the one program that nsenter has started; 0 before it has."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pids[0]) if pids else 0


def own_and_childrens_ms(pid: int) -> float:
    """CPU of a process and of all that it has started and seen end."""
    return sum(times_ms(Path(f"/proc/{pid}/stat").read_text()))


def wireguard_ms(box: Box) -> float:
    return sum(times_ms(box.sh("cat /proc/$(pgrep -x wireguard-go)/stat"))[:2])


def times_ms(stat: str) -> list[float]:
    """(user, system, of ended children: user, system) out of a process's line in /proc."""
    return [int(text) * 1000 / os.sysconf("SC_CLK_TCK") for text in stat.rpartition(")")[2].split()[11:15]]


def peak_mb(pid: int) -> float:
    """The most memory that a process has ever held."""
    return number_in_status(pid, "VmHWM") * 1024 / MEGABYTE


def number_in_status(pid: int, name: str) -> int:
    rows = dict(row.split(":") for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(rows[name].split()[0])


def check(holds: object, what: str) -> None:
    if not holds:
        raise RuntimeError(f"no: {what}")
