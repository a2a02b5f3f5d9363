"""A hundred boots under a flood: no packet of a dead key passes, whatever somebody saved into the conf."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab.fixtures import module_lab
from tests.lab.floods import Flood
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.alone import Alone, address_of, alone, new_peers

__all__ = ["module_lab"]
pytestmark = pytest.mark.lab

SIDE_BY_SIDE = 2
POWER_CYCLES, CONTROLS = 4, 6
# All that a power cut takes but the machine itself: processes, the interface, /run, nft's rules, the kernel's settings.
CUT = """\
kill -9 -- -$(cat /run/lab-units/muster-node.service 2>/dev/null) 2>/dev/null || true
ip link del wg0
while ip link show wg0 >/dev/null 2>&1; do sleep 0.005; done
rm -rf /run/muster /run/lab-units /run/wireguard/*
nft flush ruleset
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
"""
SYSTEMD, BY_HAND, BESIDE = "systemd", "by hand", "by hand beside the daemon"
WAYS = {
    SYSTEMD: "systemctl default",
    BY_HAND: "wg-quick up wg0",
    BESIDE: "systemctl start muster-node; wg-quick up wg0",
}
BOOTS = {SYSTEMD: 50, BY_HAND: 30, BESIDE: 20}
CONF, DROP_IN = "/etc/wireguard/wg0.conf", "/etc/systemd/system/wg-quick@wg0.service.d/muster.conf"


@dataclass
class Ground:
    """One server, and three keys that never wait: one expired, one revoked, one that must come through."""

    node: Alone
    expired: Flood
    revoked: Flood
    alive: Flood

    @property
    def dead(self) -> list[Flood]:
        return [self.expired, self.revoked]

    def put_back(self) -> str:
        """The script that puts the dead keys into the conf, with everybody's addresses."""
        rows = "".join(f"[Peer]\\nPublicKey = {flood.public_key}\\nAllowedIPs = 10.1.0.0/24\\n" for flood in self.dead)
        return f"printf '{rows}' >>{CONF}\n"

    def boot(self, way: str) -> None:
        self.node.machine.shell(CUT + self.put_back() + WAYS[way])

    def power_cycle(self) -> None:
        self.node.machine.shell(self.put_back())
        self.node.machine.reboot()


def make_ground(lab: Lab, node: Alone) -> Ground:
    pairs, peers = new_peers(3)
    node.push([peers[0] | {"expires_at": int(time.time()) + 3}, *peers[1:]])
    node.revoke(pairs[1].public_key)
    client = lab.add_clients(1)[0]
    floods = [node.flood(client, pair, address_of(number)) for number, pair in enumerate(pairs)]
    wait_for(lambda: node.machine.shell("muster-node tick wg0; wg show wg0 peers").count("=") == 1, 20, "the expiry")
    return Ground(node, *floods)


@pytest.fixture(scope="module")
def grounds(module_lab: Lab) -> Iterator[list[Ground]]:
    machines = module_lab.add_servers(SIDE_BY_SIDE)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        nodes = list(pool.map(alone, machines))
    found = [make_ground(module_lab, node) for node in nodes]
    yield found
    for ground in found:
        for flood in (*ground.dead, ground.alive):
            flood.close()


@dataclass
class Seen:
    """What one boot let through of the dead keys: handshakes begun meanwhile, handshakes answered, packets."""

    way: str
    begun: int
    answered: int
    packets: int
    seconds: float


def boot_and_look(ground: Ground, way: str, boot: Callable[[], None]) -> Seen:
    """One boot; the living key has come through and the kernel has it alone when this ends."""
    began = time.monotonic()
    boot()
    ended = time.monotonic()
    try:
        ground.alive.wait_for_reply(ended, 20)
    except TimeoutError:
        pytest.fail(f"{way}: shut out; {ground.node.journal()}, {ground.node.drift()}")
    assert ground.node.keys() == {ground.alive.public_key}
    begun, answered, packets = (
        sum(len(ask(flood, began)) for flood in ground.dead) for ask in (Flood.begun, Flood.answered, Flood.replies)
    )
    return Seen(way, begun, answered, packets, ended - began)


def side_by_side(grounds: list[Ground], work: Callable[[Ground], list[Seen]]) -> list[Seen]:
    with ThreadPoolExecutor(len(grounds)) as pool:
        return [seen for found in pool.map(work, grounds) for seen in found]


def told(seen: list[Seen]) -> str:
    """Figures by way."""
    lines = []
    for way in dict.fromkeys(one.way for one in seen):
        those = [one for one in seen if one.way == way]
        begun, packets = min(one.begun for one in those), sum(one.packets for one in those)
        shaken = sum(one.answered > 0 for one in those)
        longest = max(one.seconds for one in those)
        lines.append(
            f"{way}: {len(those)} boots of at most {longest:.2f} s, at least {begun} handshakes begun by dead keys in"
            f" each, answered in {shaken}, packets through: {packets}"
        )
    return "\n".join(lines)


def test_no_dead_key_gets_an_answer_in_a_hundred_boots(grounds: list[Ground]) -> None:
    """D1, D11, F2: by systemd's lines and by plain wg-quick, the keys put back into the conf, flooding all along."""

    def work(ground: Ground) -> list[Seen]:
        ways = [way for way, count in BOOTS.items() for _ in range(count // SIDE_BY_SIDE)]
        return [boot_and_look(ground, way, lambda way=way: ground.boot(way)) for way in ways]  # type: ignore[misc]

    seen = side_by_side(grounds, work)
    print(told(seen))
    assert [one for one in seen if one.packets or one.answered] == []
    assert (len(seen), min(one.begun for one in seen) >= 20) == (100, True)


def test_nor_in_power_cycles_of_the_whole_machine(grounds: list[Ground]) -> None:
    """D1, F2."""

    def work(ground: Ground) -> list[Seen]:
        cycles = range(POWER_CYCLES // SIDE_BY_SIDE)
        return [boot_and_look(ground, "power", ground.power_cycle) for _ in cycles]

    seen = side_by_side(grounds, work)
    print(told(seen))
    assert [(one.packets, one.answered) for one in seen] == [(0, 0)] * POWER_CYCLES


@pytest.mark.parametrize("way", [BY_HAND, SYSTEMD])
def test_the_same_flood_is_answered_in_a_boot_without_the_guard(grounds: list[Ground], way: str) -> None:
    """The control: all is as above but for our PreUp and the drop-in's seal; `load` still ends it, a little later."""
    take_out = f"sed -i '/^PreUp/d' {CONF}; sed -i '/^ExecStartPre/d' {DROP_IN}\n"
    ground = grounds[0]
    kept = {path: ground.node.machine.read(path) for path in (CONF, DROP_IN)}
    ground.node.machine.shell(take_out)
    seen = [boot_and_look(ground, way, lambda: ground.boot(way)) for _ in range(CONTROLS)]
    for path, text in kept.items():
        ground.node.machine.put(path, text, 0o600)
    print(told(seen))
    assert sum(one.packets > 0 for one in seen) >= CONTROLS // 2
