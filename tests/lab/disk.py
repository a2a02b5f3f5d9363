"""What is on a node's own disk before it is switched on for the first time."""

import os
from pathlib import Path

from tests.lab.commands import run
from tests.lab.state import Node

HERE = Path(__file__).resolve().parent
# Folders where nothing of this machine may show through.
OPAQUE = (
    "root",
    "home",
    "etc/ssh",
    "etc/wireguard",
    "etc/systemd/system",
    "etc/sysctl.d",
    "etc/sudoers.d",
    "etc/nftables.d",
    "etc/muster",
    "var/lib/muster",
)
SECRET = {"root", "etc/wireguard", "etc/sudoers.d"}
BIRTH_ONLY = {"etc/muster", "var/lib/muster", "etc/nftables.d"}
SSHD_CONFIG = """Include /etc/ssh/sshd_config.d/*.conf
HostKey /etc/ssh/ssh_host_ed25519_key
KbdInteractiveAuthentication no
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
"""


def make_disk(disk: Path, node: Node, authorized_keys: str) -> str:
    """Fill a new disk; returns the node's host key ("ssh-ed25519 AAAA..."), "" where no sshd runs."""
    for part in ("upper", "work", "merged"):
        (disk / part).mkdir(parents=True)
    root = disk / "upper"
    hide_this_machine(root, Path(node.lower))
    write(root / "etc/hostname", node.name + "\n")
    write(root / "etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {node.name}\n")
    write(root / "etc/resolv.conf", "")
    write(root / "usr/bin/systemctl", (HERE / "systemctl.py").read_text(), 0o755)
    return make_ssh(root, node.name, authorized_keys) if node.role == "server" else ""


def hide_this_machine(root: Path, lower: Path) -> None:
    """Cover folders of the lower root by empty ones, where the lower root has them."""
    for name in OPAQUE:
        if name in BIRTH_ONLY and not (lower / name).is_dir():
            continue
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700 if name in SECRET else 0o755)
        os.setxattr(folder, "trusted.overlay.opaque", b"y")


def make_ssh(root: Path, name: str, authorized_keys: str) -> str:
    """Write sshd's settings, a host key of the node's own and who may log in as root."""
    key = root / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", str(key)])
    write(root / "etc/ssh/sshd_config", SSHD_CONFIG)
    (root / "etc/ssh/sshd_config.d").mkdir()
    write(root / "root/.ssh/authorized_keys", authorized_keys, 0o600)
    (root / "root/.ssh").chmod(0o700)
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file with exactly this mode, never readable by more in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
