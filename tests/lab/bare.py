"""The root of a bare machine: Debian with python3, sshd, apt and a folder of packages for apt.

Made once, in about a minute, from this machine's mirror and apt settings. Staged with all they depend on:
wireguard-tools wireguard-go nftables iproute2 sudo (procps is there, as sshd needs it). Nothing else.
"""

import fcntl
import os
import re
import shutil
from pathlib import Path

from tests.lab.commands import LabError, run

CACHE = Path("/var/tmp/muster-lab")
STAGED = ("wireguard-tools", "wireguard-go", "nftables", "iproute2", "sudo")
INCLUDED = ("python3-minimal", "python3", "openssh-server", "ca-certificates")
SETTINGS = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
PACKAGES = "var/lab-repo"
BUILD_LIMIT = 900.0


def bare_root() -> Path:
    """The cached root, made if there is none yet; raises LabError with debootstrap's or apt's own words."""
    CACHE.mkdir(mode=0o755, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = CACHE / "bare-root"
        if not root.exists():
            _build(CACHE / "bare-root.new")
            (CACHE / "bare-root.new").rename(root)
    return root


def _build(root: Path) -> None:
    if shutil.which("debootstrap") is None:
        raise LabError("a bare server needs the program debootstrap")
    if root.exists():
        shutil.rmtree(root)
    include = "--include=" + ",".join(INCLUDED)
    run(["debootstrap", "--variant=minbase", include, _release(), str(root), _mirror()], timeout=BUILD_LIMIT)
    _borrow_settings(root)
    _stage_packages(root)
    _forget_this_machine(root)


def _release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise LabError("this machine's Debian release has no name in /etc/os-release")
    return found[1]


def _sources() -> list[Path]:
    return [
        p for p in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))] if p.is_file()
    ]


def _mirror() -> str:
    """The first Debian mirror this machine's apt uses."""
    urls = [url for file in _sources() for url in re.findall(r"https?://[^\s\]]+", file.read_text())]
    plain = [url for url in urls if "security" not in url and "snapshot" not in url]
    if not plain:
        raise LabError("no mirror in this machine's apt sources")
    return str(plain[0])


def _borrow_settings(root: Path) -> None:
    """Let apt in the chroot reach what apt on this machine reaches."""
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for folder in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d"):
        shutil.copytree(Path("/") / folder, root / folder, dirs_exist_ok=True)
    for file in [Path("/etc/apt/sources.list"), *map(Path, SETTINGS)]:
        if file.exists():
            shutil.copyfile(file, root / str(file).lstrip("/"))


def _stage_packages(root: Path) -> None:
    """Download with apt of the bare root itself, so that exactly what it lacks is there."""
    chroot = ["chroot", str(root), "apt-get", "-q", "-y"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run([*chroot, "update"], timeout=BUILD_LIMIT, environment=environment)
    # Debootstrap's own packages are installed already; wireguard-tools recommends a whole kernel.
    run([*chroot, "clean"], environment=environment)
    install = [*chroot, "install", "--download-only", "--no-install-recommends"]
    run([*install, *STAGED], timeout=BUILD_LIMIT, environment=environment)
    folder = root / PACKAGES
    folder.mkdir()
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.rename(folder / package.name)
    (folder / "Packages").write_text("\n".join(_index_entry(package) for package in sorted(folder.glob("*.deb"))))


def _index_entry(package: Path) -> str:
    """What dpkg-scanpackages would write, without the need for it."""
    control = run(["dpkg-deb", "--field", str(package)]).stdout.rstrip("\n")
    digest = run(["sha256sum", str(package)]).stdout.split()[0]
    return f"{control}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"


def _forget_this_machine(root: Path) -> None:
    """Leave only the offline packages for apt; no package may start a daemon, as no init runs."""
    for folder in ("etc/apt/sources.list.d", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    for borrowed in Path("/etc/apt/apt.conf.d").glob("*"):
        (root / "etc/apt/apt.conf.d" / borrowed.name).unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:/{PACKAGES} ./\n")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
