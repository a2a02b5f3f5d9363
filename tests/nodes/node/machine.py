"""A machine for the node script: namespaces with real wg, nft and wg-quick, on copies of our folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
# The Python that runs the script; another one where a test asks for it.
PYTHON = os.environ.get("MUSTER_TEST_PYTHON", sys.executable)
SCRIPTS = Path(__file__).resolve().parents[3] / "nodes" / "script"
SCRIPT, INSTALLER = SCRIPTS / "muster_node.py", SCRIPTS / "muster_install.py"
PROGRAM = "/usr/local/sbin/muster-node"
PROGRAMS = {"muster-node": [str(SCRIPT)], "muster-install": [str(INSTALLER), PROGRAM]}
SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
for folder in etc var/lib usr/local home root; do
    mkdir -p /mnt/$folder/upper /mnt/$folder/work
    layers=lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work
    mount -t overlay overlay -o $layers /$folder
done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t sysfs sysfs /sys
mkdir -p /run/wireguard /run/sshd
rm -rf /etc/wireguard /var/lib/muster && mkdir -m 700 /etc/wireguard
ip link set lo up
echo ready
exec cat
"""


class Session:
    """A session of the script inside the machine: one request, one answer."""

    def __init__(self, machine: Machine, *words: str) -> None:
        self.process = machine.popen("muster-node", "session", *words)
        self.number = 0

    def ask(self, op: str, **fields: Any) -> Json:
        self.number += 1
        return self.send(json.dumps({"v": 1, "id": self.number, "op": op, **fields}).encode())

    def send(self, line: bytes) -> Json:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        reply: Json = json.loads(self.process.stdout.readline())
        return reply

    def close(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        code = self.process.wait(10)
        self.process.stdout.close()
        return code


class Machine:
    """One set of namespaces, with the script in its place; gone with everything in it when its first process ends."""

    def __init__(self) -> None:
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.holder = subprocess.Popen([*words, "sh", "-c", SET_UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.holder.stdout
        assert self.holder.stdout.readline() == b"ready\n"
        pid = self.holder.pid
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        self.enter = ["nsenter", "-t", child, "--net", "--mount", "--pid"]
        self.sessions: list[Session] = []
        self.around: list[str] = []
        self.run("install", "-m", "755", str(SCRIPT), PROGRAM)
        if sys.executable != PYTHON:
            # Hooks, units and forced commands name the machine's own.
            self.run("mount", "--bind", PYTHON, "/usr/bin/python3")

    def words(self, *words: str) -> list[str]:
        """A command line that runs it in the machine; the script with what is put around it."""
        program = [*self.around, PYTHON, "-IS", *PROGRAMS[words[0]]] if words[0] in PROGRAMS else [words[0]]
        return [*self.enter, *program, *words[1:]]

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.words(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, *words: str, stdin: str = "", code: int = 0, seconds: float = 60) -> str:
        """What the program wrote; fails unless it ended with `code`."""
        done = subprocess.run(
            self.words(*words), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def sh(self, script: str, code: int = 0) -> str:
        return self.run("sh", "-ec", script, code=code)

    def session(self, *words: str) -> Session:
        self.sessions.append(Session(self, *words))
        return self.sessions[-1]

    def end(self) -> None:
        for session in self.sessions:
            session.close()
        assert self.holder.stdin and self.holder.stdout
        self.holder.stdin.close()
        self.holder.wait(10)
        self.holder.stdout.close()

    def make_interface(self, name: str = "wg0", address: str = "10.1.0.1/24", port: int = 51820) -> str:
        """A conf as install writes it, opened by wg-quick; the private key."""
        private = self.run("wg", "genkey").strip()
        rows = ["[Interface]", f"Address = {address}, fd00:1::1/64", f"ListenPort = {port}", "MTU = 1420"]
        text = "\n".join([*rows, f"PrivateKey = {private}", ""])
        self.run("sh", "-c", f"umask 077; cat > /etc/wireguard/{name}.conf", stdin=text)
        self.run("wg-quick", "up", name)
        return private

    def peers(self, name: str = "wg0") -> dict[str, set[str]]:
        """Networks by key, as the kernel has them."""
        rows = [row.split("\t") for row in self.run("wg", "show", name, "allowed-ips").splitlines()]
        return {key: set(networks.split()) - {"(none)"} for key, networks in rows}
