"""Devices that are to have a peer and have none: what they wait for is an address, where a pool is full."""

from collections import defaultdict
from collections.abc import Collection

from django.utils import timezone

from fleet.models import Server
from fleet.scope import visible_servers
from peers.access import own_person
from peers.models import Device
from peers.settle import compare


def where_waiting(devices: Collection[Device]) -> dict[int, list[Server]]:
    """Device -> the servers, by name, where its person's rights want it and it is not yet. Six queries at most."""
    live = [device for device in devices if device.revoked_at is None]
    if not live:
        return {}
    spots = compare(live, timezone.now()).to_issue.keys()
    servers = Server.objects.filter(pk__in={server for _, server in spots}).order_by("name") if spots else ()
    found: defaultdict[int, list[Server]] = defaultdict(list)
    for server in servers:
        for device in {device for device, pk in spots if pk == server.pk}:
            found[device].append(server)
    return dict(found)


def seen_waiting(devices: Collection[Device], user: object) -> dict[int, list[str]]:
    """Device -> the names of the servers where it waits: of those that the user sees, and of a device of theirs all."""
    own = own_person(user)
    seen = set(visible_servers(user).values_list("pk", flat=True))
    owners = {device.pk: device.person_id for device in devices}
    found = {
        device: [one.name for one in servers if one.pk in seen or (own and owners[device] == own.pk)]
        for device, servers in where_waiting(devices).items()
    }
    return {device: names for device, names in found.items() if names}
