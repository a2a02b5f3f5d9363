"""Pushes to a node that takes what the real one takes, and confirms it; for tests without a machine."""

from fleet.models import Server
from nodes import brake, status
from nodes.desired import desired_state
from nodes.observe import NodeState
from nodes.render import digest, peer_lines
from nodes.script import muster_node
from nodes.state import Desired


def push(server: Server) -> Desired:
    """What goes out now, judged by the node's own rules and written down as confirmed."""
    sent, held = brake.check(desired_state(server.pk))
    peers = [muster_node.peer_of(line) for line in peer_lines(sent.content).values()]
    muster_node.check_overlap(peers)
    seen = digest(sent.content)
    status.record_applied(sent, NodeState(sent.epoch, sent.generation, seen, seen), [], [], held)
    brake.forget(server.pk, {one.act for one in sent.held})
    return sent


def keys_in(desired: Desired) -> set[str]:
    return set(desired.content.peers)
