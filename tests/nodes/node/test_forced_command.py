"""The Console's key, at a real sshd, gets a session of its interface and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.lab.waiting import wait_for
from tests.nodes.node.build import INTERFACE, Json, dead, make_delta, make_key, make_peer, make_whole
from tests.nodes.node.machine import PROGRAM, Machine

SSHD = """
rm -rf /root/.ssh /home/muster /etc/sudoers.d/muster /run/ssh && mkdir -m 755 /run/ssh
ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host
for key in wg0 wg1 wg2; do ssh-keygen -q -t ed25519 -N '' -C '' -f /run/ssh/$key; done
cat > /run/ssh/config <<END
Port 2222
ListenAddress 127.0.0.1
HostKey /run/ssh/host
PidFile /run/ssh/pid
PermitRootLogin forced-commands-only
PasswordAuthentication no
UsePAM no
X11Forwarding yes
AllowAgentForwarding yes
AllowTcpForwarding yes
PermitTunnel yes
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
END
$(command -v sshd) -f /run/ssh/config
echo "[127.0.0.1]:2222 $(cut -d' ' -f1,2 /run/ssh/host.pub)" > /run/ssh/known
"""
OPTIONS = "-o UserKnownHostsFile=/run/ssh/known -o BatchMode=yes -o LogLevel=ERROR"
USERS = ["root", "muster"]
HELLO = '{"v":1,"id":4,"op":"hello"}\n'
# Whether sshd, or the interface's own socket, answers at a TCP port or a path once these bytes were sent.
PROBE = """
import socket, sys
place, data = sys.argv[1:]
link = socket.socket(socket.AF_UNIX if "/" in place else socket.AF_INET)
link.settimeout(5)
link.connect(place if "/" in place else ("127.0.0.1", int(place)))
text = b""
try:
    link.sendall(bytes.fromhex(data))
    while not text.startswith(b"private_key") and b"SSH-2.0" not in text and (more := link.recv(999)):
        text += more
except ConnectionError:
    pass
print(text.startswith(b"private_key") or b"SSH-2.0" in text)
"""
GET = b"get=1\n\n".hex()
SOCKS = bytes([5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 2222 >> 8, 2222 & 255]).hex()


@dataclass
class Door:
    """A user of the server, the interface that his key opens, and the epoch by which its session is known."""

    server: Machine
    user: str
    interface: str
    epoch: int

    def words(self, *more: str, user: str = "", port: str = "-p") -> list[str]:
        key = f"-i /run/ssh/{self.interface} -o IdentitiesOnly=yes"
        return ["ssh", port, "2222", *OPTIONS.split(), *key.split(), *more, f"{user or self.user}@127.0.0.1"]

    def ask(self, *more: str, command: Sequence[str] = (), line: str = HELLO) -> Json:
        """The session's answer, whatever else was asked for."""
        over = ["-S", f"/run/ssh/open-{self.interface}"]
        reply: Json = json.loads(self.server.run(*self.words(*over, *more), *command, stdin=line))
        return reply

    def open(self) -> None:
        """One connection for all that is asked through `ask`."""
        words = self.words("-M", "-N", "-f", "-S", f"/run/ssh/open-{self.interface}")
        self.server.run("sh", "-c", '"$@" > /dev/null 2>&1', "sh", *words)

    def is_session(self, reply: Json) -> bool:
        """Whether a session of this interface has answered."""
        return bool(reply["id"] == 4 and reply["state"]["epoch"] == self.epoch)


def start(machine: Machine) -> None:
    machine.sh(SSHD)
    for number, (user, observe_only) in enumerate([("root", False), ("muster", False), ("root", True)]):
        interface = INTERFACE | {"addresses": [f"10.{number + 1}.0.1/24"], "listen_port": 51820 + number}
        wish = {"interface": interface, "user": user, "epoch": number + 1, "observe_only": observe_only}
        wish["console_key"] = machine.sh(f"cut -d' ' -f1,2 /run/ssh/wg{number}.pub").strip()
        machine.run("muster-install", f"wg{number}", stdin=json.dumps(wish | {"packages": False}))


@pytest.fixture(scope="module")
def server(shared_machine: Machine) -> Iterator[Machine]:
    """Three interfaces, each with a key of its own: root's, muster's, and root's that may only look."""
    start(shared_machine)
    for number, user in enumerate(USERS):
        Door(shared_machine, user, f"wg{number}", number + 1).open()
    yield shared_machine
    shared_machine.sh("kill $(cat /run/ssh/pid)")


@pytest.fixture(params=USERS)
def door(server: Machine, request: pytest.FixtureRequest) -> Door:
    number = USERS.index(request.param)
    return Door(server, request.param, f"wg{number}", number + 1)


@pytest.fixture
def watcher(server: Machine) -> Door:
    return Door(server, "root", "wg2", 3)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "id > /run/ssh/pwned",
        f"{PROGRAM} session wg2",
        f"{PROGRAM} revoke wg0 {make_key(1)} --reason x",
        "$(touch /run/ssh/pwned)",
        "'; touch /run/ssh/pwned; '",
        "x\ntouch /run/ssh/pwned",
        "() { :; }; touch /run/ssh/pwned",
        " --help",
        "scp -t /run/ssh/pwned",
    ],
)
def test_whatever_is_asked_for_a_session_is_what_runs(door: Door, asked: str) -> None:
    """B16: SSH_ORIGINAL_COMMAND is of no interest."""
    assert door.is_session(door.ask(command=[asked] if asked else []))
    door.server.sh("test ! -e /run/ssh/pwned")


def test_a_session_over_ssh_does_what_it_is_asked_for(door: Door) -> None:
    """B16: the legitimate use of the key."""
    line = json.dumps({"v": 1, "id": 4, "op": "revoke", "keys": [dead(1)]}) + "\n"
    receipt = {"public_key": dead(1)["public_key"], "durable": True, "kernel": True, "disk": True, "found": []}
    assert door.ask(line=line)["receipts"] == [receipt]


@pytest.mark.parametrize(
    "words", ["-W 127.0.0.1:2222", "-R 2300:127.0.0.1:2222", "-R /run/ssh/back:127.0.0.1:2222", "-R 2303"]
)
def test_no_forward_is_given(door: Door, words: str) -> None:
    """B16: those that a client gives up on; to a port, from a port, from a socket, from a proxy there."""
    door.server.run(*door.words("-o", "ExitOnForwardFailure=yes", *words.split()), stdin=HELLO, code=255)
    door.server.sh("test ! -e /run/ssh/back; ! ss -ltn | grep -E ':(2300|2303) '")
    assert door.is_session(door.ask())


@contextmanager
def beside(door: Door, *words: str) -> Iterator[None]:
    """Within, a session is open that was asked for so; it answers at the beginning and at the end."""
    whole = [*door.server.enter, *words]
    with subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin and client.stdout
        for is_first in (True, False):
            client.stdin.write(HELLO)
            client.stdin.flush()
            assert door.is_session(json.loads(client.stdout.readline()))
            if is_first:
                yield
        client.stdin.close()
        assert client.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "place", "data", "target"),
    [
        ("-L 2301:127.0.0.1:2222", "2301", "", "2222"),
        ("-D 2302", "2302", SOCKS, "2222"),
        ("-L /run/ssh/near:/run/wireguard/wg0.sock", "/run/ssh/near", GET, "/run/wireguard/wg0.sock"),
    ],
)
def test_what_a_client_offers_on_its_side_leads_nowhere(
    door: Door, words: str, place: str, data: str, target: str
) -> None:
    """B16: neither to a port nor to the socket that tells an interface's keys; the session beside it goes on."""
    door.server.sh("rm -f /run/ssh/near")
    python = ["/usr/bin/python3", "-IS", "-c", PROBE]
    with beside(door, *door.words(*words.split())):
        assert door.server.run(*python, place, data) == "False\n"
        assert door.server.run(*python, target, data if target == "/run/wireguard/wg0.sock" else "") == "True\n"


def test_neither_files_nor_a_terminal_are_given(door: Door) -> None:
    """B16: scp by both of its protocols, and sftp wait for an answer that a session never gives; pty."""
    words = [word for word in door.words(port="-P") if "@" not in word][1:]
    options, there = " ".join(words), f"{door.user}@127.0.0.1"
    ways = [
        f"scp -O {options} {there}:/etc/passwd /run/ssh/stolen",
        f"scp {options} {there}:/etc/passwd /run/ssh/stolen",
    ]
    ways += [
        f"scp -O {options} /etc/passwd {there}:/run/ssh/pwned",
        f"scp {options} /etc/passwd {there}:/run/ssh/pwned",
    ]
    ways += [f"sftp {options} {there}:/etc/passwd /run/ssh/stolen"]
    tries = "".join(f'(! timeout 1 {way} < /dev/null > /dev/null 2>&1) & all="$all $!"\n' for way in ways)
    door.server.sh(f"all=''\n{tries} for one in $all; do wait $one; done")
    door.server.sh("test ! -e /run/ssh/stolen; test ! -e /run/ssh/pwned")
    assert door.is_session(door.ask("-s", command=["sftp"]))
    told = door.server.run("sh", "-c", '"$@" 2>&1', "sh", *door.words("-tt", "-o", "LogLevel=INFO"), code=255)
    assert told == "PTY allocation request failed on channel 0\n"


def test_neither_agent_nor_display_nor_environment_comes_with_it(door: Door) -> None:
    """B16: what sshd would let through elsewhere; the control is a variable that it does let through."""
    evil = "LD_PRELOAD=/run/evil.so PYTHONPATH=/run PATH=/run/evil BASH_ENV=/run/evil SSH_AUTH_SOCK=/x LC_EVIL=1"
    agent = "eval $(ssh-agent -a /run/ssh/agent) > /dev/null; trap 'ssh-agent -k > /dev/null' EXIT; export DISPLAY=:9"
    asked = ["-A", "-X", "-o", "ForwardX11Timeout=0", "-o", "SetEnv=" + evil, "-o", "SendEnv=*"]
    find = f"pgrep -f '^/usr/bin/python3 -IS {PROGRAM} session {door.interface}'"
    with beside(door, "sh", "-c", agent + '; "$@"', "sh", *door.words(*asked)):
        pid = wait_for(lambda: door.server.sh(find).split(), 10, "the session")[-1]
        rows = door.server.sh(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
    environment = dict(row.split("=", 1) for row in rows)
    assert environment.keys() & {"LD_PRELOAD", "PYTHONPATH", "BASH_ENV", "SSH_AUTH_SOCK", "DISPLAY"} == set()
    assert "/run/evil" not in environment["PATH"]
    assert environment["LC_EVIL"] == "1"


def test_one_that_may_only_look_is_refused_each_op_that_acts(watcher: Door) -> None:
    """B16: and with it the tombstones of a push; looking goes on."""
    picture = "wg show wg2 dump; sha256sum /var/lib/muster/wg2/state; cat /var/lib/muster/tombstones || true"
    before = watcher.server.sh(picture)
    acts: list[Json] = [
        {"op": "revoke", "keys": [dead(5)]},
        {"op": "apply", **make_whole(1, [make_peer(1)], epoch=9, tombstones=[dead(5)])},
        {"op": "apply", **make_whole(1, [], epoch=9, dry_run=True)},
        {"op": "apply", **make_delta(1, [], [make_peer(1)], epoch=9)},
        {"op": "time", "now": 1},
    ]
    looks: list[Json] = [{"op": "hello"}, {"op": "observe", "full": True}, {"op": "journal", "after": 0}]
    lines = "".join(json.dumps({"v": 1, "id": 4, **request}) + "\n" for request in [*acts, *looks])
    replies = [json.loads(line) for line in watcher.server.run(*watcher.words(), stdin=lines).splitlines()]
    assert [reply.get("error", {}).get("code") for reply in replies] == ["observe_only"] * len(acts) + [None] * 3
    assert all(watcher.is_session(reply) for reply in replies[len(acts) :])
    assert watcher.server.sh(picture) == before


def test_a_key_opens_no_other_user_and_no_other_server(door: Door) -> None:
    """B8: what one server's key would open is that server's interface, and nothing is told elsewhere."""
    stranger = "muster" if door.user == "root" else "root"
    told = door.server.run("sh", "-c", '"$@" 2>&1', "sh", *door.words(user=stranger), stdin=HELLO, code=255)
    assert told.startswith(f"{stranger}@127.0.0.1: Permission denied (publickey")
    other = Machine()
    try:
        start(other)
        own = Door(other, door.user, door.interface, door.epoch)
        assert own.is_session(own.ask())
        other.run(
            "sh", "-c", f"cat > /run/ssh/{door.interface}", stdin=door.server.sh(f"cat /run/ssh/{door.interface}")
        )
        other.run("rm", f"/run/ssh/{door.interface}.pub")
        told = other.run("sh", "-c", '"$@" 2>&1', "sh", *own.words(), stdin=HELLO, code=255)
        assert told.startswith(f"{door.user}@127.0.0.1: Permission denied (publickey")
        other.sh("kill $(cat /run/ssh/pid)")
    finally:
        other.end()
    assert door.is_session(door.ask())
