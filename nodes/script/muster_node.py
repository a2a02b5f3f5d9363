#!/usr/bin/python3 -IS
"""muster-node: keeps the peers of a WireGuard interface as the Console says, and revoked keys out of it.

One file, Python 3.9 or newer, standard library only, run as root. It listens on nothing: the Console reaches
it through SSH as a forced command, the boot through wg-quick's hooks, a person through the command line.
What it owns: /var/lib/muster, /run/muster, IFACE.conf, two nft tables a interface, routes of protocol 117.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import functools
import glob
import hashlib
import ipaddress
import json
import os
import re
import stat
import subprocess
import sys
import syslog
import time
import traceback
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, BinaryIO, NamedTuple

VERSION, PROTOCOL = "1.0.0", 1
MAX_LINE = MAX_SCAN = 16 * 1024 * 1024
MAX_KEYS, MAX_PEERS, MAX_JOURNAL = 10_000, 100_000, 1024 * 1024
ROUTE_PROTOCOL, OWN_TABLES = "117", ("local", "main")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

Json = dict[str, Any]
Range = tuple[int, int, int, str]
Stamp = tuple[int, int, int]
Ran = subprocess.CompletedProcess[str]


class Paths(NamedTuple):
    """Every place on the machine that this program reads or writes."""

    program: str = "/usr/local/sbin/muster-node"
    lib: str = "/var/lib/muster"
    run: str = "/run/muster"
    wireguard: str = "/etc/wireguard"
    boot: tuple[str, ...] = tuple(
        "/etc/systemd/system /etc/systemd/network /run/systemd/system /etc/network /etc/netplan /etc/rc.local /etc/rc.d"
        " /etc/init.d /etc/cron.d /etc/crontab /var/spool/cron /etc/NetworkManager/system-connections"
        " /etc/sysconfig/network-scripts".split()
    )
    proc: str = "/proc/sys"


# ---------------------------------------------------------------- errors, values, files, locks


class Refused(Exception):
    """A request that is not done: a code of the protocol, and words that hold no value out of the request."""

    def __init__(self, code: str, message: str, **extra: Any) -> None:
        super().__init__(code)
        self.code, self.message, self.extra = code, message, extra


def need(holds: object, field: str, mend: str) -> None:
    if not holds:
        raise Refused("bad_request", "%s: %s" % (field, mend))


def alarm(text: str) -> None:
    """Says it where a person may look: standard error and the system log."""
    with contextlib.suppress(OSError):
        print("muster-node: " + text, file=sys.stderr, flush=True)
    syslog.openlog("muster-node")
    syslog.syslog(syslog.LOG_ALERT, text)


def defect(error: BaseException) -> str:
    """Type and line of an exception; its text could hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    return "%s at line %s" % (type(error).__name__, frames[-1].lineno if frames else "?")


KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
KEY_TOKEN = re.compile(rb"[A-Za-z0-9+/]{43}=")
INTERFACE_NAME = re.compile(r"[a-zA-Z0-9_=+][a-zA-Z0-9_=+.-]{0,14}")
DIGEST = re.compile(r"[0-9a-f]{64}")
FIELD_PRIME = 2**255 - 19
ORDER_8 = (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
LOW_ORDER = {0, 1, FIELD_PRIME - 1, *(int.from_bytes(bytes.fromhex(point), "little") for point in ORDER_8)}


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def unique_fields(pairs: list[tuple[str, Any]]) -> Json:
    fields = dict(pairs)
    need(len(fields) == len(pairs), "request", "a field is there twice")
    return fields


def whole_number(text: str) -> int:
    need(len(text) <= 18, "request", "a number is too long")
    return int(text)


def no_number(_text: str) -> float:
    raise Refused("bad_request", "request: only whole numbers; no fraction, exponent, NaN or Infinity")


def parse_json(line: bytes) -> Json:
    """One JSON object, or Refused: no duplicate fields, no floats, strict UTF-8, no deep nesting."""
    need(len(line) <= MAX_LINE, "request", "a line may have 16 MiB")
    numbers: Json = {"parse_int": whole_number, "parse_float": no_number, "parse_constant": no_number}
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=unique_fields, **numbers)
    except (ValueError, RecursionError):
        raise Refused("bad_request", "request: not a line of JSON") from None
    need(type(value) is dict, "request", "must be a JSON object")
    return dict(value)


def fields_of(value: Any, field: str, names: Sequence[str], optional: Sequence[str] = ()) -> Json:
    """`value` as an object that has these fields, may have the optional ones, and no other."""
    need(type(value) is dict, field, "must be an object")
    lacking = sorted(set(names) - value.keys())
    need(not lacking, field, "lacks " + ", ".join(lacking))
    need(not value.keys() - {*names, *optional}, field, "unknown field; known: " + ", ".join([*names, *optional]))
    return dict(value)


def list_of(value: Any, field: str, most: int, least: int = 0) -> list[Any]:
    need(type(value) is list, field, "must be a list")
    need(least <= len(value) <= most, field, "must have %d to %d entries" % (least, most))
    return list(value)


def parse_int(value: Any, field: str, low: int = 0, high: int = 2**53) -> int:
    need(type(value) is int, field, "must be a whole number")
    need(low <= value <= high, field, "must be %d to %d" % (low, high))
    return int(value)


def parse_bool(value: Any, field: str) -> bool:
    need(type(value) is bool, field, "must be true or false")
    return bool(value)


def parse_text(value: Any, field: str, most: int = 1000) -> str:
    need(type(value) is str and len(value) <= most, field, "must be text of at most %d characters" % most)
    return str(value)


def parse_digest(value: Any, field: str) -> str:
    need(type(value) is str and DIGEST.fullmatch(value), field, "must be 64 lower-case hex digits")
    return str(value)


def raw_key(value: Any, field: str) -> bytes:
    """The 32 bytes of canonical base64; not all zero."""
    need(type(value) is str and KEY.fullmatch(value), field, "must be 44 characters of base64")
    raw = base64.b64decode(value)
    need(base64.b64encode(raw).decode() == value, field, "must be canonical base64: its last character is wrong")
    need(any(raw), field, "must not be all zero")
    return raw


def parse_key(value: Any, field: str = "public_key") -> str:
    """A public key that can be somebody's: canonical and not of low order."""
    point = int.from_bytes(raw_key(value, field), "little") & (2**255 - 1)
    need(point % FIELD_PRIME not in LOW_ORDER, field, "must not be a point of low order")
    return str(value)


def parse_keys(value: Any, field: str) -> list[str]:
    keys = [parse_key(key, field) for key in list_of(value, field, MAX_PEERS)]
    need(len(set(keys)) == len(keys), field, "a key is there twice")
    return keys


def parse_network(value: Any, field: str) -> Range:
    """A network in canonical text as (version, first, last, text)."""
    network = parse_ip(ipaddress.ip_network, value, field)
    need(network.prefixlen > 0, field, "a whole address family cannot be routed to one peer")
    return network.version, int(network.network_address), int(network.broadcast_address), str(network)


def parse_ip(parse: Callable[[str], Any], value: Any, field: str) -> Any:
    """What `parse` makes of a text, where that is the one way to write it."""
    try:
        parsed = parse(parse_text(value, field, 64))
    except ValueError:
        raise Refused("bad_request", field + ": must be address/prefix; of a network, host bits zero") from None
    need(str(parsed) == value, field, "must be canonical text, as 10.1.0.7/32")
    mapped = getattr(parsed.network_address if parse is ipaddress.ip_network else parsed.ip, "ipv4_mapped", None)
    need(mapped is None and "%" not in value, field, "no mapped or scoped address")
    return parsed


def parse_windows(value: Any) -> tuple[int, ...]:
    """When it opens, shuts, opens again and so on: it is open while an odd number of these moments has come."""
    pairs = [list_of(pair, "windows", 2, 2) for pair in list_of(value, "windows", 64)]
    moments = [parse_int(moment, "windows") for pair in pairs for moment in pair]
    need(moments == sorted(set(moments)), "windows", "from, until, from, until: each must be later than the one before")
    return tuple(moments)


class Peer(NamedTuple):
    """One peer as the Console wants it; without `windows` it is always open; `line` is its canonical text."""

    key: str
    preshared: str | None
    networks: tuple[str, ...]
    expires_at: int | None
    windows: tuple[int, ...] | None
    replaces: str | None
    ranges: tuple[Range, ...]
    line: str


PEER = ("public_key", "preshared_key", "allowed_ips", "expires_at")
PARSED: dict[str, Peer] = {}


def parse_peer(value: Any) -> Peer:
    peer = fields_of(value, "peer", PEER, ("replaces", "windows"))
    key, preshared, expires_at = parse_key(peer["public_key"]), peer["preshared_key"], peer["expires_at"]
    windows = parse_windows(peer["windows"]) if "windows" in peer else None
    replaces = parse_key(peer["replaces"], "replaces") if "replaces" in peer else None
    need(replaces != key, "replaces", "must be another key")
    if preshared is not None:
        raw_key(preshared, "preshared_key")
    if expires_at is not None:
        parse_int(expires_at, "expires_at")
    items = list_of(peer["allowed_ips"], "allowed_ips", 64)
    ranges = tuple(parse_network(item, "allowed_ips") for item in items)
    order = [(version, text) for version, _, _, text in ranges]
    need(order == sorted(set(order)), "allowed_ips", "must be sorted by (version, text), each once")
    line, networks = canonical(peer), tuple(text for _, text in order)
    parsed = Peer(key, preshared, networks, expires_at, windows, replaces, ranges, line)
    if len(PARSED) >= 2 * MAX_PEERS:
        PARSED.clear()
    return PARSED.setdefault(line, parsed)


def peer_of(line: str) -> Peer:
    """The peer of one line of canonical text, parsed once in the life of this process."""
    return PARSED.get(line) or parse_peer(parse_json(line.encode()))


class Interface(NamedTuple):
    addresses: tuple[Any, ...]
    listen_port: int
    mtu: int
    forward: str
    line: str

    def settings(self) -> set[str]:
        return {"up", "port %d" % self.listen_port, "mtu %d" % self.mtu, *map(str, self.addresses)}

    def wider(self, texts: Iterable[str]) -> dict[str, Any]:
        """Those that are one of the addresses but for a longer prefix, each with that address."""
        new = {str(address.ip): address for address in self.addresses}
        parts = [(text, *text.partition("/")[::2]) for text in texts]
        return {text: new[ip] for text, ip, size in parts if ip in new and int(size) > new[ip].network.prefixlen}


def parse_interface(value: object) -> Interface:
    fields = fields_of(value, "interface", ("addresses", "listen_port", "mtu", "forward"))
    items = list_of(fields["addresses"], "addresses", 16, 1)
    parsed = [parse_ip(ipaddress.ip_interface, item, "addresses") for item in items]
    need(len({item.ip for item in parsed}) == len(items), "addresses", "an address is there twice")
    port = parse_int(fields["listen_port"], "listen_port", 1, 65535)
    mtu = parse_int(fields["mtu"], "mtu", 1280, 1500)
    forward = parse_text(fields["forward"], "forward")
    need(forward in ("masquerade", "routed", "none"), "forward", "must be masquerade, routed or none")
    return Interface(tuple(parsed), port, mtu, forward, canonical(fields))


def interface_of(line: str) -> Interface:
    return parse_interface(parse_json(line.encode()))


def check_overlap(peers: Sequence[Peer]) -> None:
    """Refuses two peers that would share an address, but for a peer and the one that replaces it."""
    keys = {peer.key: peer.replaces for peer in peers}
    replaced = [key for key in keys.values() if key in keys]
    good = len(set(replaced)) == len(replaced) and not any(keys[key] in keys for key in replaced)
    need(good, "replaces", "a key is replaced by one other, which is replaced by none")
    owners = ((peer, peer.replaces if peer.replaces in keys else peer.key) for peer in peers)
    ranges = sorted((reach, owner or "") for peer, owner in owners for reach in peer.ranges)
    end, before = (0, 0), ""
    for (version, first, last, _), owner in ranges:
        need((version, first) > end or owner == before, "allowed_ips", "two peers share an address")
        if (version, last) > end:
            end, before = (version, last), owner


def parse_item(value: object) -> tuple[str, str]:
    item = fields_of(value, "key", ("public_key", "reason"))
    return parse_key(item["public_key"]), parse_text(item["reason"], "reason")


def parse_interface_name(text: str) -> str:
    # wg has two names of its own, and two would meet our own files.
    if not INTERFACE_NAME.fullmatch(text) or text in ("all", "interfaces", "tombstones", "tombstones.copy"):
        raise argparse.ArgumentTypeError("not the name of an interface")
    return text


def stamp(path: str) -> Stamp | None:
    """What tells one version of a file from the next; None where there is no file."""
    try:
        found = os.stat(path)
        return found.st_ino, found.st_mtime_ns, found.st_size
    except OSError as error:
        return None if isinstance(error, (FileNotFoundError, NotADirectoryError)) else (0, 0, 0)


def sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: str, mode: int = 0o700) -> None:
    """The folder and those above it, on the disk too; one that is there keeps its mode."""
    if not os.path.isdir(path):
        make_folder(os.path.dirname(path))
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        sync_folder(os.path.dirname(path))


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replaces a file by write, fsync, rename, fsync of the folder; nobody ever sees it with a wider mode."""
    partial = path + ".new"
    make_folder(os.path.dirname(path))
    try:
        with open(partial, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    sync_folder(os.path.dirname(path))


def append_lines(path: str, lines: Sequence[bytes]) -> bool:
    """Adds the lines; whether they are on the disk for sure."""
    new = not os.path.exists(path)
    with contextlib.suppress(OSError):
        make_folder(os.path.dirname(path))
        with open(path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.fchmod(file.fileno(), 0o600)
            size = file.tell()
            torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if torn else b"") + b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
            if new:
                sync_folder(os.path.dirname(path))
            return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def read_bytes(path: str, start: int = 0, most: int = -1) -> bytes:
    # Whoever puts a pipe in the place of a file that a hook names must not hold us up: it cannot be sought in.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        file.seek(start)
        return file.read(most)


def keys_in(data: bytes) -> frozenset[str]:
    return frozenset(token.decode() for token in KEY_TOKEN.findall(data))


@contextlib.contextmanager
def locked(path: str, seconds: float) -> Iterator[int | None]:
    """Holds the lock within; yields its descriptor, or None when it could not be had in time."""
    with contextlib.ExitStack() as stack:
        descriptor = None
        with contextlib.suppress(OSError):
            make_folder(os.path.dirname(path))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
        yield descriptor if descriptor is not None and wait_for_lock(descriptor, seconds) else None


def wait_for_lock(descriptor: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.0005)


# ---------------------------------------------------------------- what is kept: tombstones, time, journal, state

TOMBSTONE = re.compile(rb'\{"at":\d{1,18},"public_key":"([A-Za-z0-9+/]{43}=)","reason":"[^\n]*"\}')


class TombstoneFile:
    """One append-only file of tombstones, read on from where it was read to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.keys: set[str] = set()
        self.damaged = False
        self.seen: Stamp | None = None
        self.offset = 0
        self.proven: Stamp | None = None  # the spare file's version at which this one was on the disk for sure

    def refresh(self, lines: dict[str, bytes]) -> None:
        now = stamp(self.path)
        if now == self.seen:
            return
        if now is None or self.seen is None or now[0] != self.seen[0] or now[2] < self.offset:
            self.keys, self.offset, self.damaged = set(), 0, False
        self.seen, data = now, b""
        try:
            data = read_bytes(self.path, self.offset) if now else b""
        except OSError:
            self.seen, self.damaged = None, True
        *whole, torn = data.split(b"\n")
        self.offset += len(data) - len(torn)
        for line in filter(None, [*whole, torn]):
            good = TOMBSTONE.fullmatch(line)
            self.damaged |= not good and (not line.startswith(b'{"at":') or line.endswith(b'"}'))
            # A damaged line still names its key: better one key too many than one too few.
            for key in [good.group(1).decode()] if good else keys_in(line):
                lines.setdefault(key, line if good else tombstone_line(key, "restored from a damaged line"))
            self.keys.update([good.group(1).decode()] if good else ())


def tombstone_line(key: str, reason: str) -> bytes:
    return canonical({"public_key": key, "reason": reason, "at": int(time.time())}).encode()


class Tombstones:
    """The keys that may never be a peer again: grow-only, in a file and its copy; a full disk's in memory and /run."""

    def __init__(self, paths: Paths) -> None:
        self.main = TombstoneFile(paths.lib + "/tombstones")
        self.copy = TombstoneFile(paths.lib + "/tombstones.copy")
        self.spare = TombstoneFile(paths.run + "/tombstones")
        self.lines: dict[str, bytes] = {}

    def read(self) -> Mapping[str, bytes]:
        """Line by key. Never shrinks while this process lives."""
        for file in (self.main, self.copy, self.spare):
            file.refresh(self.lines)
        return self.lines

    def add(self, items: Iterable[tuple[str, str]]) -> bool:
        """Puts keys into the set for ever; says whether the disk has them all, and all from before."""
        self.read()
        for key, reason in items:
            self.lines.setdefault(key, tombstone_line(key, reason))
        durable, copied = self._write(self.main), self._write(self.copy)
        if not durable and not copied:
            append_lines(self.spare.path, self._missing(self.spare))
        return durable

    def heal(self) -> None:
        """Writes down what a file lacks, as after a full disk."""
        if self.trouble():
            alarm("tombstones are written again: a file lacked some")
            self.add([])

    def trouble(self) -> str | None:
        """What is wrong with the files, in words; None when nothing is."""
        for file in (self.main, self.copy):
            if len(self.read()) > len(file.keys) or file.damaged or file.proven != self.spare.seen:
                return file.path + " is damaged or lacks tombstones"
        return None

    def _missing(self, file: TombstoneFile) -> list[bytes]:
        return [line for key, line in self.lines.items() if key not in file.keys]

    def _write(self, file: TombstoneFile) -> bool:
        sure = file.proven == self.spare.seen and not file.damaged
        good = append_lines(file.path, self._missing(file)) if sure else self._replace(file)
        file.proven = self.spare.seen if good else (0, 0, 0)
        file.refresh(self.lines)
        return good and len(file.keys) == len(self.lines)

    def _replace(self, file: TombstoneFile) -> bool:
        """Writes all anew: once an fsync has failed, the next proves nothing, as what was lost counts as written."""
        with contextlib.suppress(OSError):
            make_folder(os.path.dirname(file.path))
            with open(file.path, "ab") as old:
                fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(old.fileno()), os.stat(file.path)):
                    write_atomic(file.path, b"".join(line + b"\n" for line in self.read().values()))
                    return True
        return False


JUMP, HELD, TICK, FAR = 60, 3600, 5, 2**62  # seconds


class Trust(NamedTuple):
    """The time trusted at a reading of the boot clock; `held`: since when (by this time) a jump forward by `ahead` is
    held; `gained`: what small steps came to in this boot, since the wall clock was last believed or corrected."""

    time: int
    boot: int
    boot_id: str
    held: int | None = None
    gained: int = 0
    ahead: int = 0


def judge_time(last: Trust, here: Trust) -> Trust:
    """What is trusted `here`: a step back never counts, over a minute forward (in one step or many) is held an hour."""
    # After a boot the boot clock began anew; how long the machine was off, only the wall clock says.
    same = here.boot_id == last.boot_id
    base = last.time + max(here.boot - (last.boot if same else 0), 0)
    gained = (last.gained if same else 0) + max(here.time - base, 0)
    if gained <= JUMP:
        return here._replace(time=max(base, here.time), gained=gained)
    # A jump on top of one that is held is held for an hour of its own.
    goes_on = last.held is not None and here.time - base <= last.ahead + JUMP
    held, ahead = (last.held or 0, last.ahead) if goes_on else (base, here.time - base)
    return here if base - held >= HELD else here._replace(time=base, held=held, gained=last.gained, ahead=ahead)


class Clock:
    """The time by which peers expire, for all processes and boots of the machine; a full disk leaves it under /run."""

    def __init__(self, paths: Paths) -> None:
        self.files = paths.run + "/clock", paths.lib + "/clock"
        self.lock = paths.run + "/clock.lock"
        self.boot_file = paths.proc + "/kernel/random/boot_id"

    def read(self) -> Trust:
        """What is trusted now; where no file can be read, the wall clock is."""
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        # As it was when the boot clock's second began: so both tell of each second that goes by at once.
        here = Trust(int(time.time() - boot % 1), int(boot), read_text(self.boot_file).strip())
        return judge_time(kept, here) if (kept := self._kept()) else here

    def keep(self, after: int = JUMP) -> Trust:
        """As `read`, written down where so many seconds or a boot went by, or the wall clock was stepped."""
        with locked(self.lock, 1.0):
            kept, now = self._kept(), self.read()
            if kept is None or kept[2:] != now[2:] or now.time >= kept.time + after:
                self._write(now)
        return now

    def correct(self, moment: int) -> None:
        """The Console's word on what time it is, be it later or earlier than ours."""
        with locked(self.lock, 1.0):
            self._write(self.read()._replace(time=moment, held=None, gained=0, ahead=0))

    def _kept(self) -> Trust | None:
        for path in self.files:
            with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
                moment, boot, boot_id, held, *sums = json.loads(read_bytes(path))
                held = None if held is None else int(held)
                return Trust(int(moment), int(boot), str(boot_id), held, *map(int, sums))
        return None

    def _write(self, trust: Trust) -> None:
        for path in self.files:
            with contextlib.suppress(OSError):
                write_atomic(path, canonical(trust).encode())


ENTRY = ("seq", "at", "what", "public_key", "detail", "by", "previous")


class Journal:
    """What was done or seen without the Console: JSON lines, each with the hash of the one before; spare under /run."""

    def __init__(self, paths: Paths, name: str, seen: Callable[[], int]) -> None:
        self.seen = seen
        self.path = "%s/%s/journal" % (paths.lib, name)
        self.spare = "%s/%s.journal" % (paths.run, name)
        self.lock = "%s/%s.journal.lock" % (paths.run, name)
        self.cached: tuple[object, list[Json]] = (None, [])

    def read(self) -> list[Json]:
        """Every entry that is kept, the oldest first; a torn line is none."""
        stamps = stamp(self.path), stamp(self.spare)
        if self.cached[0] != stamps:
            entries: list[Json] = []
            with contextlib.suppress(OSError):
                files = [read_bytes(path) for path in (self.path, self.spare) if os.path.exists(path)]
                for line in b"\n".join(files).split(b"\n"):
                    with contextlib.suppress(Refused):
                        entry = fields_of(parse_json(line), "entry", ENTRY)
                        parse_int(entry["seq"], "seq", low=1 + (entries[-1]["seq"] if entries else 0))
                        entries.append(entry)
                self.cached = stamps, entries
        return self.cached[1]

    def head(self) -> int:
        return int(self.read()[-1]["seq"]) if self.read() else 0

    def add(self, what: str, keys: Iterable[str | None], detail: str, by: str = "node") -> None:
        with locked(self.lock, 1.0):
            previous = entry_hash(self.read()[-1]) if self.read() else "0" * 64
            lines = []
            # What the Console has read may be lost here: a number that it knows would never be read.
            for number, key in enumerate(keys, max(self.head(), self.seen()) + 1):
                entry = {"seq": number, "at": int(time.time()), "what": what, "public_key": key, "detail": detail}
                entry.update(by=by, previous=previous)
                previous = entry_hash(entry)
                lines.append(canonical(entry).encode())
            # Once a line waits in the spare file, all that follow it do: the order is the chain.
            if lines and (os.path.exists(self.spare) or not append_lines(self.path, lines)):
                append_lines(self.spare, lines)

    def heal(self) -> None:
        """Writes down what a full disk did not take; forgets what the Console has, once that is much."""
        with contextlib.suppress(OSError), locked(self.lock, 0.0) as lock:
            long = os.path.exists(self.path) and os.path.getsize(self.path) > MAX_JOURNAL
            kept = [entry for entry in self.read() if entry["seq"] > self.seen() or not long] or self.read()[-1:]
            if lock is not None and kept and (long or os.path.exists(self.spare)):
                write_atomic(self.path + ".kept", b"".join(canonical(entry).encode() + b"\n" for entry in kept))
                # Whoever could not wait for the lock may have added a line meanwhile: then it is done another time.
                if (stamp(self.path), stamp(self.spare)) == self.cached[0]:
                    os.replace(self.path + ".kept", self.path)
                    sync_folder(os.path.dirname(self.path))
                    os.unlink(self.spare)


def entry_hash(entry: Json) -> str:
    return hashlib.sha256(canonical(entry).encode()).hexdigest()


def content_text(interface: str, lines: Mapping[str, str]) -> str:
    """The canonical text of content: the interface's line, then the peers' lines sorted by key."""
    return "\n".join([interface, *(lines[key] for key in sorted(lines)), ""])


def content_digest(interface: str, lines: Mapping[str, str]) -> str:
    return hashlib.sha256(content_text(interface, lines).encode()).hexdigest()


class State(NamedTuple):
    """What was last taken: the fence's pair, the digests, content as canonical lines, how far the journal was read.
    `origin`: "none" (nothing ever taken), "state", "last" (fell back to state.last), "lost" (no good copy)."""

    epoch: int = 0
    generation: int = 0
    pushed: str | None = None
    digest: str | None = None
    interface: str = ""
    lines: Mapping[str, str] = {}
    seen: int = 0
    origin: str = "none"


def state_bytes(state: State) -> bytes:
    """A line with the SHA-256 of all that follows: the pair and the digests, then the canonical text."""
    fields = [state.epoch, state.generation, state.pushed, state.digest, state.seen]
    data = (canonical(fields) + "\n" + content_text(state.interface, state.lines)).encode()
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def parse_state(data: bytes) -> State:
    """A state file's bytes as State; Refused when a single bit of it is wrong."""
    check, _, rest = data.partition(b"\n")
    need(hashlib.sha256(rest).hexdigest().encode() == check, "state", "is damaged")
    head, interface, *rows = rest.decode().split("\n")[:-1]
    epoch, generation, pushed, digest, seen = json.loads(head)
    # A line that is held as a peer already is not held twice.
    rows = [PARSED[row].line if row in PARSED else row for row in rows]
    lines = {row.partition('"public_key":"')[2][:44]: row for row in rows}
    return State(epoch, generation, pushed, digest, interface, lines, seen, "state")


class StateFile:
    """An interface's state on the disk, read again only when some process replaced it."""

    def __init__(self, paths: Paths, name: str) -> None:
        self.folder = "%s/%s" % (paths.lib, name)
        self.path = self.folder + "/state"
        self.cached: tuple[object, State] = (None, State())

    def read(self) -> State:
        """What holds; falls to the copy before, never silently (see `origin`)."""
        now = stamp(self.path), stamp(self.path + ".last")
        if self.cached[0] != now:
            self.cached = now, self._load(now)
        return self.cached[1]

    def _load(self, stamps: tuple[Stamp | None, Stamp | None]) -> State:
        if stamps == (None, None):
            return State()
        for path, origin in ((self.path, "state"), (self.path + ".last", "last")):
            with contextlib.suppress(OSError, ValueError, Refused):
                return parse_state(read_bytes(path))._replace(origin=origin)
        return State(origin="lost")

    def keys(self) -> Set[str] | None:
        """The keys in the file; of a damaged one all that look like keys; None where it cannot be read."""
        state = self.read()
        try:
            return state.lines.keys() if state.origin in ("none", "state") else keys_in(read_bytes(self.path))
        except FileNotFoundError:
            return frozenset()
        except OSError:
            return None

    def write(self, state: State) -> None:
        """Replaces the state and keeps the one before; the caller holds the gate. OSError: nothing changed."""
        if self.read().origin == "state":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + ".last")
            os.link(self.path, self.path + ".last")
        try:
            write_atomic(self.path, state_bytes(state))
        except OSError:
            # Where the folder alone failed, the new state is in its place already.
            with contextlib.suppress(OSError):
                os.replace(self.path + ".last", self.path)
            raise

    def forget(self, keys: Iterable[str]) -> None:
        """Takes peers out, if the disk lets us; the caller holds the gate and reads back."""
        state = self.read()
        lines = {**state.lines}
        gone = [key for key in keys if lines.pop(key, None)]
        if gone or state.origin == "last":
            with contextlib.suppress(OSError):
                self.write(state._replace(lines=lines, digest=content_digest(state.interface, lines)))


# ---------------------------------------------------------------- the kernel, the boot path, routes, forwarding


def run(argv: Sequence[str], text: str = "", seconds: float = 10.0, keep: Sequence[int] = ()) -> Ran:
    """Runs a program with a fixed PATH and an empty environment. Code 127: not there, 124: too slow.
    It inherits the descriptors `keep`: a lock among them lasts until the program has ended, even if we are killed."""
    ways: Json = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": seconds}
    try:
        return subprocess.run(argv, input=text, **ways, env=ENVIRONMENT, cwd="/", pass_fds=keep, check=False)
    except subprocess.TimeoutExpired:
        return Ran(argv, 124, "", "no answer in %d s" % seconds)
    except OSError as error:
        return Ran(argv, 127, "", type(error).__name__)


class Live(NamedTuple):
    """One peer as the kernel has it; `told` is its row in an answer. The preshared key never leaves this process."""

    preshared: str | None
    networks: tuple[str, ...]
    told: list[Any]


class Kernel(NamedTuple):
    """A WireGuard interface as it runs. The private key never leaves this process."""

    private_key: str | None
    public_key: str | None
    listen_port: int
    peers: dict[str, Live]


def kernel_networks(text: str) -> tuple[str, ...]:
    """wg's list of networks as the protocol writes and sorts them; inet_ntop ends some IPv6 addresses in dots."""
    items = [item for item in text.split(",") if optional(item)]
    plain = (str(ipaddress.ip_network(item)) if ":" in item and "." in item else item for item in items)
    return tuple(sorted(plain, key=lambda item: (":" in item, item)))


def optional(text: str) -> str | None:
    return None if text in ("(none)", "off", "") else text


def read_kernel(name: str) -> Kernel | None:
    """The running interface, by `wg show IFACE dump`; None when there is none."""
    ran = run(["wg", "show", name, "dump"])
    if ran.returncode != 0:
        return None
    head, *rows = ran.stdout.rstrip("\n").split("\n")
    private, public, port, _mark = head.split("\t")
    peers = {}
    for row in rows:
        key, preshared, endpoint, allowed, *counts, _keepalive = row.split("\t")
        told = [key, optional(endpoint), *map(int, counts)]
        peers[key] = Live(optional(preshared), kernel_networks(allowed), told)
    return Kernel(optional(private), optional(public), int(port), peers)


def kernel_places(keys: set[str]) -> dict[str, list[str]] | None:
    """The keys' interfaces by key, over all interfaces of the machine; None when one could not be read."""
    ran = run(["wg", "show", "all", "peers"], seconds=5.0)
    if ran.returncode != 0 or ran.stderr.strip():
        return None
    places: dict[str, list[str]] = {}
    for row in ran.stdout.splitlines():
        name, _, key = row.partition("\t")
        if key in keys:
            places.setdefault(key, []).append(name)
    return places


def remove_peers(name: str, keys: Sequence[str]) -> bool:
    """Whether wg took them all; as many at once as fit on a command line."""
    words = [word for key in keys for word in ("peer", key, "remove")]
    calls = (["wg", "set", name, *words[start : start + 1500]] for start in range(0, len(words), 1500))
    return {run(call, seconds=5.0).returncode for call in calls} <= {0}


class Plan(NamedTuple):
    """What has to happen to a running interface; peers that are right are not in it."""

    removed: list[str]
    added: list[Peer]
    updated: list[Peer]


def plan_kernel(live: Mapping[str, Live], wanted: Mapping[str, Peer]) -> Plan:
    removed = [key for key in live if key not in wanted]
    added = [peer for key, peer in wanted.items() if key not in live]
    kept = [(peer, live[key]) for key, peer in wanted.items() if key in live]
    updated = [peer for peer, now in kept if (peer.preshared, peer.networks) != (now.preshared, now.networks)]
    return Plan(removed, added, updated)


def section(peer: Peer, now: Live | None) -> str:
    """The lines of `wg addconf` for what differs; an empty text when `wg set` has done it all."""
    rows = ["[Peer]", "PublicKey = " + peer.key]
    if peer.preshared and peer.preshared != (now.preshared if now else None):
        rows.append("PresharedKey = " + peer.preshared)
    elif now and peer.networks in (now.networks, ()):
        return ""
    # Also where they are the same: a section that names none takes them all away.
    rows += ["AllowedIPs = " + ", ".join(peer.networks)] if peer.networks else []
    return "\n".join([*rows, ""])


def clearing(peer: Peer, now: Live) -> list[str]:
    """The words of `wg set` for what addconf cannot say: no preshared key, no addresses."""
    words = ["preshared-key", "/dev/null"] if now.preshared and not peer.preshared else []
    words += ["allowed-ips", ""] if now.networks and not peer.networks else []
    return ["peer", peer.key, *words] if words else []


def link_index(name: str) -> int:
    """The number of the interface, another one each time it is made; 0 for none."""
    return int(read_text("/sys/class/net/%s/ifindex" % name) or 0)


def is_up(name: str) -> bool:
    """Whether it may pass packets; until then it is in wg-quick's hands, which still gives it what the conf holds."""
    return bool(int(read_text("/sys/class/net/%s/flags" % name) or "0", 16) & 1)


def put_peers(name: str, peers: Iterable[Peer], live: Mapping[str, Live], gate: int) -> bool:
    """Adds or updates peers; whether wg did it all. Whoever asks holds the gate.
    What is wanted has no overlap: no order of updates takes an address from the peer that shall have it."""
    known = [(peer, live.get(peer.key)) for peer in peers]
    words = [word for peer, now in known if now for word in clearing(peer, now)]
    text = "".join(section(peer, now) for peer, now in known)
    good = not words or run(["wg", "set", name, *words], keep=[gate]).returncode == 0
    return (not text or run(["wg", "addconf", name, "/dev/stdin"], text, keep=[gate]).returncode == 0) and good


HOOK = re.compile(r"\s*(?:(?:pre|post)-?(?:up|down)|up|down|exec\w*)\b", re.IGNORECASE)
ADDRESS = re.compile(r"[0-9a-fA-F.:]+/[0-9]+")
PATH_TOKEN = re.compile(r"/[^\s\"'`;|&<>(){}=,]+")


def conf_rows(text: str) -> Iterator[tuple[str, str, str, str]]:
    """(section, setting, value, row) of each row, as wg-quick reads it: case is nothing, sections may come again."""
    current = ""
    for row in text.split("\n"):
        setting, _, value = row.split("#")[0].partition("=")
        if setting.strip().startswith("["):
            current = setting.strip().lower()
        yield current, setting.strip().lower(), value.strip(), row


def conf_setting(text: str, name: str) -> str:
    """The last value of a setting of the interface section, or an empty text."""
    values = [value for part, setting, value, _ in conf_rows(text) if (part, setting) == ("[interface]", name)]
    return values[-1] if values else ""


def sealed(text: str) -> str:
    """The conf without peers, and without the setting that would save them into it."""
    rows = conf_rows(text)
    kept = [row for part, setting, _, row in rows if part in ("", "[interface]") and setting != "saveconfig"]
    return "\n".join(kept).rstrip("\n") + "\n"


def conf_peers(text: str) -> list[str]:
    return [value for _, setting, value, _ in conf_rows(text) if setting == "publickey"]


def conf_widened(text: str, interface: Interface) -> str:
    """The conf with the interface's addresses where it has them with a longer prefix."""
    new = interface.wider(ADDRESS.findall(text))
    swap = functools.partial(ADDRESS.sub, lambda found: str(new.get(found[0], found[0])))
    return "\n".join(swap(row) if setting == "address" else row for _, setting, _, row in conf_rows(text))


def read_text(path: str) -> str:
    with contextlib.suppress(OSError):
        return read_bytes(path).decode("utf-8", "replace")
    return ""


def disk_places(paths: Paths, keys: set[str], state: StateFile) -> dict[str, list[str]]:
    """By key, the files of the boot path that hold it; one that could not be read may hold any key."""
    listed = {path for folder in (paths.wireguard, *paths.boot) for path in files_in(folder)}
    hooked = {name for path in listed for name in scan_file(path, stamp(path))[1]}
    files = [(path, scan_file(path, stamp(path))[0]) for path in sorted(listed | hooked)]
    places: dict[str, list[str]] = {}
    for path, held in [(state.path, state.keys()), *files]:
        for key in keys if held is None else keys & held:
            places.setdefault(key, []).append(path if held is not None else "unread:" + path)
    return places


def files_in(place: str) -> Iterator[str]:
    if not os.path.isdir(place):
        yield place
    yield from (os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names)


@functools.lru_cache(maxsize=10_000)
def scan_file(path: str, _version: Stamp | None) -> tuple[frozenset[str] | None, list[str]]:
    """The keys in a regular file, and the files that hooks in it run; read once a version.
    None for the keys of one that is over 16 MiB or fails to be read; where there is no file there are none."""
    try:
        data = read_bytes(path, most=MAX_SCAN + 1) if stat.S_ISREG(os.stat(path).st_mode) else b""
    except (FileNotFoundError, NotADirectoryError):
        data = b""
    except OSError:
        return None, []
    if len(data) > MAX_SCAN:
        return None, []
    hooks = [row for row in data.decode("utf-8", "replace").split("\n") if HOOK.match(row)]
    return keys_in(data), [token for row in hooks for token in PATH_TOKEN.findall(row)]


def routes_wanted(interface: Interface, peers: Iterable[Peer]) -> set[str]:
    """Networks of peers that the interface's own networks do not cover."""
    nets = (address.network for address in interface.addresses)
    own = [(net.version, int(net.network_address), int(net.broadcast_address)) for net in nets]
    reaches = {reach for peer in peers for reach in peer.ranges}
    return {r[3] for r in reaches if not any(r[0] == kind and low <= r[1] and r[2] <= high for kind, low, high in own)}


def ip_json(*words: str) -> list[Json]:
    """What ip tells; nothing where it fails, as of a table that is not there."""
    ran = run(["ip", "-j", *words])
    return list(json.loads(ran.stdout)) if ran.returncode == 0 and ran.stdout.strip() else []


def judge_routes(name: str, table: str, wanted: set[str]) -> tuple[set[str], set[str]]:
    """(The networks that have a route of ours, those of the wanted that may have none)."""
    places = [(family, "route", "show", "table", part) for family in ("-4", "-6") for part in {*OWN_TABLES, table}]
    rows = [row for place in places for row in ip_json(*place)]
    named = [(ipaddress.ip_network(row["dst"]), row) for row in rows if row["dst"] != "default"]
    ours = {str(net) for net, row in named if (row.get("dev"), row.get("protocol")) == (name, ROUTE_PROTOCOL)}
    others = {net for net, row in named if (row.get("dev"), row.get("protocol")) != (name, ROUTE_PROTOCOL)}
    # What the machine must go on reaching as it does: its gateways, the networks that it is in.
    hops = [hop for row in rows if row["dst"] == "default" for hop in [row, *row.get("nexthops", ())]]
    near = {ipaddress.ip_network(hop["gateway"]) for hop in hops if "gateway" in hop}
    near |= {net for net, row in named if row.get("protocol") in ("kernel", "ra") and row.get("dev") != name}
    ways = [(to, [n.prefixlen for n in others if n.overlaps(to) and n.prefixlen <= to.prefixlen]) for to in near]
    nets = map(ipaddress.ip_network, wanted)
    lost = {n for n in nets if any(n.overlaps(to) and n.prefixlen > max(sizes, default=0) for to, sizes in ways)}
    return ours, wanted & set(map(str, others | lost))


def change_routes(name: str, table: str, wanted: set[str]) -> None:
    """Brings our routes of the interface to `wanted`; no other route is touched, and none loses its packets to ours."""
    held, barred = judge_routes(name, table, wanted)
    row = "route %%s %%s dev %s proto %s table %%s\n" % (name, ROUTE_PROTOCOL)
    rows = [row % ("del", network, place) for place in {*OWN_TABLES, table} for network in held - (wanted - barred)]
    rows += [row % ("add", network, table) for network in wanted - barred - held]
    if rows:
        run(["ip", "-force", "-batch", "-"], "".join(rows), 60.0)


def table_name(prefix: str, name: str) -> str:
    return prefix + "".join(c if c.isalnum() else "_%02x" % ord(c) for c in name)


def nft_table(table: str, body: str) -> bool:
    """Replaces (or, without body, removes) one nft table in one transaction."""
    text = "table inet {0} {{}}\ndelete table inet {0}\n".format(table)
    return run(["nft", "-f", "-"], text + ("table inet %s {\n%s}\n" % (table, body) if body else "")).returncode == 0


def is_closed(name: str) -> bool:
    return run(["nft", "list", "table", "inet", table_name("muster_guard_", name)]).returncode == 0


# An IPv6 address cannot be on an interface twice: while it is not, two routes stand in, until routes are set anew.
# IPv4 has the new one before the old one goes.
WIDEN = """route add local {new.ip} dev {name} proto {ours} metric 1
route add {new.network} dev {name} proto {ours} metric 1
address add {new} dev {name}
address del {old} dev {name}
address add {new} dev {name} nodad
"""


def write_setting(path: str, value: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except OSError:
        alarm("%s could not be set to %s" % (path, value))


def start_forwarding(proc: str, name: str, interface: Interface) -> None:
    """Makes the machine a router for the interface, as its `forward` says."""
    row = '    %s saddr %s oifname != "%s" masquerade\n'
    rows = [row % ("ip" if own.version == 4 else "ip6", own.network, name) for own in interface.addresses]
    chain = "  chain out {\n    type nat hook postrouting priority 100;\n%s  }\n" % "".join(rows)
    body = chain if interface.forward == "masquerade" else ""
    if not nft_table(table_name("muster_", name), body) and body:
        alarm("nft failed: %s forwards without masquerade" % name)
    versions = {own.version for own in interface.addresses if interface.forward != "none"}
    if 4 in versions:
        write_setting(proc + "/net/ipv4/ip_forward", "1")
    if 6 in versions:
        # A kernel that forwards IPv6 stops hearing routers unless told: the machine would lose its own route.
        for path in glob.glob(proc + "/net/ipv6/conf/*/accept_ra"):
            if read_text(path).strip() == "1":
                write_setting(path, "2")
        write_setting(proc + "/net/ipv6/conf/all/forwarding", "1")


# ---------------------------------------------------------------- drift, pushes


def finding(what: str, detail: str, key: str | None = None) -> Json:
    return {"public_key": key, "what": what, "detail": detail}


def peer_drift(live: Mapping[str, Live], plan: Plan, before: Container[str], buried: Container[str]) -> Iterator[Json]:
    """What the plan would change; but who came or went by the clock since `before` is the next tick's, and no drift."""
    missing = (peer.key for peer in plan.added if peer.key in before)
    yield from (finding("missing", "in state, not in the kernel", key) for key in missing)
    for key in plan.removed:
        if key in buried:
            yield finding("tombstoned", "in the kernel, must never be", key)
        elif key not in before:
            yield finding("unknown", "in the kernel, not in state, expired or outside its windows", key)
    for peer in plan.updated:
        if peer.networks != live[peer.key].networks:
            yield finding("allowed_ips", "kernel has: " + (", ".join(live[peer.key].networks) or "none"), peer.key)
        if peer.preshared != live[peer.key].preshared:
            yield finding("preshared_key", "differs", peer.key)


def link_settings(name: str) -> set[str]:
    """The interface's own settings as it runs, each in words."""
    link, port = (ip_json("address", "show", "dev", name) or [{}])[0], run(["wg", "show", name, "listen-port"]).stdout
    rows = [row for row in link.get("addr_info", ()) if row.get("scope") != "link"]
    words = {"port " + port.strip(), "mtu %s" % link.get("mtu"), *(["up"] if "UP" in link.get("flags", ()) else [])}
    return words | {"%s/%s" % (row.get("local"), row.get("prefixlen")) for row in rows}


class Push(NamedTuple):
    """An apply request: whole (`interface` set) or delta (`base` set); `pair` is (epoch, generation)."""

    pair: tuple[int, int]
    journal_seen: int
    digest: str
    approved: bool
    decided: frozenset[str]
    base: str | None
    interface: Interface | None
    put: dict[str, Peer]
    remove: list[str]
    dry_run: bool


def parse_peers(value: Any, field: str) -> dict[str, Peer]:
    """The peers by key. Takes the list apart on its way, so that ten thousand are not held twice."""
    list_of(value, field, MAX_PEERS)
    peers = {}
    while value:
        peer = parse_peer(value.pop())
        need(peer.key not in peers, field, "a peer is there twice")
        peers[peer.key] = peer
    return peers


def parse_push(body: Json, dry_run: bool) -> Push:
    """The push, strictly; a whole one has its digest and overlaps checked here."""
    whole = "base" not in body
    size = ("interface", "peers") if whole else ("base", "put", "remove")
    envelope = "epoch generation digest tombstones approved decided journal_seen".split()
    fields_of(body, "apply", (*envelope, *size))
    put = parse_peers(body["peers" if whole else "put"], "peers" if whole else "put")
    remove = [] if whole else parse_keys(body["remove"], "remove")
    need(not any(key in put for key in remove), "remove", "a peer is both put and removed")
    epoch, generation, seen = (parse_int(body[name], name) for name in ("epoch", "generation", "journal_seen"))
    approved, decided = parse_bool(body["approved"], "approved"), frozenset(parse_keys(body["decided"], "decided"))
    base = None if whole else parse_digest(body["base"], "base")
    interface = parse_interface(body["interface"]) if whole else None
    digest = parse_digest(body["digest"], "digest")
    push = Push((epoch, generation), seen, digest, approved, decided, base, interface, put, remove, dry_run)
    if push.interface:
        check_content(push, push.interface.line, {key: peer.line for key, peer in put.items()})
    return push


def check_content(push: Push, interface: str, lines: Mapping[str, str]) -> None:
    """Refuses content that is not what the push's digest says, or in which two peers share an address."""
    if content_digest(interface, lines) != push.digest:
        raise Refused("digest", "the content is not what its digest says; send it again")
    need(len(lines) <= MAX_PEERS, "peers", "too many")
    check_overlap([peer_of(line) for line in lines.values()])


def is_repair(state: State, push: Push) -> bool:
    """The fence: True for the push last taken, False for a newer one (a dry run: or one of the pair), else Refused."""
    held, come = (state.epoch, state.generation), push.pair
    if come == held and push.digest == state.pushed:
        return True
    if come > held or (come == held and push.dry_run):
        return False
    raise Refused("stale", "an equal or newer generation was taken")


def content_of(state: State, push: Push, repair: bool) -> tuple[str, dict[str, str]]:
    """(interface line, peer lines) that the push asks for; Refused `base` when its base is not held."""
    if push.interface:
        return push.interface.line, {key: peer.line for key, peer in push.put.items()}
    if repair:
        return state.interface, dict(state.lines)
    if push.base != state.digest:
        raise Refused("base", "the delta builds on a digest that is not held; send the whole")
    lines = {key: line for key, line in state.lines.items() if key not in set(push.remove)}
    lines.update((key, peer.line) for key, peer in push.put.items())
    check_content(push, state.interface, lines)
    return state.interface, lines


def is_alive(peer: Peer, now: int) -> bool:
    """Whether it may run: it has not expired, and one of its windows is open if it has any."""
    return not is_expired(peer, now) and (peer.windows is None or bisect_right(peer.windows, now) % 2 == 1)


def is_expired(peer: Peer, now: int) -> bool:
    return peer.expires_at is not None and peer.expires_at <= now


def next_turn(peer: Peer, now: int) -> int:
    """The next moment at which that may change; a far one for never."""
    moments = (*(peer.windows or ()), FAR if peer.expires_at is None else peer.expires_at, FAR)
    return min(moment for moment in moments if moment > now)


def count_removals(state: State, push: Push, lines: Mapping[str, str], dead: Set[str], now: int) -> int:
    """Peers held that would go, or stay with an expiry in the past, though nobody decided that one by one."""
    going = 0
    for key, line in state.lines.items():
        kept = lines.get(key)
        spared = kept == line or key in dead or key in push.decided or not is_alive(peer_of(line), now)
        going += not spared and (kept is None or not is_alive(peer_of(kept), now))
    return going


def check_brake(state: State, push: Push, removals: int) -> None:
    """Refuses a push that ends more than max(5, 10 %) of the peers held, unless a person approved it."""
    if removals * 10 > max(50, len(state.lines)) and not push.approved:
        raise Refused("brake", "%d peers would go; a person has to approve it" % removals, removals=removals)


# ---------------------------------------------------------------- the node: one interface of this machine


class Node:
    """One interface: its state, its kernel side and the requests that a session may make of it."""

    def __init__(self, name: str, paths: Paths) -> None:
        self.name = name
        self.paths = paths
        self.conf = "%s/%s.conf" % (paths.wireguard, name)
        self.apply_lock = "%s/%s.lock" % (paths.run, name)
        # Held for one write of a state or batch of peers: a receipt is given under it, and nothing comes in behind it.
        self.gate = paths.run + "/tombstones.lock"
        self.tombstones = Tombstones(paths)
        self.state = StateFile(paths, name)
        self.journal = Journal(paths, name, lambda: self.state.read().seen)
        self.clock = Clock(paths)
        self.memory = "%s/%s.seen" % (paths.run, name)
        # How it was at the last tick, from and until when that is right, the new keys whose handshake is awaited.
        self.quiet: tuple[object, int, int, Set[str]] = (None, 0, 0, frozenset())
        self.told: dict[str, list[Any]] = {}
        self.routes: tuple[str, set[str]] = ("", set())

    def summary(self) -> Json:
        """The `state` of every answer."""
        epoch, generation, pushed, digest, _, lines, *_ = self.state.read()
        counts = {"peers": len(lines), "tombstones": len(self.tombstones.read()), "journal": self.journal.head()}
        held = {"epoch": epoch, "generation": generation, "pushed_digest": pushed, "digest": digest}
        return {**held, **counts, "now": self.clock.read().time}

    def wanted(self, lines: Mapping[str, str], ago: int = 0) -> dict[str, Peer]:
        """The peers that should run: those of a state's lines that are alive, minus tombstones and local suspends.
        A new key has no addresses yet while the one that it replaces is there, or was suspended here."""
        buried, now = self.tombstones.read(), self.clock.read().time - ago
        suspended = self.acts("suspended", after=self.state.read().seen)
        peers = (peer_of(line) for key, line in lines.items() if key not in buried and key not in suspended)
        alive = {peer.key: peer for peer in peers if is_alive(peer, now)}
        for key, peer in alive.items():
            if peer.replaces in suspended or (peer.replaces in lines and peer.replaces not in buried):
                alive[key] = peer._replace(networks=(), ranges=())
        return alive

    def dead(self) -> Set[str]:
        return self.tombstones.read().keys() | self.acts("suspended", after=self.state.read().seen)

    def acts(self, *whats: str, after: int) -> set[str]:
        """Keys of the journal's entries of these kinds that the Console had not read."""
        return {row["public_key"] for row in self.journal.read() if row["seq"] > after and row["what"] in whats}

    def notice(self, running: Set[str]) -> None:
        """Peers taken out by hand since we last looked stay out: the caller holds the apply lock.
        More than a push may take without approval is no decision on one peer: those come back."""
        link, ran = self.recall()
        lines = self.state.read().lines if link and link == link_index(self.name) else {}
        # Also whose time is over since: those that we take out ourselves are not in our memory.
        wanted = (ran & lines.keys()) - self.dead()
        gone = sorted(wanted - running)
        if len(gone) * 10 <= max(50, len(wanted)) and (len(gone) < len(wanted) or len(wanted) == 1):
            self.journal.add("suspended", gone, "taken out by hand")

    def recall(self) -> tuple[int, set[str]]:
        """The interface and its peers when we last looked; (0, none) for never."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            link, keys = json.loads(read_bytes(self.memory))
            return int(link), set(keys)
        return 0, set()

    def remember(self, running: Iterable[str]) -> None:
        """What runs now, for `notice`; the caller holds the apply lock."""
        link = link_index(self.name) if is_up(self.name) else 0
        with contextlib.suppress(OSError):
            write_atomic(self.memory, canonical([link, sorted(running)]).encode())

    def drift(self, state: State, kernel: Kernel | None) -> list[Json]:
        """Every difference between state, kernel and files, in the protocol's words."""
        conf = read_text(self.conf)
        rows = [finding("conf_peers", "a peer in IFACE.conf", key) for key in conf_peers(conf)]
        if state.origin in ("last", "lost"):
            rows.append(finding("state", "damaged; fell back to " + ("state.last" if state.lines else "no peers")))
        if trouble := self.tombstones.trouble():
            rows.append(finding("tombstones", trouble))
        if is_closed(self.name):
            rows.append(finding("closed", "shut by the boot guard"))
        if kernel is None:
            return [*rows, finding("interface", "down")]
        private = conf_setting(conf, "privatekey")
        if private and private != kernel.private_key:
            rows.append(finding("interface", "the private key is not that of the conf"))
        wanted, before = self.wanted(state.lines), self.wanted(state.lines, ago=2 * TICK)
        rows += peer_drift(kernel.peers, plan_kernel(kernel.peers, wanted), before, self.tombstones.read())
        steady = [peer for key, peer in wanted.items() if key in before]
        return [*rows, *self._link_drift(interface_of(state.interface), steady)] if state.interface else rows

    def _link_drift(self, interface: Interface, peers: Iterable[Peer]) -> Iterator[Json]:
        """What differs in the interface's own settings and in the routes of these peers."""
        held, (table, routes) = link_settings(self.name), self._routes(interface, peers)
        for words in sorted(held ^ interface.settings()):
            yield finding("interface", words + (": not in state" if words in held else ": in state alone"))
        ours, barred = judge_routes(self.name, table, routes) if routes else (set(), set())
        for network in sorted(routes - (ours - barred)):
            yield finding("route", "%s: %s" % (network, "another way is there" if network in barred else "not set"))

    def settle(self, state: State, kernel: Kernel | None) -> tuple[Plan, Kernel]:
        """Brings the interface to the state, enforces tombstones, opens it: (what was done, what is)."""
        if kernel is None:
            raise Refused("kernel", "the interface is down; start it by wg-quick, then push again")
        wanted = self.wanted(state.lines)
        plan = plan_kernel(kernel.peers, wanted)
        # The time by which a peer goes is written down first: no step back and no boot then brings it back.
        self.clock.keep(after=1 if plan.removed else JUMP)
        # Until the end nobody may take what we did not do yet for what somebody undid.
        with contextlib.suppress(OSError):
            os.unlink(self.memory)
        # Removals first, so that an address is free before another peer gets it.
        good = remove_peers(self.name, plan.removed)
        changes = [*plan.updated, *plan.added]
        for start in range(0, len(changes), 100):
            good = self._put(changes[start : start + 100], kernel.peers) and good
        if not good:
            raise Refused("kernel", "wg failed; see drift by observe, then push again")
        self._settle_link(state, wanted)
        after = read_kernel(self.name)
        if after is None:
            raise Refused("kernel", "the interface went down")
        if is_up(self.name) and not plan_kernel(after.peers, self.wanted(state.lines)).removed and is_closed(self.name):
            good = nft_table(table_name("muster_guard_", self.name), "")
        self.remember(after.peers)
        if not good:
            raise Refused("kernel", "nft failed; the interface is still shut by the boot guard")
        return plan, after

    def _put(self, batch: Sequence[Peer], live: Mapping[str, Live]) -> bool:
        """Peers into the kernel, but for those that died since they were planned; whether all went well."""
        with locked(self.gate, 10.0) as gate:
            if gate is None:
                return False
            buried = self.tombstones.read()
            good = put_peers(self.name, [peer for peer in batch if peer.key not in buried], live, gate)
            # A revoke that waited for the gate in vain got no receipt; its tombstone wins all the same.
            buried = self.tombstones.read()
            good = remove_peers(self.name, [peer.key for peer in batch if peer.key in buried]) and good
        # Else a revoke that waits would hardly ever find the gate open between two batches.
        time.sleep(0.001)
        return good

    def _settle_link(self, state: State, wanted: Mapping[str, Peer]) -> None:
        """Networks that the state has wider, into the running interface and its conf; then the peers' routes."""
        if not state.interface:
            return
        interface, held, conf = interface_of(state.interface), link_settings(self.name), read_text(self.conf)
        pairs = interface.wider(held)
        if pairs and {str(pairs.get(words, words)) for words in held} == interface.settings():
            # As long as an old address is there this was not brought to its end: what comes before is done again.
            start_forwarding(self.paths.proc, self.name, interface)
            rows = [WIDEN.format(name=self.name, ours=ROUTE_PROTOCOL, old=old, new=new) for old, new in pairs.items()]
            run(["ip", "-force", "-batch", "-"], "".join(rows))
            held = link_settings(self.name)
        if held >= interface.settings() and conf_widened(conf, interface) != conf:
            with contextlib.suppress(OSError):
                write_atomic(self.conf, conf_widened(conf, interface).encode())
        before, self.routes = self.routes, self._routes(interface, wanted.values())
        if pairs or self.routes[1] or before != self.routes:
            change_routes(self.name, *self.routes)

    def _routes(self, interface: Interface, peers: Iterable[Peer]) -> tuple[str, set[str]]:
        """The table for our routes, and the networks that are to have one."""
        table = conf_setting(read_text(self.conf), "table").lower()
        return table if table.isdigit() else "main", set() if table == "off" else routes_wanted(interface, peers)

    def hello(self, body: Json) -> Json:
        fields_of(body, "hello", ())
        self.tombstones.heal()
        # Reads the boot path once, so that no revoke has to wait for it.
        disk_places(self.paths, set(), self.state)
        about = {"version": VERSION, "protocol": PROTOCOL, "python": "%d.%d.%d" % sys.version_info[:3]}
        return {"state": self.summary(), "node": {**about, "boot_id": self.clock.read().boot_id}}

    def revoke(self, body: Json) -> Json:
        """Tombstones, kernel, state; then all is read back. Waits for the gate alone, 1 s at most."""
        fields_of(body, "revoke", ("keys",))
        items = dict(parse_item(item) for item in list_of(body["keys"], "keys", MAX_KEYS, 1))
        durable, kernel, unsure = self._bury(items)
        files = disk_places(self.paths, set(items), self.state)
        receipts = []
        for key in items:
            names = kernel.get(key, []) + unsure
            found = ["kernel:" + name for name in names] + files.get(key, [])
            held = {"durable": durable, "kernel": not names, "disk": key not in files}
            receipts.append({"public_key": key, **held, "found": found})
        return {"state": self.summary(), "receipts": receipts, "at": int(time.time())}

    def _bury(self, items: Mapping[str, str]) -> tuple[bool, dict[str, list[str]], list[str]]:
        """Keys into the tombstones, out of kernel and state, all but read back from the disk.
        Whether the tombstones are durable; by key, the interfaces that still have it; why those may not be all."""
        keys = list(items)
        durable = self.tombstones.add(items.items())
        remove_peers(self.name, keys)
        with locked(self.gate, 1.0) as gate:
            if gate is not None:
                self.state.forget(keys)
            places = kernel_places(set(keys))
            if places != {}:
                for name in run(["wg", "show", "interfaces"], seconds=5.0).stdout.split():
                    remove_peers(name, keys)
                places = kernel_places(set(keys))
        unsure = (["unknown"] if places is None else []) + (["busy"] if gate is None else [])
        return durable, places or {}, unsure

    def apply(self, body: Json) -> Json:
        """One push: tombstones, checks, fence, brake, state, kernel; the answer is what was read back."""
        need("tombstones" in body, "apply", "lacks tombstones")
        items = dict(parse_item(item) for item in list_of(body["tombstones"], "tombstones", MAX_PEERS))
        dry_run = parse_bool(body.pop("dry_run", False), "dry_run")
        need(not (dry_run and items), "tombstones", "must be empty in a dry run")
        if not dry_run:
            self.tombstones.heal()
        if items and not self._bury(items)[0]:
            raise Refused("disk", "tombstones could not be written; they are enforced, nothing else was done")
        push = parse_push(body, dry_run)
        try:
            return self._rehearse(push) if dry_run else self._take_and_settle(push)
        except Refused as refused:
            if refused.code in ("stale", "base", "brake", "conflict", "kernel"):
                refused.extra["state"] = self.summary()
            raise

    def _kernel_for(self, push: Push) -> Kernel | None:
        kernel = read_kernel(self.name)
        own_key = kernel.public_key if kernel else None
        need(own_key not in push.put, "public_key", "a peer has the server's own key")
        return kernel

    def _rehearse(self, push: Push) -> Json:
        """What the push would do to the kernel as it is; nothing is written."""
        kernel, state = self._kernel_for(push), self.state.read()
        _, lines = content_of(state, push, is_repair(state, push))
        plan = plan_kernel(kernel.peers if kernel else {}, self.wanted(lines))
        would = {"remove": sorted(plan.removed), "add": sorted(peer.key for peer in plan.added)}
        would["update"] = sorted(peer.key for peer in plan.updated)
        removals = count_removals(state, push, lines, self.dead(), self.clock.read().time)
        return {"result": "planned", "would": would, "removals": removals, "state": self.summary()}

    def _take_and_settle(self, push: Push) -> Json:
        with locked(self.apply_lock, 10.0) as held:
            if held is None:
                raise Refused("busy", "another apply runs; send it again")
            kernel = self._kernel_for(push)
            self.notice(kernel.peers.keys() if kernel else set())
            repair, state, withheld = self._take(push)
            plan, after = self.settle(state, kernel)
        changed = {what: len(keys) for what, keys in plan._asdict().items()}
        told = {"withheld": withheld, "changed": changed, "drift": self.drift(self.state.read(), after)}
        return {"result": "already" if repair else "applied", **told, "state": self.summary()}

    def _take(self, push: Push) -> tuple[bool, State, list[str]]:
        """Judges the push against what is held and writes the state: (repair, state, withheld keys).
        While it judges, without the gate, no other than a revoke can change the state."""
        before = self.state.read()
        repair = is_repair(before, push)
        interface, asked = content_of(before, push, repair)
        # Who was shut out here does not come in by a new key either: the Console has to know of that one too.
        replaced = {peer_of(line).replaces or "" for line in before.lines.values() if '"replaces":' in line}
        unseen = self.acts("suspended", "revoked", "rotated", after=push.journal_seen) & (asked.keys() | replaced)
        if unseen:
            advice = "peers in it were shut here: read the journal, then push"
            raise Refused("conflict", advice, keys=sorted(unseen)[:100])
        check_brake(before, push, count_removals(before, push, asked, self.dead(), self.clock.read().time))
        with locked(self.gate, 10.0) as gate:
            if gate is None:
                raise Refused("busy", "the state is being written; send it again")
            buried = self.tombstones.read()
            lines = {key: line for key, line in asked.items() if key not in buried}
            digest, seen = content_digest(interface, lines), max(before.seen, push.journal_seen)
            state = State(*push.pair, push.digest, digest, interface, lines, seen, "state")
            try:
                self.state.write(state) if state != self.state.read() else sync_folder(self.state.folder)
            except OSError:
                raise Refused("disk", "the state could not be written; only revocations were done") from None
        return repair, state, sorted(asked.keys() - lines.keys())

    def observe(self, body: Json) -> Json:
        """What runs: all, or what changed since this session's last observe."""
        fields_of(body, "observe", ("full",))
        full = parse_bool(body["full"], "full")
        self.tombstones.heal()
        kernel = read_kernel(self.name)
        live = kernel.peers if kernel else {}
        rows = {key: peer.told for key, peer in live.items()}
        told, self.told = self.told, rows
        key, port = (kernel.public_key, kernel.listen_port) if kernel else (None, None)
        link = {"up": kernel is not None, "public_key": key, "listen_port": port}
        peers = [row for key, row in rows.items() if full or told.get(key) != row]
        gone = [] if full else sorted(told.keys() - rows.keys())
        seen = {"interface": link, "peers": peers, "gone": gone, "drift": self.drift(self.state.read(), kernel)}
        return {"state": self.summary(), **seen}

    def load(self) -> None:
        """The state into the kernel. Never fails: a failing hook would make wg-quick delete the interface."""
        try:
            with locked(self.apply_lock, 10.0):
                self._load(self.state.read())
        except Exception as error:
            alarm("load %s: %s" % (self.name, defect(error)))

    def _load(self, state: State) -> None:
        if state.origin in ("last", "lost"):
            alarm("%s: the state is damaged; loading %d peers" % (self.name, len(state.lines)))
        if trouble := self.tombstones.trouble():
            alarm(trouble)
        if state.interface:
            start_forwarding(self.paths.proc, self.name, interface_of(state.interface))
        for wait in (0.5, 2.0, 0.0):
            try:
                self.settle(state, read_kernel(self.name))
                return
            except Refused as refused:
                alarm("load %s: %s" % (self.name, refused.message))
                time.sleep(wait)
        alarm("%s: not loaded" % self.name)

    def journal_since(self, body: Json) -> Json:
        """The entries after a number, the oldest first, 1,000 at most."""
        fields_of(body, "journal", ("after",))
        after = parse_int(body["after"], "after")
        entries = [entry for entry in self.journal.read() if entry["seq"] > after]
        return {"entries": entries[:1000], "state": self.summary()}

    def set_time(self, body: Json) -> Json:
        fields_of(body, "time", ("now",))
        self.clock.correct(parse_int(body["now"], "now"))
        return {"state": self.summary()}

    def suspend(self, keys: Sequence[str], reason: str, by: str) -> Json:
        """Shuts these peers until the Console has read of it and a person decides; the keys live on."""
        kernel, here = read_kernel(self.name), set(self.state.read().lines)
        unknown = set(keys) - here - (kernel.peers.keys() if kernel else here)
        if unknown:
            raise Refused("bad_request", "KEY: no such peer here; nothing was done", keys=sorted(unknown))
        self.journal.add("suspended", keys, parse_text(reason, "reason"), by)
        remove_peers(self.name, keys)
        with locked(self.apply_lock, 10.0):
            # An apply that had read the journal before may have put them back meanwhile.
            remove_peers(self.name, keys)
        left = set(keys) & (kernel.peers.keys() if (kernel := read_kernel(self.name)) else set())
        return {"state": self.summary(), "suspended": sorted(set(keys) - left), "left": sorted(left)}

    def tick(self) -> Json:
        """What has to happen without the Console: what is over or not wanted goes out, what was lost comes back."""
        self.tombstones.heal()
        self.journal.heal()
        with locked(self.apply_lock, 0.0) as lock:
            # Read under the lock: a state from before it may be one that a push has replaced meanwhile.
            if lock is not None:
                self._tick(self.state.read())
        return {}

    def _tick(self, state: State) -> None:
        ran = run(["wg", "show", self.name, "latest-handshakes"])
        words = ran.stdout.split()
        link, running = link_index(self.name), frozenset(words[::2])
        shaken = frozenset(words[n] for n in range(0, len(words), 2) if words[n + 1] != "0")
        routes = judge_routes(self.name, *self.routes) if self.routes[1] else None
        version = link, running, stamp(self.state.path), len(self.tombstones.read()), self.journal.head(), routes
        now = self.clock.read().time
        before, since, until, awaited = self.quiet
        if version == before and since <= now < until and not shaken & awaited:
            return
        if not state.generation:
            remove_peers(self.name, [key for key in running if key in self.tombstones.read()])
            return
        if ran.returncode != 0:
            self._revive()
            return
        self._enforce(state, link, running, shaken)
        if not link:
            raise Refused("kernel", "the interface runs under another name")
        peers = self.wanted(self.state.read().lines)
        awaited = {key for key, peer in peers.items() if peer.replaces in peers}
        turn = min((next_turn(peer_of(line), now) for line in state.lines.values()), default=FAR)
        self.quiet = version, now, turn, awaited

    def _enforce(self, state: State, link: int, running: Set[str], shaken: Set[str]) -> None:
        """Brings the interface to the state, and writes down why it was not there."""
        before, ran = self.recall()
        if before not in (0, link):
            self.journal.add("restored", [None], "the interface is new")
            self._load(state)
            return
        self.notice(running)
        running = running - self._move_in(self.wanted(state.lines), shaken)
        wanted = self.wanted(state.lines)
        extra, missing = running - wanted.keys(), wanted.keys() - running
        # Of a new key the addresses count too: this may come after a kill, before it got them.
        is_right = not extra and not missing and not any(peer.replaces for peer in wanted.values())
        if is_right and not is_closed(self.name):
            self._settle_link(state, wanted)
            self.remember(running)
            return
        why = self._why_out(extra, state, ran if before else extra)
        self.settle(state, read_kernel(self.name))
        for what, keys in why.items():
            self.journal.add(what, sorted(keys), "taken out")
        # A window that opens brings one that did not run before.
        gone = [key for key in missing if key in ran or wanted[key].windows is None]
        if gone:
            self.journal.add("restored", [None], "%d peers were gone" % len(gone))

    def _move_in(self, wanted: Mapping[str, Peer], shaken: Set[str]) -> Set[str]:
        """A new key that shook hands has come to stay: the old ones die, and leave their addresses to it."""
        new = {peer.replaces: key for key, peer in wanted.items() if peer.replaces in wanted and key in shaken}
        words = {old: "replaced by " + key for old, key in new.items() if old}
        for old, reason in words.items():
            # As at a revoke by hand: the Console has to hear of it, even if we are killed here.
            self.journal.add("rotated", [old], reason)
        if words:
            self._bury(words)
        return words.keys()

    def _why_out(self, keys: Set[str], state: State, ran: Set[str]) -> dict[str, Set[str]]:
        """What the journal says of peers that go: nothing of local suspends, nor of windows that end as planned."""
        buried, now = self.tombstones.read().keys() & keys, self.clock.read().time
        left = keys - self.dead()
        over = {key for key in left & state.lines.keys() if is_expired(peer_of(state.lines[key]), now)}
        return {"tombstoned": buried, "expired": over, "unknown": left - over - (ran & state.lines.keys())}

    def _revive(self) -> None:
        """A missing interface is made by systemd, where it should be up; one that a person stopped stays down."""
        unit = "wg-quick@%s.service" % self.name
        active = run(["systemctl", "is-active", unit]).stdout.strip()
        if active == "activating":
            return
        if active != "active":
            raise Refused("kernel", "the interface is down, and no unit says that it should be up")
        alarm("%s is gone; asking for %s" % (self.name, unit))
        self.journal.add("restored", [None], "the interface was gone")
        # Not waited for: its last hook is our `load`, which waits for the lock that this tick holds.
        run(["systemctl", "--no-block", "restart", unit])

    def close(self) -> None:
        """Nothing passes the interface, in or out, and no handshake is answered, until it is opened."""
        chain = "  chain %s { type filter hook %s priority -450; %s drop; }\n"
        body = chain % ("in", "prerouting", 'iifname "%s"' % self.name)
        body += chain % ("out", "postrouting", 'oifname "%s"' % self.name)
        port = conf_setting(read_text(self.conf), "listenport")
        body += chain % ("port", "input", "udp dport " + port) if port.isdigit() else ""
        if not nft_table(table_name("muster_guard_", self.name), body):
            alarm("%s: nft failed; the boot guard is not there" % self.name)

    def seal(self) -> None:
        text = read_text(self.conf)
        if text and sealed(text) != text:
            try:
                write_atomic(self.conf, sealed(text).encode())
                alarm("%s: peers or SaveConfig taken out of the conf" % self.name)
            except OSError:
                alarm("%s: the conf could not be sealed" % self.name)


# ---------------------------------------------------------------- session, command line


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their end; Refused on one that is too long or was cut off. No frame keeps one: it may be long."""
    return map(whole_line, iter(lambda: stream.readline(MAX_LINE + 1), b""))


def whole_line(line: bytes) -> bytes:
    need(line.endswith(b"\n"), "request", "a line has more than 16 MiB, or the last one was cut off")
    return line[:-1]


def failure(refused: Refused) -> Json:
    return {"ok": False, "error": {"code": refused.code, "message": refused.message, **refused.extra}}


def handler(node: Node, op: str, observe_only: bool) -> Callable[[Json], Json]:
    looks = {"hello": node.hello, "observe": node.observe, "journal": node.journal_since}
    acts = {"revoke": node.revoke, "apply": node.apply, "time": node.set_time}
    if observe_only and op in acts:
        raise Refused("observe_only", "this session may only look")
    need(op in looks or op in acts, "op", "must be hello, observe, journal, revoke, apply or time")
    return looks.get(op) or acts[op]


def guarded(call: Callable[[], Json]) -> Json:
    """What a call answers, or how it failed, in the protocol's words."""
    try:
        return {"ok": True, **call()}
    except Refused as refused:
        return failure(refused)
    except Exception as error:
        return failure(Refused("internal", defect(error)))


def answer(node: Node, request: Json, observe_only: bool) -> Json:
    """The answer to one request, which is taken apart; Refused when it is none at all."""
    parse_int(request.pop("v", None), "v", PROTOCOL, PROTOCOL)
    op = parse_text(request.pop("op", None), "op")
    number = parse_int(request.pop("id", None), "id")
    return {"v": PROTOCOL, "id": number, **guarded(lambda: handler(node, op, observe_only)(request))}


def send(value: Json) -> None:
    view = memoryview(canonical(value).encode() + b"\n")
    while view:
        view = view[os.write(1, view) :]


def session(node: Node, observe_only: bool) -> int:
    """Answers requests from standard input until its end; 1 when it was ended by what is no request."""
    try:
        for request in map(parse_json, read_lines(sys.stdin.buffer)):
            send(answer(node, request, observe_only))
    except Refused as refused:
        send({"v": PROTOCOL, "id": None, **failure(refused)})
        return 1
    except BrokenPipeError:
        return 1
    return 0


def by_hand(node: Node, given: argparse.Namespace) -> Json:
    """What a person asks for. The Console reads in the journal of what was revoked or suspended without it."""
    need(link_index(node.name) or os.path.isdir(node.state.folder), "IFACE", "is no interface here: see wg show")
    if given.command == "observe":
        return node.observe({"full": True})
    if given.command == "tick":
        return node.tick()
    need(given.reason.strip(), "--reason", "say why: the Console's ledger keeps it")
    keys, by = [parse_key(key, "KEY") for key in given.keys], os.environ.get("SUDO_USER", "root")
    if given.command == "suspend":
        return node.suspend(keys, given.reason, by)
    # Written down first: killed in between, the Console still hears of it, and the key dies everywhere.
    node.journal.add("revoked", keys, parse_text(given.reason, "reason"), by)
    return node.revoke({"keys": [{"public_key": key, "reason": given.reason} for key in keys]})


def daemon(paths: Paths) -> None:
    """Ticks for every interface that has a state here, until it is ended; that may be at any moment."""
    nodes: dict[str, Node] = {}
    said: dict[str, str] = {}
    while True:
        troubles = {"clock": "a jump forward is held until the Console confirms it" if Clock(paths).keep().held else ""}
        for name in sorted(path.split("/")[-2] for path in glob.glob(paths.lib + "/*/state")):
            reply = guarded(nodes.setdefault(name, Node(name, paths)).tick)
            troubles[name] = "" if reply["ok"] else reply["error"]["message"]
        for name, trouble in troubles.items():
            if trouble and said.get(name) != trouble:
                alarm("%s: %s" % (name, trouble))
        said = troubles
        time.sleep(TICK)


BOOT: dict[str, Callable[[Node], None]] = {"load": Node.load, "close": Node.close, "seal": Node.seal}
COMMANDS = {
    "session": "requests on standard input, answers on standard output",
    "revoke": "these keys never again, on this machine",
    "suspend": "these peers out, until a person decides at the Console",
    "observe": "what runs",
    "tick": "what the daemon does every 5 s, once",
    "load": "at boot: the state into the kernel",
    "close": "at boot: nothing passes until load",
    "seal": "before boot: peers out of IFACE.conf",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="muster-node", description="Keeps WireGuard peers as the Console says.")
    top.add_argument("--version", action="version", version=VERSION)
    commands = top.add_subparsers(dest="command", required=True)
    made = {name: commands.add_parser(name, help=words) for name, words in COMMANDS.items()}
    for command in made.values():
        command.add_argument("interface", metavar="IFACE", type=parse_interface_name, help="as wg0")
    made["session"].add_argument("--observe", action="store_true", help="look only")
    for name in ("revoke", "suspend"):
        made[name].add_argument("keys", metavar="KEY", nargs="+", help="public keys, as wg show prints them")
        made[name].add_argument("--reason", required=True, help="for the Console's ledger")
    commands.add_parser("daemon", help="ticks for every interface, in the foreground")
    return top


def main(words: Sequence[str]) -> int:
    os.umask(0o077)
    given = parser().parse_args(words)
    if os.geteuid() != 0:
        sys.exit("muster-node: run it as root")
    if given.command == "daemon":
        with contextlib.suppress(KeyboardInterrupt):
            daemon(Paths())
        return 0
    node = Node(given.interface, Paths())
    if given.command == "session":
        return session(node, given.observe)
    if given.command in BOOT:
        BOOT[given.command](node)
        return 0
    reply = guarded(lambda: by_hand(node, given))
    send(reply)
    proofs = [row[part] for row in reply.get("receipts", []) for part in ("durable", "kernel", "disk")]
    return 0 if reply["ok"] and all(proofs) and not reply.get("left") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
