"""What tests of addresses ask again and again."""

import datetime as dt
from collections.abc import Iterable

from django.utils import timezone

from fleet.models import AddressRange, Server
from nodes.chores import release_rested
from nodes.desired import desired_state
from peers.holders import why, with_holders
from peers.models import Device, Peer
from peers.selectors import address_of


def live(device: Device, server: Server) -> Peer:
    return Peer.objects.get(device=device, server=server, ended_at=None)


def address(peer: Peer) -> str:
    """Its IPv4 address."""
    return address_of(peer.ipv4).removesuffix("/32")


def pushed(device: Device, server: Server) -> tuple[str, ...]:
    """The allowed IPs that the server should hold for a device; none where it should hold no such peer."""
    peer = desired_state(server.pk).content.peers.get(device.public_key)
    return peer.allowed_ips if peer else ()


def said(server: Server) -> dict[str, str]:
    """What is said of each range that is not free again."""
    rows = with_holders(AddressRange.objects.filter(server=server, released_at=None))
    return {str(row): why(row) for row in rows}


def confirm_all() -> None:
    """As if every server had been read back as it is wanted now."""
    Peer.objects.exclude(ended_at=None).update(gone_at=timezone.now())
    for server in Server.objects.all():
        server.status.confirmed_epoch, server.status.confirmed_generation = server.epoch, server.generation
        server.status.save()


def let_rest_pass(servers: Iterable[Server]) -> int:
    """A day later; how many ranges are free again."""
    day = timezone.now() - dt.timedelta(hours=25)
    AddressRange.objects.filter(server__in=list(servers)).exclude(freed_at=None).update(freed_at=day)
    return release_rested()
