"""Frozen values that desired, render, observe and plan share; pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class PeerState:
    """One peer as a server should hold it. `expires_at` in seconds since 1970, None for no end; `replaces` is the key
    whose addresses it gets at its first handshake. `windows` are (from, until) in seconds since 1970, rising and apart:
    outside them it is shut; None for always open."""

    public_key: str
    preshared_key: str | None = field(repr=False)
    allowed_ips: tuple[str, ...]
    expires_at: int | None
    replaces: str | None = None
    windows: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class InterfaceState:
    """The interface's own settings; `forward` is masquerade, routed or none."""

    addresses: tuple[str, ...]
    listen_port: int
    mtu: int
    forward: str


@dataclass(frozen=True)
class Content:
    """What a server should hold: one interface and its peers by public key."""

    interface: InterfaceState
    peers: Mapping[str, PeerState]


class Seen(StrEnum):
    """How a server was last seen to have a peer: by a push that it confirmed, and never by one that was only sent."""

    IN = "in"
    OUT = "out"
    NEVER = "never in"


@dataclass(frozen=True)
class Removal:
    """A peer that ended, or is kept out, and may still be on the server. `act` is the Event that ended it. `stays` is
    how it stands there, where nothing was decided about it alone; `heir` is the key that is to have its addresses."""

    peer_id: uuid.UUID
    public_key: str
    act: uuid.UUID
    is_decided: bool
    seen: Seen = Seen.IN
    stays: PeerState | None = None
    heir: str = ""

    @property
    def may_stay(self) -> bool:
        """What the server was never seen to let in, or was seen to shut out, does not come in by a brake."""
        return not self.is_decided and self.seen is Seen.IN


@dataclass(frozen=True)
class Desired:
    """What the Console wants on one server, read at one generation (the generation first, then the rows). `removals`
    ended, `shut` live on and are kept out, `held` are those of both that the brake leaves in. `entering` are the peers
    in it, by key, that the server was not seen to let in yet. `journal_seen` is how far its journal was read then: the
    rows know of all that stands there."""

    server_id: int
    epoch: int
    generation: int
    content: Content
    removals: tuple[Removal, ...]
    shut: tuple[Removal, ...] = ()
    held: tuple[Removal, ...] = ()
    entering: Mapping[str, uuid.UUID] = field(default_factory=dict)
    is_observe_only: bool = False
    journal_seen: int = 0


@dataclass(frozen=True)
class Plan:
    """What a push would change on a server, by public key."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    update: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.add or self.remove or self.update)
