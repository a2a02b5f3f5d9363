"""Who has access to what. Memberships, Grants, Peers and the like are intervals: rows end, they are not edited."""

from peers.models.grants import AccessRequest, Grant
from peers.models.peer import (
    OWN_ADDRESSES,
    ExpiryWarning,
    Peer,
    PeerStatus,
    RoutedNetwork,
    StaticAddress,
    Suspension,
)
from peers.models.revoked import PENDING, Receipt, Revocation, Tombstone
from peers.models.sweep import SweepMark
from peers.models.who import Device, Membership, Person, Team, valid_public_key

__all__ = [
    "OWN_ADDRESSES",
    "PENDING",
    "AccessRequest",
    "Device",
    "ExpiryWarning",
    "Grant",
    "Membership",
    "Peer",
    "PeerStatus",
    "Person",
    "Receipt",
    "Revocation",
    "RoutedNetwork",
    "StaticAddress",
    "Suspension",
    "SweepMark",
    "Team",
    "Tombstone",
    "valid_public_key",
]
