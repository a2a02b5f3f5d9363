#!/usr/bin/python3 -IS
"""muster_install.py PROGRAM IFACE: makes a machine where muster-node is at PROGRAM a server of the Console.

Python 3.9 or newer, standard library only, run as root. It is needed at enrolment alone and need not stay on the
machine: what it knows of values, files and the kernel it takes from the muster-node that does.
What it owns: IFACE.conf, a drop-in of wg-quick@IFACE, muster-node.service, one line of authorized_keys,
/etc/sudoers.d/muster.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple


def load(path: str) -> None:
    """Makes the program there the module that is imported below; reads and leaves no bytecode."""
    module = sys.modules["nodes.script.muster_node"] = ModuleType("nodes.script.muster_node")
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), vars(module))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: muster_install.py PROGRAM IFACE")
    load(sys.argv[1])

from nodes.script.muster_node import (
    ENVIRONMENT,
    KEY,
    MAX_LINE,
    Interface,
    Json,
    Node,
    Paths,
    Refused,
    State,
    conf_setting,
    content_digest,
    fields_of,
    guarded,
    locked,
    make_folder,
    need,
    parse_bool,
    parse_int,
    parse_interface,
    parse_interface_name,
    parse_json,
    parse_text,
    read_kernel,
    read_text,
    run,
    send,
    write_atomic,
)

UNITS = "/etc/systemd/system"
# What the daemon does needs the network's administration, its own two folders and the settings by which a machine
# forwards; the rest of root is taken away.
DAEMON = """[Unit]
Description=Keeps the peers of WireGuard interfaces as the Console says
After=network.target

[Service]
ExecStart={program} daemon
Restart=always
RestartSec=5
StateDirectory=muster
StateDirectoryMode=0700
RuntimeDirectory=muster
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
UMask=0077
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ReadWritePaths=-/proc/sys/net
ProtectProc=invisible
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
IPAddressDeny=any

[Install]
WantedBy=multi-user.target
"""
SUDOERS = "/etc/sudoers.d/muster"
SSH = "/etc/ssh"


class Wish(NamedTuple):
    """What install is asked for."""

    interface: Interface
    console_key: str
    user: str
    epoch: int
    observe_only: bool
    packages: bool


# The text that every Ed25519 public key of OpenSSH begins with, then its 32 bytes.
CONSOLE_KEY = re.compile(r"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}")


def parse_console_key(value: object) -> str:
    """An Ed25519 public key without options or comment: it becomes part of a line of authorized_keys."""
    text = parse_text(value, "console_key")
    need(CONSOLE_KEY.fullmatch(text), "console_key", "must be 'ssh-ed25519 AAAA...' without options or comment")
    return text


def parse_wish(body: Json) -> Wish:
    fields_of(body, "install", ("interface", "console_key", "user", "epoch", "observe_only", "packages"))
    user = parse_text(body["user"], "user")
    need(user in ("root", "muster"), "user", "must be root or muster")
    return Wish(
        parse_interface(body["interface"]),
        parse_console_key(body["console_key"]),
        user,
        parse_int(body["epoch"], "epoch"),
        parse_bool(body["observe_only"], "observe_only"),
        parse_bool(body["packages"], "packages"),
    )


def install(node: Node, body: Json) -> Json:
    """Makes the machine a server of the Console; may be run again at any time."""
    wish = parse_wish(body)
    check_ours(node)
    installed = install_packages(wish)
    private = install_conf(node, wish.interface)
    install_state(node, wish)
    install_unit(node)
    install_access(node, wish)
    unit = start_interface(node)
    public = run(["wg", "pubkey"], private).stdout.strip()
    return {"public_key": public, "host_keys": host_keys(), "unit": unit, "installed": installed}


def load_hook(node: Node) -> str:
    """The row of IFACE.conf that brings the peers; it tells a conf of ours."""
    return "PostUp = %s load %%i" % node.paths.program


def check_ours(node: Node) -> None:
    """Refuses an interface that somebody else has set up."""
    stays = "%s is not ours and stays, as its clients need it: enrol another interface on another port"
    text = read_text(node.conf)
    if text and load_hook(node) not in text.split("\n"):
        raise Refused("foreign_conf", stays % node.conf)
    if not text and run(["ip", "link", "show", "dev", node.name]).returncode == 0:
        raise Refused("foreign_conf", stays % ("the running " + node.name))


# Packages by tool, where they are not named alike: Debian's, Fedora's.
APT = {"ip": "iproute2", "nft": "nftables", "useradd": "passwd", "visudo": "sudo", "wg": "wireguard-tools"}
APT["wg-quick"] = APT["wg"]
DNF = {**APT, "ip": "iproute", "useradd": "shadow-utils"}


def tool_there(tool: str) -> bool:
    return shutil.which(tool, path=ENVIRONMENT["PATH"]) is not None


def kernel_can() -> bool:
    """Whether the kernel makes WireGuard interfaces by itself."""
    name = "muster%d" % (os.getpid() % 10**8)
    made = run(["ip", "link", "add", "dev", name, "type", "wireguard"]).returncode == 0
    if made:
        run(["ip", "link", "del", "dev", name])
    return made


def install_packages(wish: Wish) -> list[str]:
    """Puts in what is missing, by the machine's own package manager; the packages that were put in."""
    tools = ["ip", "wg", "wg-quick", "nft"] + (["sudo", "visudo", "useradd"] if wish.user == "muster" else [])
    missing = [tool for tool in tools if not tool_there(tool)]
    done = put_in(missing, wish.packages) if missing else []
    if not tool_there("wireguard-go") and not kernel_can():
        done += put_in(["wireguard-go"], wish.packages)
    return done


def put_in(tools: Sequence[str], allowed: bool) -> list[str]:
    manager = next((name for name in ("apt-get", "dnf", "yum") if tool_there(name)), None)
    if not allowed or manager is None:
        raise Refused("packages", "missing: %s; put them in, or let install do it" % ", ".join(tools))
    packages = sorted({(APT if manager == "apt-get" else DNF).get(tool, tool) for tool in tools})
    words = [manager, "install", "-y", *packages]
    if manager == "apt-get":
        ENVIRONMENT["DEBIAN_FRONTEND"] = "noninteractive"
        words.append("--no-install-recommends")
        run([manager, "update"], seconds=300.0)
    if run(words, seconds=900.0).returncode != 0 or not all(map(tool_there, tools)):
        raise Refused("packages", "%s could not put in: %s" % (manager, ", ".join(packages)))
    return packages


def install_conf(node: Node, interface: Interface) -> str:
    """Writes IFACE.conf, with the key that it had or a new one; the private key."""
    private = conf_setting(read_text(node.conf), "privatekey") or run(["wg", "genkey"]).stdout.strip()
    if not KEY.fullmatch(private):
        raise Refused("kernel", "wg made no key")
    rows = [
        "# Written by muster-node. Peers are in %s; do not add any here." % node.state.path,
        "[Interface]",
        "Address = " + ", ".join(map(str, interface.addresses)),
        "ListenPort = %d" % interface.listen_port,
        "MTU = %d" % interface.mtu,
        "PrivateKey = " + private,
        "PreUp = %s close %%i" % node.paths.program,
        load_hook(node),
    ]
    write_if_new(node.conf, "\n".join(rows) + "\n", 0o600)
    return private


def install_state(node: Node, wish: Wish) -> None:
    """The interface's settings into the state, peers kept; a higher epoch opens a new count."""
    with locked(node.apply_lock, 10.0) as alone, locked(node.gate, 10.0) as gate:
        if alone is None or gate is None:
            raise Refused("busy", "an apply runs or the state is being written; try again")
        state = node.state.read()
        epoch, generation = max((state.epoch, state.generation), (wish.epoch, 0))
        line = wish.interface.line
        digest = content_digest(line, state.lines)
        new = State(epoch, generation, state.pushed, digest, line, state.lines, state.seen, "state")
        if new != state:
            node.state.write(new)


def write_if_new(path: str, text: str, mode: int) -> None:
    if read_text(path) != text:
        make_folder(os.path.dirname(path), 0o755)
        write_atomic(path, text.encode(), mode)


def install_unit(node: Node) -> None:
    """The stock reload would drop every peer for 15 s, the stock start load peers saved into the conf."""
    folder = "%s/wg-quick@%s.service.d" % (UNITS, node.name)
    program, name = node.paths.program, node.name
    seal, load = "ExecStartPre=%s seal %s" % (program, name), "ExecReload=%s load %s" % (program, name)
    write_if_new(folder + "/muster.conf", "[Service]\n%s\nExecReload=\n%s\n" % (seal, load), 0o644)
    write_if_new(UNITS + "/muster-node.service", DAEMON.format(program=program), 0o644)
    enable("wg-quick@%s.service" % name, "/lib/systemd/system/wg-quick@.service")
    enable("muster-node.service", UNITS + "/muster-node.service")


def enable(unit: str, file: str) -> None:
    """Has the unit started at boot."""
    link = "%s/multi-user.target.wants/%s" % (UNITS, unit)
    if not os.path.lexists(link):
        make_folder(os.path.dirname(link), 0o755)
        os.symlink(file, link)


def install_access(node: Node, wish: Wish) -> None:
    """The Console's key, bound to this interface's session; no second line for it at the other user."""
    flag = "--observe " if wish.observe_only else ""
    command = "%s session %s%s" % (node.paths.program, flag, node.name)
    if wish.user == "muster":
        make_user()
        allow_sudo(node, command)
        command = "sudo -n " + command
    line = 'restrict,command="%s" %s muster:%s' % (command, wish.console_key, node.name)
    for user in ("root", "muster"):
        write_authorized(node, user, wish.console_key, line if user == wish.user else None)


def make_user() -> None:
    """A user that nobody can log in as but by a key: no password, nothing in its home is its own."""
    with contextlib.suppress(KeyError):
        pwd.getpwnam("muster")
        return
    made = run(["useradd", "--system", "--home-dir", "/home/muster", "--shell", "/bin/sh", "--password", "*", "muster"])
    if made.returncode != 0:
        raise Refused("kernel", "useradd failed")


def allow_sudo(node: Node, command: str) -> None:
    """One sudoers line for this interface, the others kept; never in place before visudo has read it."""
    ours = re.compile(r"muster .* session (--observe )?" + re.escape(node.name.replace("=", "\\=")))
    kept = [row for row in read_text(SUDOERS).splitlines() if row and not ours.fullmatch(row)]
    text = "\n".join([*kept, "muster ALL=(root) NOPASSWD: " + command.replace("=", "\\="), ""])
    if run(["visudo", "-c", "-f", "-"], text).returncode != 0:
        raise Refused("kernel", "visudo refused the line for muster")
    write_if_new(SUDOERS, text, 0o440)


def write_authorized(node: Node, user: str, key: str, line: str | None) -> None:
    """Puts `line` (or nothing) where our line for this interface was; every other line stays."""
    try:
        home = pwd.getpwnam(user).pw_dir
    except KeyError:
        return
    path = home + "/.ssh/authorized_keys"
    rows = [row for row in read_text(path).split("\n") if row and not row.endswith(" muster:" + node.name)]
    need(not any(key in row for row in rows), "console_key", "opens something else on this machine already")
    if line is None and read_text(path).split("\n")[:-1] == rows:
        return
    # sshd takes a file that root owns; a user that cannot write its own keys can add none.
    folder_mode, mode = (0o700, 0o600) if user == "root" else (0o755, 0o644)
    for folder in (home, home + "/.ssh"):
        make_folder(folder, folder_mode)
    write_atomic(path, "".join(row + "\n" for row in [*rows, *([line] if line else [])]).encode(), mode)


def start_interface(node: Node) -> str:
    """Opens the interface by wg-quick, through systemd where it runs; one that is up is only loaded."""
    unit = "wg-quick@%s.service" % node.name
    systemd = os.path.isdir("/run/systemd/system") and tool_there("systemctl")
    if systemd:
        run(["systemctl", "daemon-reload"], seconds=60.0)
    node.seal()
    if read_kernel(node.name):
        node.load()
    else:
        run(["systemctl", "start", unit] if systemd else ["wg-quick", "up", node.name], seconds=90.0)
    if read_kernel(node.name) is None:
        raise Refused("kernel", "wg-quick could not open the interface; is its port or one of its addresses taken?")
    if systemd:
        # Also where it runs: the program may be a newer one now.
        run(["systemctl", "restart", "muster-node.service"], seconds=60.0)
    return "systemd" if systemd else "none"


def host_keys() -> list[str]:
    """This machine's SSH host keys, without comments."""
    with contextlib.suppress(OSError):
        names = sorted(name for name in os.listdir(SSH) if re.fullmatch(r"ssh_host_\w+_key\.pub", name))
        rows = [read_text(os.path.join(SSH, name)).split() for name in names]
        return [" ".join(row[:2]) for row in rows if len(row) >= 2]
    return []


def main(program: str, name: str) -> int:
    """Does what the one JSON object on standard input asks for; 0 when it held."""
    os.umask(0o077)
    try:
        node = Node(parse_interface_name(name), Paths(program=os.path.abspath(program)))
    except ArgumentTypeError as error:
        sys.exit("IFACE: %s" % error)
    reply = guarded(lambda: install(node, parse_json(sys.stdin.buffer.read(MAX_LINE + 1))))
    send(reply)
    return 0 if reply["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
