"""What should be true of people's access, as plain lists: too simple to be wrong, and without a line of the product."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from zoneinfo import ZoneInfo

HOUR = dt.timedelta(hours=1)
# Each text of access windows that is used, and whether a clock on the wall is inside.
HOURS: dict[str, Callable[[dt.datetime], bool]] = {
    "": lambda clock: True,
    "mon-fri 08:00-18:00": lambda clock: clock.weekday() < 5 and 8 <= clock.hour < 18,
    "sat 22:00-06:00": lambda clock: (
        (clock.weekday(), clock.hour >= 22) == (5, True) or (clock.weekday(), clock.hour < 6) == (6, True)
    ),
    "mon-sun 00:00-12:00, wed 12:00-20:00": lambda clock: clock.hour < (20 if clock.weekday() == 2 else 12),
}


@dataclass(eq=False)
class Row:
    """`pk` is its id in the database, where it has one."""

    pk: int


@dataclass(eq=False)
class Environment(Row):
    zone: str
    rest: dt.timedelta


@dataclass(eq=False)
class Server(Row):
    environment: Environment


@dataclass(eq=False)
class Person(Row):
    kind: str
    has_left: bool = False


@dataclass(eq=False)
class Team(Row):
    pass


@dataclass(eq=False)
class Device(Row):
    person: Person
    key: str
    replaces: "Device | None" = None
    is_dead: bool = False


@dataclass(eq=False)
class Membership(Row):
    person: Person
    team: Team
    until: dt.datetime | None
    is_over: bool = False


@dataclass(eq=False)
class Grant(Row):
    holder: Person | Team
    place: Environment | Server
    networks: tuple[str, ...]
    hours: str
    begins: dt.datetime
    until: dt.datetime | None
    is_over: bool = False


@dataclass(eq=False)
class Peer:
    device: Device
    server: Server
    waits_for: "Peer | None" = None
    has_ended: bool = False
    is_gone: bool = False


class Spot(NamedTuple):
    """What is suspended with a peer: it means this device on this server, whichever peer it has there."""

    device: Device
    server: Server


Target = Person | Device | Spot


Snapshot = dict[tuple[str, int], str]  # (key, server) -> what holds there


@dataclass
class World:
    """Everything that there is, at the time `now`. Whoever changes it calls `follow`."""

    now: dt.datetime
    environments: list[Environment] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    teams: list[Team] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    memberships: list[Membership] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    suspended: list[Target] = field(default_factory=list)
    dead_keys: set[str] = field(default_factory=set)

    def lasts(self, until: dt.datetime | None) -> bool:
        return until is None or until > self.now

    def open_grants(self) -> list[Grant]:
        return [one for one in self.grants if not one.is_over and one.begins <= self.now and self.lasts(one.until)]

    def open_memberships(self) -> list[Membership]:
        return [one for one in self.memberships if not one.is_over and self.lasts(one.until)]

    def members(self, team: Team) -> list[Person]:
        return [one.person for one in self.open_memberships() if one.team is team]

    def rights(self, person: Person, server: Server) -> Iterator[tuple[Grant, dt.datetime | None]]:
        """Each grant that lets a person in there, and until when it does."""
        for grant in self.open_grants():
            if grant.place not in (server, server.environment):
                continue
            if grant.holder is person:
                yield grant, grant.until
            for one in self.open_memberships():
                if one.team is grant.holder and one.person is person:
                    yield grant, min((end for end in (grant.until, one.until) if end), default=None)

    def is_entitled(self, device: Device, server: Server) -> bool:
        return not device.is_dead and not device.person.has_left and any(self.rights(device.person, server))

    def live(self, server: Server | None = None) -> list[Peer]:
        return [one for one in self.peers if not one.has_ended and server in (None, one.server)]

    def follow(self) -> None:
        """Peers are where somebody has a right with a living key, and nowhere else."""
        for peer in self.live():
            peer.has_ended = not self.is_entitled(peer.device, peer.server)
        there = {(peer.device, peer.server) for peer in self.live()}
        for device in self.devices:
            for server in self.servers:
                if self.is_entitled(device, server) and (device, server) not in there:
                    self.peers.append(Peer(device, server))
                    if device.replaces and not device.replaces.is_dead:
                        self.copy_suspension(Spot(device.replaces, server), Spot(device, server))

    def let_in(self) -> None:
        """Who moved comes in once the old peer was seen gone."""
        for peer in self.live():
            if peer.waits_for and peer.waits_for.is_gone:
                peer.waits_for = None

    def heir(self, device: Device) -> Device | None:
        """The key that is to take this one's place."""
        return next((one for one in self.devices if one.replaces is device and not one.is_dead), None)

    def copy_suspension(self, before: Spot, after: Spot) -> None:
        """Who is kept out in the one place, or under the one key, is so in the other too."""
        if before in self.suspended and after not in self.suspended:
            self.suspended.append(after)

    def kill(self, devices: list[Device]) -> None:
        for device in devices:
            device.is_dead = True
            self.dead_keys.add(device.key)
        self.follow()

    def is_in_hours(self, peer: Peer) -> bool:
        clock = self.now.astimezone(ZoneInfo(peer.server.environment.zone))
        return any(HOURS[grant.hours](clock) for grant, _ in self.rights(peer.device.person, peer.server))

    def state(self, peer: Peer) -> str:
        if any(one in self.suspended for one in (Spot(peer.device, peer.server), peer.device, peer.device.person)):
            return "suspended"
        if peer.waits_for:
            return "waiting"
        return "in" if self.is_in_hours(peer) else "outside its hours"

    def snapshot(self) -> Snapshot:
        return {(peer.device.key, peer.server.pk): self.state(peer) for peer in self.live()}

    def terms(self, peer: Peer) -> tuple[list[str], dt.datetime | None]:
        """The widest of all rights: what the tunnel carries (nothing named is everything), and until when."""
        rights = list(self.rights(peer.device.person, peer.server))
        networks = [] if any(not grant.networks for grant, _ in rights) else [grant.networks for grant, _ in rights]
        ends = [until for _, until in rights]
        latest = None if None in ends else max(end for end in ends if end)
        return sorted({network for one in networks for network in one}), latest
