"""Queries on people's access that more than one door asks."""

from fleet.keyrings import PRESHARED_KEYS, Opener
from fleet.models import AddressRange
from fleet.pools import from_hex
from peers.client_config import ClientConfig
from peers.models import Peer


class NotEnrolled(Exception):
    """The server has no key yet, so no tunnel file can name it."""


def address_of(row: AddressRange) -> str:
    """`10.1.0.7/32` or `fd00::7/128`."""
    address = from_hex(row.first)
    return f"{address}/{address.max_prefixlen}"


def config_of(peer: Peer) -> ClientConfig:
    """The tunnel file of a live peer. Opens the sealed preshared key; NotEnrolled where the server has no key yet."""
    server = peer.server
    if not server.public_key:
        raise NotEnrolled(f"{server} is not enrolled yet: enrol it, then fetch the file.")
    return ClientConfig(
        addresses=[address_of(peer.ipv4), address_of(peer.ipv6)],
        dns=server.dns,
        mtu=server.mtu,
        server_public_key=server.public_key,
        endpoint=server.endpoint,
        allowed_ips=peer.networks,
        preshared_key=Opener(PRESHARED_KEYS).open(peer.preshared_key, peer.pk),
    )
