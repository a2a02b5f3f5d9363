"""The lab's machines as tests see them: Machine, and what a Server and a Client can do besides."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

from tests.lab import faults, tunnels
from tests.lab.commands import Completed, LabError
from tests.lab.grounds import Grounds
from tests.lab.packets import PingResult, Stream, ping
from tests.lab.state import Node
from tests.lab.waiting import wait_for

PUT = 'umask 077; mkdir -p "$(dirname "$1")" && cat >"$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"'
RESTART_SSHD = """\
kill $(cat /run/sshd.pid)
while [ -e /run/sshd.pid ]; do sleep 0.01; done
/usr/sbin/sshd -E /run/sshd.log
"""
ENABLE = """\
wants=/etc/systemd/system/multi-user.target.wants
mkdir -p $wants
ln -sf /lib/systemd/system/wg-quick@.service $wants/{unit}
: >/run/lab-units/{unit}
"""
PASSWORD_LOGIN = "PasswordAuthentication yes\nPermitRootLogin yes\n"


class Machine:
    """A machine with its own network, processes, hostname and disk."""

    def __init__(self, grounds: Grounds, name: str) -> None:
        self._grounds = grounds
        self.name = name
        self._streams: list[Stream] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.address}>"

    @property
    def _node(self) -> Node:
        return self._grounds.state.nodes[self.name]

    @property
    def address(self) -> str:
        """IPv4, without prefix."""
        return self._node.address

    @property
    def address6(self) -> str:
        """IPv6, without prefix."""
        return self._node.address6

    @property
    def pid(self) -> int:
        """The first process, as this machine numbers it; LabError while switched off."""
        return self._grounds.live_pid(self.name)

    @property
    def is_on(self) -> bool:
        return self._grounds.pid(self.name) is not None

    @property
    def root(self) -> Path:
        """The whole root as seen from outside. Absolute symlinks in it point outside: write with `put`."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def disk(self) -> Path:
        """What this machine's own disk adds to its lower root; can be read and written while it is off."""
        return self._grounds.disk(self.name) / "upper"

    def run(
        self, command: Sequence[str], *, input: str | None = None, check: bool = True, timeout: float = 120
    ) -> Completed:
        """Run a command as root; LabError with its stderr if it fails and `check` is set."""
        return self._grounds.run(self.name, command, input=input, check=check, timeout=timeout)

    def shell(self, script: str, *, input: str | None = None, check: bool = True) -> str:
        """Run a shell script as root; returns its stdout."""
        return self.run(["/bin/sh", "-c", script], input=input, check=check).stdout

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in one step, folders too."""
        self.run(["/bin/sh", "-c", PUT, "put", path, f"{mode:o}"], input=text)

    def read(self, path: str) -> str:
        """Read a text file."""
        return self.run(["cat", path]).stdout

    def ping(self, address: str, *, count: int = 3, interval: float = 0.05, interface: str = "") -> PingResult:
        """Send echo requests, by `interface` if given; waits at most 1 s for the last reply."""
        return ping(self.pid, address, count=count, interval=interval, interface=interface)

    def stream(self, address: str, *, rate: float = 100, interface: str = "") -> Stream:
        """Start a steady stream of `rate` echo requests a second."""
        stream = Stream(self.pid, address, rate=rate, interface=interface)
        self._streams.append(stream)
        return stream

    def close_streams(self) -> None:
        """End every stream that was begun here."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def power_off(self) -> None:
        """Cut the power: everything dies at once, no hook runs, all but the disk is lost."""
        self._grounds.kill([self.name])

    def power_on(self) -> None:
        """Boot from the own disk as systemd would: sysctl.d, sshd, enabled units with their drop-ins."""
        if self.is_on:
            raise LabError(f"{self.name} is on already")
        self._grounds.start([self.name])
        faults.restore(self._grounds, self.name)

    def reboot(self) -> None:
        """Power off, then on."""
        self.power_off()
        self.power_on()

    def boot_log(self) -> str:
        """What the last boot had to complain about."""
        return (self._grounds.slot.folder / f"{self.name}.boot.log").read_text()

    def partition(self, mode: faults.Mode = "drop") -> None:
        """Cut this machine off, until `heal()`.

        drop: every IP packet vanishes; reject: the machine refuses all that comes (RST, ICMP); ssh: only TCP
        port 22 vanishes; oneway: what it sends vanishes, what it is sent arrives; link: the cable is pulled.
        """
        faults.partition(self._grounds, self.name, mode)

    def slow(self, delay_ms: float) -> None:
        """Delay each packet by `delay_ms` in each direction, until `heal()`."""
        faults.slow(self._grounds, self.name, delay_ms)

    def heal(self) -> None:
        """End every fault of the cable."""
        faults.heal(self._grounds, self.name)


class Server(Machine):
    """A machine with sshd."""

    ssh_port = 22

    @property
    def host_key(self) -> str:
        """As in known_hosts: "ssh-ed25519 AAAA..."."""
        return self._node.host_key

    @property
    def host_key_fingerprint(self) -> str:
        """As ssh-keygen -l prints it: "SHA256:..."."""
        digest = hashlib.sha256(b64decode(self.host_key.split()[1])).digest()
        return "SHA256:" + b64encode(digest).decode().rstrip("=")

    def authorize(self, public_key_line: str, user: str = "root") -> None:
        """Let a key log in."""
        home = "/root" if user == "root" else f"/home/{user}"
        script = 'umask 077; mkdir -p "$1/.ssh"; cat >>"$1/.ssh/authorized_keys"; chown -R "$2": "$1/.ssh"'
        self.run(["/bin/sh", "-c", script, "authorize", home, user], input=public_key_line.rstrip("\n") + "\n")

    def set_password(self, user: str, password: str) -> None:
        """Give a user a password, and let passwords (root's, too) log in from now on."""
        self.run(["chpasswd"], input=f"{user}:{password}\n")
        self.put("/etc/ssh/sshd_config.d/00-lab-password.conf", PASSWORD_LOGIN)
        self.shell(RESTART_SSHD)

    def add_user(self, name: str, *, password: str = "", sudo: bool = False) -> None:
        """Add a plain user; with `sudo` one who may do everything after giving the own password, if any."""
        self.run(["useradd", "--create-home", "--shell", "/bin/bash", name])
        if password:
            self.set_password(name, password)
        if sudo:
            self.run(["sudo", "--version"])
            asked = "" if password else "NOPASSWD: "
            self.put(f"/etc/sudoers.d/{name}", f"{name} ALL=(ALL:ALL) {asked}ALL\n", 0o440)

    def bring_up(self, conf: str, interface: str = "wg0") -> None:
        """Start a tunnel at once, without wg-quick, hooks or routes; by wg-quick from the next boot on."""
        parsed = tunnels.parse_conf(conf)
        self.shell(f"umask 077; cat >/etc/wireguard/{interface}.conf", input=conf)
        up = tunnels.up_script(parsed, interface, routes=False)
        enable = ENABLE.format(unit=f"wg-quick@{interface}.service")
        script = f"umask 077; cat >/run/{interface}.conf; {up}\n{enable}"
        self.shell(script, input=parsed.stripped)


class Client(Machine):
    """A machine that runs the stock WireGuard client."""

    def connect(self, conf: str, interface: str = "wg0") -> None:
        """Bring up a tunnel from a stock client config: addresses, MTU and a route for each AllowedIPs.

        A full tunnel is a default route, the endpoint being on the client's own network. Where two tunnels
        have the same route, the lower number in the interface's name wins; ping can name another.
        """
        parsed = tunnels.parse_conf(conf)
        self.put(f"/run/{interface}.conf", parsed.stripped, 0o600)
        self.shell(tunnels.up_script(parsed, interface, routes=True))

    def disconnect(self, interface: str = "wg0") -> None:
        """Take a tunnel down."""
        self.shell(tunnels.down_script(interface))

    def latest_handshake(self, interface: str = "wg0") -> int | None:
        """When the tunnel last shook hands, in seconds of time.time(); None if never."""
        shown = self.run(["wg", "show", interface, "latest-handshakes"]).stdout.split()
        return max(map(int, shown[1::2]), default=0) or None

    def wait_for_handshake(self, interface: str = "wg0", timeout: float = 10) -> int:
        """Wait until the tunnel has shaken hands; something must be sent through it for that."""
        what = f"a handshake of {self.name} on {interface}"
        return wait_for(lambda: self.latest_handshake(interface) or 0, timeout, what)


class Host(Machine):
    """A machine that answers pings and does nothing else."""
