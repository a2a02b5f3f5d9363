"""Frozen values that desired, render, observe and plan share; pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field


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


@dataclass(frozen=True)
class Removal:
    """A peer that ended, or is kept out, and may still be on the server, but where `is_done`. `act` is the Event that
    ended it."""

    peer_id: uuid.UUID
    public_key: str
    act: uuid.UUID
    is_decided: bool
    is_done: bool = False


@dataclass(frozen=True)
class Desired:
    """What the Console wants on one server, read at one generation (the generation first, then the rows). `removals`
    ended, `shut` live on and are kept out. `journal_seen` is how far its journal was read then: the rows know of all
    that stands there."""

    server_id: int
    epoch: int
    generation: int
    content: Content
    removals: tuple[Removal, ...]
    shut: tuple[Removal, ...] = ()
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
