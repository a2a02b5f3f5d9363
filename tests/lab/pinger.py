"""Run as a program: sends echo requests at a steady rate and notes each packet, until stdin ends.

    python -m tests.lab.pinger ADDRESS INTERVAL_S COUNT INTERFACE     (COUNT 0: for ever; INTERFACE "": any)

Each line of stdout is "S number time" or "R number time"; times are CLOCK_MONOTONIC in seconds.
"""

import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

PAYLOAD = struct.Struct("!16sQ")
LAST_REPLY_WAIT = 1.0
STDIN = 0


@dataclass
class Pinger:
    """One stream of echo requests."""

    address: str
    interface: str
    token: bytes = field(default_factory=lambda: os.urandom(16))
    sent: int = 0
    answered: int = 0

    def __post_init__(self) -> None:
        self.is_v6 = ":" in self.address
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self.is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        self.socket = socket.socket(family, socket.SOCK_RAW, protocol)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.setblocking(False)
        if self.interface:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())

    def send(self) -> None:
        """Send the next request; one that the kernel refuses counts as sent and lost."""
        header = struct.pack("!BBHHH", 128 if self.is_v6 else 8, 0, 0, 1, self.sent & 0xFFFF)
        packet = header + PAYLOAD.pack(self.token, self.sent)
        if not self.is_v6:
            packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        note("S", self.sent)
        self.sent += 1
        try:
            self.socket.sendto(packet, (self.address, 0))
        except OSError:
            return

    def receive(self) -> None:
        """Note every reply that waits."""
        while True:
            try:
                packet = self.socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            self.take(packet if self.is_v6 else packet[(packet[0] & 15) * 4 :])

    def take(self, message: bytes) -> None:
        if len(message) < 8 + PAYLOAD.size or message[0] != (129 if self.is_v6 else 0):
            return
        token, number = PAYLOAD.unpack_from(message, 8)
        if token == self.token:
            note("R", number)
            self.answered += 1


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def note(kind: str, number: int) -> None:
    os.write(1, f"{kind} {number} {time.monotonic():.6f}\n".encode())


def run(pinger: Pinger, interval: float, count: int) -> None:
    """Send on schedule, receive in between; a late wake-up does not shift the schedule."""
    started, quiet_since = time.monotonic(), 0.0
    while True:
        now = time.monotonic()
        is_done = bool(count) and pinger.sent >= count
        if not is_done and now >= started + pinger.sent * interval:
            pinger.send()
            quiet_since = now
            continue
        if is_done and (pinger.answered >= count or now > quiet_since + LAST_REPLY_WAIT):
            return
        wait = 0.05 if is_done else started + pinger.sent * interval - now
        sources = [pinger.socket.fileno(), STDIN]
        ready = select.select(sources, [], [], max(0.0, wait))[0]
        if sources[0] in ready:
            pinger.receive()
        if STDIN in ready and not os.read(0, 1024):
            return


if __name__ == "__main__":
    run(Pinger(sys.argv[1], sys.argv[4]), float(sys.argv[2]), int(sys.argv[3]))
