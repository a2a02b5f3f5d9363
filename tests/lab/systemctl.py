#!/usr/bin/python3 -SE
"""systemctl for a machine where no systemd runs: reads unit files and drop-ins and does what they say.

Services only (no timers, sockets or targets): `systemctl default` is what happens at power-on.
"""

import glob
import os
import shlex
import signal
import subprocess
import sys
import time

ADMIN = "/etc/systemd/system"
FOLDERS = (ADMIN, "/run/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
WANTS = ADMIN + "/multi-user.target.wants"
RUNNING = "/run/lab-units"
Settings = dict[str, list[str]]


class UnitError(Exception):
    """A unit cannot be found or did not start."""


def service(name: str) -> str:
    """Complete a unit's name as systemctl does."""
    return name if "." in os.path.basename(name).rpartition("@")[2] else name + ".service"


def template(unit: str) -> str:
    stem, at, _ = unit.partition("@")
    return stem + at + ".service" if at else unit


def instance(unit: str) -> str:
    return unit.partition("@")[2].removesuffix(".service")


def fragment(unit: str) -> str:
    """The unit's own file."""
    for name in (unit, template(unit)):
        for folder in FOLDERS:
            if os.path.exists(os.path.join(folder, name)):
                return os.path.join(folder, name)
    raise UnitError("Unit " + unit + " not found.")


def drop_ins(unit: str) -> list[str]:
    found = {}
    for name in (template(unit), unit):
        for folder in reversed(FOLDERS):
            for path in glob.glob(os.path.join(folder, name + ".d", "*.conf")):
                found[os.path.basename(path)] = path
    return [found[name] for name in sorted(found)]


def parse(unit: str) -> Settings:
    """All settings of [Service]; an empty value clears what came before it, as in systemd."""
    settings: Settings = {}
    for path in [fragment(unit), *drop_ins(unit)]:
        section = ""
        with open(path) as file:
            lines = file.read().replace("\\\n", " ").splitlines()
        for line in map(str.strip, lines):
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and line[0] not in "#;":
                key, _, value = line.partition("=")
                settings[key.strip()] = [*settings.get(key.strip(), []), value.strip()] if value.strip() else []
    return settings


def expand(text: str, unit: str) -> str:
    values = {"%i": instance(unit), "%I": instance(unit).replace("-", "/"), "%n": unit, "%%": "%"}
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def environment(settings: Settings, unit: str) -> dict[str, str]:
    values = dict(os.environ, LOG_LEVEL="error")
    for line in settings.get("Environment", []):
        for word in shlex.split(expand(line, unit)):
            key, _, values[key] = word.partition("=")
    return values


def command(line: str, unit: str) -> tuple[list[str], bool]:
    """The words of an Exec line, and whether its failure counts."""
    marks = line[: len(line) - len(line.lstrip("-+!:@"))]
    return shlex.split(expand(line[len(marks) :], unit)), "-" not in marks


def execute(settings: Settings, key: str, unit: str) -> None:
    for line in settings.get(key, []):
        words, strict = command(line, unit)
        with open(log_path(unit), "ab") as log:
            status = subprocess.call(
                words, env=environment(settings, unit), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if strict and status != 0:
            raise UnitError("Job for " + unit + " failed: " + key + "=" + line + ", status " + str(status))


def log_path(unit: str) -> str:
    os.makedirs(RUNNING, exist_ok=True)
    return os.path.join(RUNNING, unit + ".log")


def mark(unit: str) -> str:
    return os.path.join(RUNNING, unit)


def supervisor(unit: str) -> int:
    """The pid of the supervisor of a running service; 0 for a oneshot that stays active, -1 if inactive."""
    try:
        with open(mark(unit)) as file:
            pid = int(file.read() or 0)
    except FileNotFoundError:
        return -1
    if pid and not os.path.exists("/proc/" + str(pid)):
        return -1
    return pid


def start(unit: str) -> None:
    settings = parse(unit)
    if supervisor(unit) >= 0:
        return
    execute(settings, "ExecStartPre", unit)
    if settings.get("Type", ["simple"])[-1] == "oneshot":
        execute(settings, "ExecStart", unit)
        keep = settings.get("RemainAfterExit", ["no"])[-1] in ("yes", "true", "1")
        pid = 0
    else:
        pid, keep = supervise(settings, unit), True
    if keep:
        os.makedirs(RUNNING, exist_ok=True)
        with open(mark(unit), "w") as file:
            file.write(str(pid))
    execute(settings, "ExecStartPost", unit)


def supervise(settings: Settings, unit: str) -> int:
    """Run a service in the background, again and again where it says Restart=."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    again = settings.get("Restart", ["no"])[-1]
    words, _ = command(settings["ExecStart"][-1], unit)
    pause = float(settings.get("RestartSec", ["0.1"])[-1].rstrip("s"))
    with open(log_path(unit), "ab") as log:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        while True:
            status = subprocess.call(words, env=environment(settings, unit))
            if again == "no" or (again == "on-failure" and status == 0):
                os._exit(0)
            time.sleep(pause)


def stop(unit: str) -> None:
    pid = supervisor(unit)
    if pid < 0:
        return
    settings = parse(unit)
    try:
        execute(settings, "ExecStop", unit)
    except UnitError as error:
        print(error, file=sys.stderr)
    if pid:
        os.killpg(pid, signal.SIGKILL)
    os.unlink(mark(unit))


def restart(unit: str) -> None:
    stop(unit)
    start(unit)


def reload(unit: str) -> None:
    if supervisor(unit) < 0:
        raise UnitError(unit + " is not active, cannot reload.")
    execute(parse(unit), "ExecReload", unit)


def reload_or_restart(unit: str) -> None:
    if supervisor(unit) >= 0 and parse(unit).get("ExecReload"):
        reload(unit)
    else:
        restart(unit)


def enable(unit: str) -> None:
    os.makedirs(WANTS, exist_ok=True)
    link = os.path.join(WANTS, unit)
    if not os.path.lexists(link):
        os.symlink(fragment(unit), link)


def disable(unit: str) -> None:
    link = os.path.join(WANTS, unit)
    if os.path.lexists(link):
        os.unlink(link)


def is_active(unit: str) -> None:
    state = "active" if supervisor(unit) >= 0 else "inactive"
    print(state)
    if state == "inactive":
        sys.exit(3)


def is_enabled(unit: str) -> None:
    state = "enabled" if os.path.lexists(os.path.join(WANTS, unit)) else "disabled"
    print(state)
    if state == "disabled":
        sys.exit(1)


def set_kernel_values() -> None:
    """Do what systemd-sysctl does, for the network only: the rest belongs to the machine the lab runs on."""
    for path in sorted(glob.glob("/etc/sysctl.d/*.conf"), key=os.path.basename):
        with open(path) as file:
            lines = [line.lstrip("- ").partition("=") for line in file if "=" in line and line.strip()[0] not in "#;"]
        for key, _, value in lines:
            name = key.strip() if "/" in key else key.strip().replace(".", "/")
            if name.startswith("net/") and os.path.exists("/proc/sys/" + name):
                with open("/proc/sys/" + name, "w") as file:
                    file.write(value.strip())


def power_on() -> int:
    """Start all that is enabled; a unit that fails does not keep the others from starting."""
    set_kernel_values()
    failed = 0
    if os.path.lexists(ADMIN + "/sysinit.target.wants/nftables.service") and os.path.exists("/etc/nftables.conf"):
        failed += subprocess.call(["nft", "-f", "/etc/nftables.conf"]) != 0
    for path in sorted(glob.glob(WANTS + "/*.service")):
        try:
            start(os.path.basename(path))
        except (UnitError, OSError) as error:
            print(error, file=sys.stderr)
            failed += 1
    return 1 if failed else 0


VERBS = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "try-restart": restart,
    "reload": reload,
    "reload-or-restart": reload_or_restart,
    "enable": enable,
    "disable": disable,
    "is-active": is_active,
    "is-enabled": is_enabled,
}


def goes_on_alone() -> bool:
    """Forks; True in the one that need not wait, which holds no pipe of the caller's."""
    if os.fork():
        return True
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    return False


def main(arguments: list[str]) -> int:
    """Act on `systemctl VERB UNIT...`; exit status as systemctl's."""
    words = [word for word in arguments if not word.startswith("-")]
    if words[:1] == ["default"]:
        return power_on()
    if words[:1] in (["daemon-reload"], ["reset-failed"]):
        return 0
    if "--no-block" in arguments and goes_on_alone():
        return 0
    if not words or words[0] not in VERBS:
        print("Unknown command verb " + " ".join(words), file=sys.stderr)
        return 1
    for name in words[1:]:
        unit = service(name)
        VERBS[words[0]](unit)
        if "--now" in arguments:
            (start if words[0] == "enable" else stop)(unit)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UnitError, OSError) as error:
        sys.exit(str(error))
