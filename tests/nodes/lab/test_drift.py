"""What somebody changes on a server by hand is seen, said once, and repaired without hurting anybody."""

from collections.abc import Callable

import pytest
from django.apps import apps

from audit.models import Event
from fleet import conditions
from fleet.conditions import Type
from fleet.models import Environment, Server, ServerStatus
from nodes.models import ReviewItem
from peers.client_config import ClientConfig
from peers.models import Device, Peer
from peers.selectors import config_of
from tests.build import new_public_key
from tests.fleet_in_lab import console
from tests.lab import machines
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled, held_keys, joined

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]
Change = Callable[[machines.Server, Device], None]


def other_address(machine: machines.Server, device: Device) -> None:
    machine.run(["wg", "set", "wg0", "peer", device.public_key, "allowed-ips", "10.1.99.99/32"])


def removed(machine: machines.Server, device: Device) -> None:
    machine.run(["wg", "set", "wg0", "peer", device.public_key, "remove"])


def unknown_added(machine: machines.Server, device: Device) -> None:
    machine.run(["wg", "set", "wg0", "peer", new_public_key(), "allowed-ips", "10.1.77.7/32"])


def in_sync(server: Server) -> tuple[bool, str, str]:
    found = conditions.read(ServerStatus.objects.get(server=server).conditions, Type.IN_SYNC)
    assert found is not None
    return found.status, found.reason, found.message


@pytest.mark.parametrize(("change", "what"), [(other_address, "allowed_ips"), (unknown_added, "unknown")])
def test_a_peer_changed_by_hand_is_seen_once_and_repaired_while_others_lose_nothing(
    lab: Lab, staging: Environment, change: Change, what: str
) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        client, device, _ = joined(muster, lab, row, "Dora")
        bystander, other, _ = joined(muster, lab, row, "Ben")
        muster.poll()
        before = ServerStatus.objects.get(server=row)
        assert in_sync(row)[:2] == (True, "InSync")
        stream = bystander.stream("10.1.0.1")
        began = stream.wait_for_reply(5)

        change(machine, device)
        muster.poll()
        assert in_sync(row) == (False, "Drifted", f"1 difference(s) remain on the server: {what}.")
        muster.poll()
        event = Event.objects.get(verb="drift.seen")
        assert (event.reason, event.target_label, event.actor_label) == (f"1: {what}", row.name, "Console")

        muster.push()
        assert in_sync(row) == (True, "InSync", "")
        after = ServerStatus.objects.get(server=row)
        assert (after.observed_generation, after.observed_digest) == (
            before.observed_generation,
            before.observed_digest,
        )
        assert held_keys(machine) == {device.public_key, other.public_key}
        client.stream("10.1.0.1").wait_for_reply(30)  # a client asks for a new session after 15 s without an answer
        done = stream.wait_for_reply(5, after=began)
        assert stream.lost(since=began, until=done) == 0
        change(machine, device)
        muster.poll()
        assert Event.objects.filter(verb="drift.seen").count() == 2


def test_a_peer_removed_by_hand_is_seen_and_not_put_back_behind_anybodys_back(lab: Lab, staging: Environment) -> None:
    """E10"""
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        _, device, _ = joined(muster, lab, row, "Dora")
        bystander, other, _ = joined(muster, lab, row, "Ben")
        stream = bystander.stream("10.1.0.1")
        began = stream.wait_for_reply(5)
        removed(machine, device)
        muster.poll()
        assert in_sync(row) == (False, "Drifted", "1 difference(s) remain on the server: missing.")
        muster.push()
        assert in_sync(row) == (True, "InSync", "")
        item = ReviewItem.objects.get()
        assert (item.peer.device, item.by, item.decided_at) == (device, "node", None)
        assert held_keys(machine) == {other.public_key}
        done = stream.wait_for_reply(5, after=began)
        assert stream.lost(since=began, until=done) == 0


def test_what_is_kept_of_a_servers_answers_holds_no_secret(lab: Lab, staging: Environment) -> None:
    """C3"""
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        _, device, _ = joined(muster, lab, row)
        unknown_added(machine, device)
        muster.poll()
        muster.push()
    dump = machine.run(["wg", "show", "wg0", "dump"]).stdout.split()
    config: ClientConfig = config_of(Peer.objects.select_related("server", "ipv4", "ipv6").get(device=device))
    private, preshared = dump[0], config.preshared_key
    assert preshared in dump
    kept = str([list(model._default_manager.values()) for model in apps.get_models()])
    assert row.public_key in kept
    assert [secret for secret in (private, preshared) if secret in kept] == []
