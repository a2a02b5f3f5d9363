"""Nothing of a node waits for a name: with no resolver, or a dead one, all is done as ever."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.nodes.node.build import Json, dead, make_key, make_peer, make_whole
from tests.nodes.node.machine import PROGRAM, Machine

PEERS = [make_peer(n, allowed_ips=[f"10.1.0.{n + 2}/32", f"10.9.{n}.0/24"]) for n in range(4)]
# All that asks for a name is swallowed: the resolver neither answers nor refuses.
HOLE = """
echo 'nameserver 127.0.0.99' > /etc/resolv.conf
printf 'passwd: files\\ngroup: files\\nshadow: files\\nhosts: files dns\\n' > /etc/nsswitch.conf
echo '127.0.0.1 localhost' > /etc/hosts
nft -f - <<END
table inet hole { chain in { type filter hook input priority 0; udp dport 53 drop; tcp dport 53 drop; }; }
END
"""
WAYS = {"a resolver that is dead": HOLE, "no resolver": HOLE + "rm /etc/resolv.conf\n"}
COMMANDS = {
    "session": ("session", "wg0"),
    "revoke": ("revoke", "wg0", make_key(2), "--reason", "lost"),
    "suspend": ("suspend", "wg0", make_key(1), "--reason", "lost"),
    "tick": ("tick", "wg0"),
    "load": ("load", "wg0"),
    "observe": ("observe", "wg0"),
}
TRACE = "strace -f -qq -e trace=socket,connect,sendto,sendmsg -o /run/trace "


@pytest.fixture(params=WAYS)
def nameless(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine without names, that holds four peers of whom one is gone from the kernel."""
    machine.make_interface()
    machine.sh(WAYS[request.param])
    session = machine.session("wg0")
    assert session.ask("apply", **make_whole(1, PEERS))["ok"]
    yield machine


def lines() -> str:
    push: Json = {"op": "apply", **make_whole(2, [*PEERS[:2], make_peer(7)], tombstones=[dead(80)])}
    requests = [{"op": "hello"}, push, {"op": "revoke", "keys": [dead(0)]}, {"op": "observe", "full": True}]
    return "".join(json.dumps({"v": 1, "id": 1, **request}) + "\n" for request in requests)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_asks_for_a_name_or_waits_for_one(nameless: Machine, name: str) -> None:
    """A14, F25: and no program that it starts; well under 5 s each."""
    # So that tick and load have something to bring back.
    nameless.sh("wg show wg0 peers | while read key; do wg set wg0 peer $key remove; done")
    began = time.monotonic()
    out = nameless.run("sh", "-c", TRACE + " ".join([PROGRAM, *COMMANDS[name]]), stdin=lines())
    took = time.monotonic() - began
    assert [json.loads(line)["ok"] for line in out.splitlines()] == [True] * {"session": 4, "load": 0}.get(name, 1)
    trace = nameless.sh("cat /run/trace")
    assert set(re.findall(r"socket\((AF_\w+)", trace)) <= {"AF_UNIX", "AF_NETLINK"}
    assert "AF_NETLINK" in trace or "AF_UNIX" in trace
    assert "htons(53)" not in trace and "nscd" not in trace
    assert took < 5


def test_the_hole_is_one(nameless: Machine) -> None:
    """The control: whoever asks for a name here waits for it in vain."""
    nameless.run("timeout", "0.5", "getent", "hosts", "vpn.example.com", code=124)


@pytest.mark.parametrize("place", ["allowed_ips", "addresses"])
def test_a_name_in_the_place_of_an_address_is_refused_at_once(nameless: Machine, place: str) -> None:
    """A14."""
    session, before = nameless.session("wg0"), nameless.peers()
    push = make_whole(2, [*PEERS, make_peer(8, allowed_ips=["vpn.example.com/32"])])
    if place == "addresses":
        interface = push["interface"] | {"addresses": ["vpn.example.com/24"]}
        push = make_whole(2, PEERS, interface=interface)
    began = time.monotonic()
    error = session.ask("apply", **push)["error"]
    assert (error["code"], error["message"].split(":")[0]) == ("bad_request", place)
    assert time.monotonic() - began < 1
    assert nameless.peers() == before
    assert session.ask("apply", **make_whole(2, PEERS))["result"] == "applied"
