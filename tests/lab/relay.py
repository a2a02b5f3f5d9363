"""Run as a program: a slow cable. Holds back every frame between two links, in both directions, in order.

python -m tests.lab.relay LINK LINK DELAY_MS PIDS_FOLDER TAG      (goes to the background once it works)
"""

import os
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

from tests.lab.processes import Processes

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
FRAMES_AT_ONCE = 64


def tap(link: str) -> socket.socket:
    """A raw socket on a link that carries checksum and segmentation state across."""
    tapped = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tapped.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    tapped.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    tapped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    tapped.bind((link, ETH_P_ALL))
    tapped.setblocking(False)
    return tapped


def take_frames(tapped: socket.socket) -> list[bytes]:
    frames: list[bytes] = []
    while len(frames) < FRAMES_AT_ONCE:
        try:
            frames.append(tapped.recv(1 << 18))
        except OSError:
            break
    return frames


def send_frame(tapped: socket.socket, frame: bytes) -> None:
    """A cable that is down loses frames."""
    try:
        tapped.send(frame)
    except OSError:
        return


def relay(one: socket.socket, two: socket.socket, delay: float) -> None:
    """Pass frames on for ever, each `delay` seconds after it came."""
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    other = {one: two, two: one}
    while True:
        while waiting and waiting[0][0] <= time.monotonic():
            _, target, frame = waiting.popleft()
            send_frame(target, frame)
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for tapped in select.select([one, two], [], [], timeout)[0]:
            due = time.monotonic() + delay
            waiting.extend((due, other[tapped], frame) for frame in take_frames(tapped))


def main(one: str, two: str, delay_ms: str, folder: str, tag: str) -> None:
    taps = tap(one), tap(two)
    if os.fork():
        os._exit(0)
    os.setsid()
    Processes(Path(folder)).record(tag, os.getpid())
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    relay(*taps, float(delay_ms) / 1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
