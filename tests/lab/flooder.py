"""Run as a program: a WireGuard client without patience, in place of one that waits 5 s between two handshakes.

    python -m tests.lab.flooder ENDPOINT PORT SERVER_PUBLIC_KEY ADDRESS GATEWAY RATE      (private key on stdin)

RATE times a second it begins a handshake; on the newest that was answered it sends an echo request from ADDRESS to
GATEWAY. Ends with stdin. Each line of stdout is "S number time" (handshake begun), "H number time" (answered) or
"R number time" (an echo reply came through the tunnel); times are CLOCK_MONOTONIC in seconds.
"""

import base64
import os
import select
import socket
import struct
import sys
import time
from hashlib import blake2s
from hmac import digest as hmac_digest
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.lab.pinger import checksum, note

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
TAI_BASE = 2**62 + 10
REMEMBERED = 400
STDIN = 0


def mix(*parts: bytes) -> bytes:
    """The hash of the protocol."""
    return blake2s(b"".join(parts)).digest()


def derive(chain: bytes, secret: bytes, count: int) -> list[bytes]:
    """`count` keys by HKDF; the first is the new chain key."""
    root, found = hmac_digest(chain, secret, "blake2s"), [b""]
    for number in range(1, count + 1):
        found.append(hmac_digest(root, found[-1] + bytes([number]), "blake2s"))
    return found[1:]


def raw_public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def seal(key: bytes, text: bytes, about: bytes, counter: int = 0) -> bytes:
    return ChaCha20Poly1305(key).encrypt(struct.pack("<IQ", 0, counter), text, about)


def unseal(key: bytes, text: bytes, about: bytes, counter: int = 0) -> bytes:
    return ChaCha20Poly1305(key).decrypt(struct.pack("<IQ", 0, counter), text, about)


class Begun(NamedTuple):
    """A handshake that waits for its answer."""

    number: int
    ephemeral: X25519PrivateKey
    chain: bytes
    hash: bytes


class Tunnel(NamedTuple):
    """An answered handshake: the server's index, and a key for each way."""

    theirs: int
    sending: bytes
    receiving: bytes


class Handshakes:
    """One key pair and one server, as the paper on WireGuard has it; without preshared key."""

    def __init__(self, private: bytes, server: bytes) -> None:
        self.private, self.server = (
            X25519PrivateKey.from_private_bytes(private),
            X25519PublicKey.from_public_bytes(server),
        )
        self.public, self.server_raw = raw_public(self.private), server
        self.shared = self.private.exchange(self.server)
        self.chain = mix(CONSTRUCTION)
        self.hash = mix(mix(self.chain, IDENTIFIER), server)
        self.mac_key = mix(b"mac1----", server)

    def begin(self, number: int) -> tuple[bytes, Begun]:
        """The packet that begins a handshake."""
        ephemeral = X25519PrivateKey.generate()
        point = raw_public(ephemeral)
        chain, running = derive(self.chain, point, 1)[0], mix(self.hash, point)
        chain, key = derive(chain, ephemeral.exchange(self.server), 2)
        static = seal(key, self.public, running)
        running = mix(running, static)
        chain, key = derive(chain, self.shared, 2)
        nanoseconds = time.time_ns()
        moment = struct.pack(">QI", TAI_BASE + nanoseconds // 10**9, nanoseconds % 10**9)
        stamp = seal(key, moment, running)
        packet = struct.pack("<II", 1, number) + point + static + stamp
        mac = blake2s(packet, key=self.mac_key, digest_size=16).digest()
        return packet + mac + bytes(16), Begun(number, ephemeral, chain, mix(running, stamp))

    def finish(self, begun: Begun, answer: bytes) -> Tunnel:
        """The tunnel that the answer opens; InvalidTag where it is not the server's."""
        point = answer[12:44]
        chain, running = derive(begun.chain, point, 1)[0], mix(begun.hash, point)
        their_point = X25519PublicKey.from_public_bytes(point)
        for own in (begun.ephemeral, self.private):
            chain = derive(chain, own.exchange(their_point), 1)[0]
        chain, tau, key = derive(chain, bytes(32), 3)
        unseal(key, answer[44:60], mix(running, tau))
        sending, receiving = derive(chain, b"", 2)
        return Tunnel(struct.unpack_from("<I", answer, 4)[0], sending, receiving)


def echo_request(source: str, target: str, number: int) -> bytes:
    """An IPv4 packet of 32 bytes."""
    ping = struct.pack("!BBHHHI", 8, 0, 0, 7, number & 0xFFFF, number)
    ping = ping[:2] + struct.pack("!H", checksum(ping)) + ping[4:]
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 32, number & 0xFFFF, 0, 64, 1, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + ping


def is_echo_reply(packet: bytes) -> bool:
    return len(packet) >= 28 and packet[9] == 1 and packet[20] == 0


class Flooder:
    """Begins handshakes, and pings through the newest tunnel."""

    def __init__(self, handshakes: Handshakes, endpoint: tuple[str, int], source: str, target: str) -> None:
        self.handshakes, self.endpoint, self.source, self.target = handshakes, endpoint, source, target
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.begun: dict[int, Begun] = {}
        self.tunnel: Tunnel | None = None
        self.number = self.counter = 0

    def send(self) -> None:
        """One handshake, and one ping where there is a tunnel."""
        self.number += 1
        packet, self.begun[self.number] = self.handshakes.begin(self.number)
        self.begun.pop(self.number - REMEMBERED, None)
        note("S", self.number)
        self._put(packet)
        self.ping()

    def ping(self) -> None:
        if self.tunnel is None:
            return
        text = seal(self.tunnel.sending, echo_request(self.source, self.target, self.number), b"", self.counter)
        self._put(struct.pack("<IIQ", 4, self.tunnel.theirs, self.counter) + text)
        self.counter += 1

    def _put(self, packet: bytes) -> None:
        """A packet that the kernel refuses, as while the server is off, is lost."""
        try:
            self.socket.sendto(packet, self.endpoint)
        except OSError:
            return

    def receive(self) -> None:
        """Takes every packet that waits."""
        while True:
            try:
                self.take(self.socket.recv(2048))
            except BlockingIOError:
                return
            except (OSError, InvalidTag):
                continue

    def take(self, packet: bytes) -> None:
        kind = packet[0] if packet else 0
        if kind == 2 and len(packet) == 92:
            begun = self.begun.pop(struct.unpack_from("<I", packet, 8)[0], None)
            if begun:
                self.tunnel, self.counter = self.handshakes.finish(begun, packet), 0
                note("H", begun.number)
                self.ping()
        elif kind == 4 and self.tunnel and is_echo_reply(self._opened(packet)):
            note("R", self.number)

    def _opened(self, packet: bytes) -> bytes:
        assert self.tunnel
        return unseal(self.tunnel.receiving, packet[16:], b"", struct.unpack_from("<Q", packet, 8)[0])


def run(flooder: Flooder, interval: float) -> None:
    """Send on schedule, receive in between, until stdin ends."""
    due = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= due:
            flooder.send()
            due = max(due + interval, now)
            continue
        sources = [flooder.socket.fileno(), STDIN]
        ready = select.select(sources, [], [], due - now)[0]
        if sources[0] in ready:
            flooder.receive()
        if STDIN in ready and not os.read(STDIN, 1024):
            return


def main(words: list[str]) -> None:
    endpoint, port, server, source, target, rate = words
    private = os.read(STDIN, 64).strip()
    handshakes = Handshakes(base64.b64decode(private), base64.b64decode(server))
    run(Flooder(handshakes, (endpoint, int(port)), source, target), 1 / float(rate))


if __name__ == "__main__":
    main(sys.argv[1:])
