"""The Console's key, at a real sshd, gets a session of its interface and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import INTERFACE, dead
from tests.nodes.node.machine import Machine

SSHD = """
rm -rf /root/.ssh /home/muster /etc/sudoers.d/muster /run/ssh && mkdir -m 700 /run/ssh
ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host
ssh-keygen -q -t ed25519 -N '' -C '' -f /run/ssh/console
cat > /run/ssh/config <<END
Port 2222
ListenAddress 127.0.0.1
HostKey /run/ssh/host
PidFile /run/ssh/pid
PermitRootLogin forced-commands-only
PasswordAuthentication no
UsePAM no
Subsystem sftp internal-sftp
END
$(command -v sshd) -f /run/ssh/config
echo "[127.0.0.1]:2222 $(cut -d' ' -f1,2 /run/ssh/host.pub)" > /run/ssh/known
"""
OPTIONS = "-p 2222 -i /run/ssh/console -o UserKnownHostsFile=/run/ssh/known -o BatchMode=yes -o LogLevel=ERROR"


@pytest.fixture
def server(machine: Machine) -> Iterator[Machine]:
    machine.sh(SSHD)
    yield machine
    machine.sh("kill $(cat /run/ssh/pid)")


def install(machine: Machine, user: str) -> None:
    wish = {
        "interface": INTERFACE,
        "console_key": machine.sh("cut -d' ' -f1,2 /run/ssh/console.pub").strip(),
        "user": user,
        "epoch": 1,
        "observe_only": False,
        "packages": False,
    }
    machine.run("muster-install", "wg0", stdin=json.dumps(wish))


@pytest.mark.parametrize("user", ["root", "muster"])
@pytest.mark.parametrize("asked", ["", "id > /run/ssh/pwned", "/usr/local/sbin/muster-node revoke wg0"])
def test_whatever_is_asked_for_a_session_is_what_runs(server: Machine, user: str, asked: str) -> None:
    """B16: SSH_ORIGINAL_COMMAND is of no interest."""
    install(server, user)
    line = json.dumps({"v": 1, "id": 4, "op": "revoke", "keys": [dead(1)]}) + "\n"
    reply = json.loads(server.run("sh", "-c", f"ssh {OPTIONS} {user}@127.0.0.1 '{asked}'", stdin=line))
    receipt = {"public_key": dead(1)["public_key"], "durable": True, "kernel": True, "disk": True, "found": []}
    assert (reply["id"], reply["receipts"]) == (4, [receipt])
    server.sh("test ! -e /run/ssh/pwned")


@pytest.mark.parametrize("user", ["root", "muster"])
@pytest.mark.parametrize(
    "words",
    [
        "-o ExitOnForwardFailure=yes -W 127.0.0.1:2222",
        "-o ExitOnForwardFailure=yes -R 2300:127.0.0.1:2222",
    ],
)
def test_no_forward_is_given(server: Machine, user: str, words: str) -> None:
    """B16: 3 of 3 forwards refused; -L and -D ask for the same channel as -W."""
    install(server, user)
    server.sh(f"ssh {OPTIONS} {words} {user}@127.0.0.1 </dev/null 2>/dev/null", code=255)


@pytest.mark.parametrize("user", ["root", "muster"])
def test_neither_files_nor_a_terminal_are_given(server: Machine, user: str) -> None:
    """B16: scp, sftp, pty; the client of sftp waits for an answer that a session never gives."""
    install(server, user)
    options = OPTIONS.replace("-p 2222", "-P 2222")
    server.sh(f"! timeout 1 sftp {options} {user}@127.0.0.1:/etc/passwd /run/ssh/stolen </dev/null 2>/dev/null")
    server.sh("test ! -e /run/ssh/stolen")
    loud = OPTIONS.replace("LogLevel=ERROR", "LogLevel=INFO")
    told = server.sh(f"ssh -tt {loud} {user}@127.0.0.1 </dev/null 2>&1", code=255)
    assert told == "PTY allocation request failed on channel 0\n"
