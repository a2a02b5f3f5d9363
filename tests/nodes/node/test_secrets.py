"""No secret leaves a node, whatever goes wrong; and no file of it was ever open to others, not for an instant."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import INTERFACE, Json, dead, make_key, make_peer, make_whole, make_wish
from tests.nodes.node.machine import PROGRAM, Machine
from tests.nodes.node.traces import STRACE, made, programs

PEERS = [make_peer(n) for n in range(6)]
PRIVATE = ("/var/lib/muster", "/run/muster", "/etc/wireguard", "/root/.ssh")
# Text that anybody may read: units, and folders on the way to them.
PUBLIC = ("/etc/systemd/", "/dev/", "/proc/")
KNOWN: Json = {"epoch": 3, "journal_seen": 100}
REQUESTS: list[Json] = [
    {"op": "hello"},
    {"op": "apply", **make_whole(2, [*PEERS[1:], make_peer(7)], tombstones=[dead(80)], **KNOWN)},
    {"op": "apply", **make_whole(3, [], **KNOWN)},
    {"op": "apply", **make_whole(1, PEERS, **KNOWN)},
    {"op": "apply", **make_whole(3, PEERS, digest="0" * 64, **KNOWN)},
    {"op": "apply", **make_whole(3, [*PEERS, make_peer(9, allowed_ips=PEERS[1]["allowed_ips"])], **KNOWN)},
    {"op": "apply", **make_whole(3, [make_peer(1, preshared_key=make_key(1, "preshared")[:-1])], **KNOWN)},
    {"op": "apply", **make_whole(3, PEERS[2:], dry_run=True, **KNOWN)},
    {"op": "apply", make_key(1, "preshared"): make_key(2, "preshared")},
    {"op": make_key(1, "preshared")},
    {"op": "observe", "full": True},
    {"op": "revoke", "keys": [dead(1)]},
    {"op": "time", "now": 1_900_000_000},
    {"op": "journal", "after": 0},
]
COMMANDS = {
    "session": "session wg0",
    "revoke": f"revoke wg0 {make_key(2)} --reason lost",
    "suspend": f"suspend wg0 {make_key(3)} --reason lost",
    "observe": "observe wg0",
    "tick": "tick wg0",
    "load": "load wg0",
    "daemon": "daemon",
}
# What makes the programs that a node runs fail, each in another way; those of wg tell all that they know.
AWK = """printf '#!/bin/sh\\n/usr/bin/wg "$@" | awk -F"\\t" -v OFS="\\t" "%s"\\n' > $wg"""
FAULTS = {
    "nothing": ":",
    "a private key for a port": AWK % "NF == 4 { x = \\$1; \\$1 = \\$3; \\$3 = x } 1",
    "a preshared key for a number": AWK % "NF == 8 { x = \\$2; \\$2 = \\$5; \\$5 = x } 1",
    "a wg that repeats its input and fails": """printf '#!/bin/sh\\ntee /dev/stderr\\nexit 1\\n' > $wg""",
    "a wg that fails": """printf '#!/bin/sh\\nexit 1\\n' > $wg""",
    "a damaged state": "cd /var/lib/muster/wg0; for f in state state.last; do sed -i 's/public/publix/' $f; done",
    "a state of another form": (
        "cd /var/lib/muster/wg0; rm -f state.last; sed -i '1d;2s/.*/{}/' state;"
        " sum=$(sha256sum < state | cut -c-64); sed -i 1i$sum state"
    ),
    "a damaged journal": "sed -i 's/seq/seqq/' /var/lib/muster/wg0/journal; touch /var/lib/muster/wg0/journal",
    "damaged tombstones": "sed -i 's/reason/season/' /var/lib/muster/tombstones",
}


def lines() -> str:
    return "".join(json.dumps({"v": 1, "id": 1, **request}) + "\n" for request in REQUESTS)


@pytest.fixture
def held(machine: Machine) -> Iterator[Machine]:
    """A machine installed by the installer, with peers of whom each has a preshared key."""
    machine.sh("rm -rf /root/.ssh")
    machine.run("muster-install", "wg0", stdin=json.dumps(make_wish(interface=INTERFACE)))
    assert machine.session("wg0").ask("apply", **make_whole(1, PEERS, epoch=3))["ok"]
    yield machine
    machine.sh("rm -rf /usr/local/sbin/wg")


class Secrets:
    """The machine's private key and every preshared key, in all the ways that one may be written."""

    def __init__(self, machine: Machine) -> None:
        private = machine.run("wg", "show", "wg0", "private-key").strip()
        self.parts: set[str] = set()
        for key in [private, *(make_key(n, "preshared") for n in range(10))]:
            plain, hexes = key, base64.b64decode(key).hex()
            for text in (plain, hexes, hexes.upper()):
                self.parts.update(text[start : start + 16] for start in range(len(text) - 15))

    def are_in(self, text: str) -> bool:
        """Whether any sixteen characters of one are."""
        return any(text[start : start + 16] in self.parts for start in range(len(text) - 15))


@pytest.mark.parametrize("fault", FAULTS)
def test_neither_an_answer_nor_an_alarm_holds_a_secret_whatever_fails(held: Machine, fault: str) -> None:
    """C3, C11: the sixteen first or last characters of one are looked for too; errors that are defects included."""
    secrets = Secrets(held)
    assert secrets.are_in(held.run("wg", "show", "wg0", "dump"))
    held.run("muster-node", "suspend", "wg0", make_key(5), "--reason", "lost")
    held.run("muster-node", "revoke", "wg0", make_key(4), "--reason", "lost")
    held.sh(f"wg=/usr/local/sbin/wg; {FAULTS[fault]}; chmod 755 $wg 2> /dev/null || true")
    said, codes = "", []
    for words in COMMANDS.values():
        limit = ["timeout", "0.7"] if words in ("daemon", "load wg0") else []
        whole = [*held.enter, *limit, PROGRAM, *words.split()]
        done = subprocess.run(whole, input=lines(), capture_output=True, text=True, timeout=60, check=False)
        said += done.stdout + done.stderr
        codes += [json.loads(line).get("error", {}).get("code") for line in done.stdout.splitlines()]
    assert len(codes) >= len(REQUESTS)
    assert not secrets.are_in(said)
    assert not secrets.are_in(held.sh("cat /var/lib/muster/wg0/journal /var/lib/muster/tomb* /run/muster/*"))
    expected = {"a wg that fails": "kernel", "nothing": "digest"} | dict.fromkeys(list(FAULTS)[1:3], "internal")
    assert expected.get(fault, "bad_request") in codes


def test_no_program_that_a_node_starts_is_told_a_secret_by_words_or_environment(held: Machine) -> None:
    """C3: preshared keys go by standard input."""
    secrets, began = Secrets(held), []
    for words in COMMANDS.values():
        held.sh("wg set wg0 peer $(wg show wg0 peers | head -1) remove || true")
        began += programs(traced(held, f"timeout 0.7 {PROGRAM} {words}" if words == "daemon" else f"{PROGRAM} {words}"))
    began += programs(traced(held, f"{PROGRAM} session wg0", SECRET=make_key(4, "preshared")))
    assert len([line for line in began if '"addconf"' in line]) >= 2
    leaking = [line for line in began if secrets.are_in(line)]
    # The control: of the last of them, the start itself, as its caller had one in the environment.
    assert len(leaking) == 1 and f'execve("{PROGRAM}"' in leaking[0]


def traced(machine: Machine, command: str, **environment: str) -> str:
    """The trace of a command that takes the session's lines."""
    ways = " ".join(f"{name}={value}" for name, value in environment.items())
    whole = [*machine.enter, "sh", "-c", STRACE.replace("exec ", f"exec env {ways} ") + command]
    subprocess.run(whole, input=lines(), capture_output=True, text=True, timeout=60, check=False)
    return machine.sh("cat /run/trace")


def traced_install(machine: Machine, command: str) -> str:
    """As above; what it opens goes on running until the interface is gone."""
    process = machine.popen("sh", "-c", STRACE + command)
    assert process.stdout
    assert json.loads(process.stdout.readline())["ok"]
    machine.run("ip", "link", "del", "wg0")
    process.communicate(timeout=20)
    machine.run("wg-quick", "up", "wg0")
    return machine.sh("cat /run/trace")


def test_no_file_is_made_wider_than_for_root_alone_not_even_for_an_instant(held: Machine) -> None:
    """C3: though whoever starts it has no mask at all; by strace, of install and of every command."""
    held.sh("wg-quick down wg0 2> /dev/null; rm -rf /var/lib/muster /run/muster /etc/wireguard/wg0.conf /root/.ssh")
    install = " ".join(held.words("muster-install", "wg0")[len(held.enter) :])
    held.run("sh", "-c", "cat > /run/wish", stdin=json.dumps(make_wish(interface=INTERFACE)))
    traces = [traced_install(held, f"{install} < /run/wish")]
    for words in COMMANDS.values():
        traces.append(traced(held, f"timeout 0.7 {PROGRAM} {words}" if words == "daemon" else f"{PROGRAM} {words}"))
    found = [one for trace in traces for one in made(trace) if not one.path.startswith(PUBLIC)]
    assert {one.path.partition(".new")[0] for one in found} >= {
        *("/etc/wireguard/wg0.conf", "/root/.ssh/authorized_keys", "/var/lib/muster/wg0/state"),
        *("/var/lib/muster/tombstones", "/var/lib/muster/clock", "/var/lib/muster/wg0/journal", "/run/muster/wg0.lock"),
    }
    assert [one for one in found if one.mode & 0o077] == []
    assert [one for one in found if not one.path.startswith(PRIVATE)] == []
