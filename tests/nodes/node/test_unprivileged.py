"""Whoever is not root on a server reads nothing of the node, changes nothing of it and keeps nothing from it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import PROGRAM, Machine, Session

PEERS = [make_peer(n) for n in range(4)]
NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
FILES = {
    "/etc/wireguard/wg0.conf",
    *(f"/var/lib/muster/{name}" for name in ("clock", "tombstones", "tombstones.copy")),
    *(f"/var/lib/muster/wg0/{name}" for name in ("journal", "state", "state.last")),
    *(f"/run/muster/{name}" for name in ("clock", "clock.lock", "tombstones.lock")),
    *(f"/run/muster/{name}" for name in ("wg0.lock", "wg0.journal.lock", "wg0.seen")),
}
COMMANDS = {
    "session": ["session", "wg0"],
    "observe": ["observe", "wg0"],
    "revoke": ["revoke", "wg0", make_key(1), "--reason", "x"],
    "suspend": ["suspend", "wg0", make_key(1), "--reason", "x"],
    "tick": ["tick", "wg0"],
    "load": ["load", "wg0"],
    "close": ["close", "wg0"],
    "seal": ["seal", "wg0"],
    "daemon": ["daemon"],
}
# Files that a unit of root's names and somebody else owns: now they are files, now pipes that nobody writes into.
NAMED = [f"/home/alice/now/{n}" for n in range(40)]
UNIT = f"""
mkdir -p /home/alice /etc/systemd/system && chown nobody /home/alice
echo ExecStart={" ".join(NAMED)} > /etc/systemd/system/alice.service
"""
FLICKER = f"""
import os
os.chdir("/home/alice")
os.mkdir("pipes")
os.mkdir("files")
for n in range({len(NAMED)}):
    os.mkfifo("pipes/%d" % n)
    open("files/%d" % n, "w").close()
print(os.getpid(), flush=True)
while True:
    for n in range({len(NAMED)}):
        os.utime("files/%d" % n)
        for name in ("pipes", "files"):
            os.symlink(name, "new")
            os.rename("new", "now")
"""


@pytest.fixture
def held(machine: Machine, session: Session) -> Iterator[Machine]:
    """A machine with every file that a node ever has."""
    session.ask("apply", **make_whole(2, PEERS, tombstones=[dead(80)]))
    session.ask("time", now=int(time.time()))
    machine.run("muster-node", "suspend", "wg0", make_key(3), "--reason", "lost")
    yield machine


def as_nobody(machine: Machine, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = [*machine.enter, *NOBODY, *words]
    return subprocess.run(done, input=stdin, capture_output=True, timeout=20, check=False)


def picture(machine: Machine) -> tuple[str, list[str]]:
    files = machine.sh("cd /; sha256sum " + " ".join(sorted(FILES)))
    return files, sorted(machine.run("wg", "show", "wg0", "dump").splitlines())


def test_nobody_else_can_read_write_replace_or_lock_a_file_of_the_node(held: Machine) -> None:
    """C3: all that there is; locks too, as one who held them could hold up every apply."""
    places = "/var/lib/muster /run/muster /etc/wireguard"
    assert set(held.sh(f"find {places} -type f").split()) == FILES
    folders = held.sh(f"find {places} -type d").split()
    assert set(held.sh("stat -c %a " + " ".join(folders)).split()) == {"700"}
    assert set(held.sh("stat -c '%a %U' " + " ".join(FILES)).splitlines()) == {"600 root"}
    before = picture(held)
    for path in FILES:
        for attempt in ('cat "$0"', 'echo x >> "$0"', 'mv /dev/null "$0"', 'rm -f "$0"', 'flock -n "$0" true'):
            assert as_nobody(held, "sh", "-c", attempt, path).returncode != 0, (attempt, path)
    for folder in [*folders, "/run", "/var/lib"]:
        for attempt in ('ls "$0" | grep .', 'touch "$0/x"', 'mkdir "$0/muster.new"', 'ln -s /etc/passwd "$0/y"'):
            if "ls" not in attempt or folder in folders:
                assert as_nobody(held, "sh", "-c", attempt, folder).returncode != 0, (attempt, folder)
    assert picture(held) == before
    assert as_nobody(held, "cat", "/etc/passwd").returncode == 0


def test_a_node_as_somebody_else_says_so_and_does_nothing(held: Machine) -> None:
    """B8."""
    before = picture(held)
    for words in COMMANDS.values():
        done = as_nobody(held, PROGRAM, *words)
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"muster-node: run it as root\n"), words
    assert picture(held) == before
    assert as_nobody(held, PROGRAM, "--version").returncode == 0
    assert held.run(PROGRAM, "tick", "wg0") == '{"ok":true}\n'


def test_nobody_else_can_end_or_look_into_a_session(held: Machine) -> None:
    session = held.session("wg0")
    assert session.ask("hello")["ok"]
    pid = held.sh("pgrep -f 'muster_node.py session wg0' | tail -1").strip()
    for attempt in ("kill -9 $0", "kill -STOP $0", "cat /proc/$0/environ", "ls /proc/$0/fd/", "cat /proc/$0/mem"):
        assert as_nobody(held, "sh", "-c", attempt, pid).returncode != 0, attempt
    assert session.ask("revoke", keys=[dead(0)])["receipts"][0]["kernel"]


def test_what_stands_first_on_the_callers_path_is_not_what_is_run(held: Machine) -> None:
    """B16: nor what lies where he stands, or where he says that Python should look."""
    evil = (
        'mkdir -p /run/evil; cd /run/evil; echo \'open("/run/pwned", "w")\' | tee json.py sitecustomize.py > /dev/null'
    )
    planted = "for name in wg ip nft systemctl python3; do printf '#!/bin/sh\\ntouch /run/pwned\\n' > $name; done"
    held.sh(f"{evil}; {planted}; chmod 755 *")
    found = "PATH=/run/evil:$PATH PYTHONPATH=/run/evil PYTHONSTARTUP=/run/evil/json.py PYTHONHOME="
    for name in ("observe", "tick", "load", "revoke"):
        held.sh(f"cd /run/evil; {found} {PROGRAM} " + " ".join(COMMANDS[name]))
        held.sh("test ! -e /run/pwned")
    assert make_key(1) not in held.peers()
    held.sh("cd /run/evil; PATH=/run/evil:$PATH wg; test -e /run/pwned; rm -r /run/pwned /run/evil")


@pytest.mark.timeout(25)
def test_a_pipe_in_the_place_of_a_file_that_a_unit_names_holds_up_no_receipt(held: Machine) -> None:
    """D1: a hundred revokes while their owner swaps them as fast as he can."""
    held.sh(UNIT)
    start = [*held.enter, *NOBODY, "/usr/bin/python3", "-IS", "-c", FLICKER]
    flicker = subprocess.Popen(start, stdout=subprocess.PIPE, text=True)
    assert flicker.stdout
    pid = flicker.stdout.readline().strip()
    session, took = held.session("wg0"), []
    try:
        for number in range(100, 200):
            began = time.monotonic()
            (receipt,) = session.ask("revoke", keys=[dead(number)])["receipts"]
            took.append(time.monotonic() - began)
            assert receipt["durable"] and receipt["kernel"]
            assert {place.partition(":")[2] for place in receipt["found"]} <= set(NAMED)
        assert flicker.poll() is None, "it ended by itself"
    finally:
        held.run("kill", pid)
        flicker.communicate(timeout=10)
        held.sh("rm -r /home/alice /etc/systemd/system/alice.service")
    assert max(took) < 5
    assert session.ask("revoke", keys=[dead(200)])["receipts"][0]["disk"]
