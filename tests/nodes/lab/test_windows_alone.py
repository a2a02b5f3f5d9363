"""Access windows with nobody to ask: judged by packets."""

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.packets import Stream
from tests.lab.waiting import wait_for
from tests.nodes.lab.alone import GATEWAY, address_of, alone, new_peers
from tests.nodes.lab.scene import wait_until_sent

pytestmark = pytest.mark.lab

TICK = 5


def test_a_window_shuts_and_opens_with_the_console_gone_and_a_bystander_loses_nothing(lab: Lab) -> None:
    """D10, F7: over a boot inside none of them too, and for good once the last one is over."""
    (carol, ben), (pairs, peers) = lab.add_clients(2), new_peers(2)
    node = alone(lab.add_server())
    for number, client in enumerate((carol, ben)):
        client.connect(node.tunnel_file(pairs[number], address_of(number)))
    shuts, opens, ends = (int(time.time()) + seconds for seconds in (6, 11, 23))
    node.push([peers[0] | {"windows": [[1, shuts], [opens, ends]]}, peers[1]])
    node.machine.shell("systemctl start muster-node")
    hers, his = carol.stream(GATEWAY, rate=50), ben.stream(GATEWAY, rate=100)
    for stream in (hers, his):
        stream.wait_for_reply(5)
    began = time.monotonic()
    late = ended(hers, shuts)
    assert 0 < late <= TICK + 1, late
    # As somebody who restarts the client: it begins a handshake every 5 s, until it is let in.
    carol.close_streams()
    carol.disconnect()
    carol.connect(node.tunnel_file(pairs[0], address_of(0)))
    hers = carol.stream(GATEWAY, rate=50)
    hers.wait_for_reply(ends - time.time())
    assert time.time() >= opens
    late = ended(hers, ends)
    assert 0 < late <= TICK + 1, late
    assert his.lost(since=began, until=time.monotonic() - 1) == 0
    assert node.journal() == []
    last = hers.last_answered_at()
    node.machine.reboot()
    his.wait_for_reply(30, after=time.monotonic())
    wait_until_sent([hers], time.monotonic() + 1)
    assert hers.last_answered_at() == last
    assert node.keys() == {pairs[1].public_key}


def ended(stream: Stream, moment: int) -> float:
    """By how many seconds its last packet passed after this moment."""
    wait_for(lambda: time.monotonic() - (stream.last_answered_at() or 0) > 2, 25, "no packet to pass")
    return (stream.last_answered_at() or 0) - time.monotonic() + time.time() - moment
