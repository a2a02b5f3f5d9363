"""Who sees which people, devices, grants, peers and revocations. Doors fetch guarded rows here and nowhere else.

Who is a person themselves sees their own grants, peers and requests, with a role or without."""

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from fleet.models import AddressRange, Environment, Pool, Server, User
from fleet.scope import scope_of, visible_environments, visible_servers
from peers.holders import with_holders
from peers.models import (
    AccessRequest,
    Device,
    Grant,
    Membership,
    Peer,
    Person,
    Receipt,
    Revocation,
    RoutedNetwork,
    StaticAddress,
    Suspension,
    Team,
    Tombstone,
)
from peers.rights import open_memberships
from peers.states import with_causes


def own_person(user: object) -> Person | None:
    """Who the user is, by the link that an administrator made; nobody once that person has left."""
    person = getattr(user, "person", None) if isinstance(user, User) and user.is_active else None
    return person if isinstance(person, Person) and person.left_at is None else None


def _selves(user: object) -> QuerySet[Person]:
    """The person that the user is, to filter by, or none."""
    if not isinstance(user, User) or not user.is_active:
        return Person.objects.none()
    return Person.objects.filter(user=user, left_at=None)


def visible_people(user: object) -> QuerySet[Person]:
    """All of them to anybody with a role: a person belongs to no environment."""
    return Person.objects.none() if scope_of(user).is_empty else Person.objects.select_related("user")


def visible_teams(user: object) -> QuerySet[Team]:
    """All of them to anybody with a role: a team belongs to no environment."""
    return Team.objects.none() if scope_of(user).is_empty else Team.objects.all()


def visible_memberships(user: object) -> QuerySet[Membership]:
    rows = Membership.objects.select_related("person", "team")
    return rows.none() if scope_of(user).is_empty else rows


def visible_suspensions(user: object) -> QuerySet[Suspension]:
    """Of people and devices all, to anybody with a role; of peers those on servers that the user sees."""
    rows = Suspension.objects.select_related("person", "device__person", "peer__device__person", "peer__server")
    rows = rows.select_related("origin")
    scope = scope_of(user)
    if scope.is_empty:
        return rows.none()
    return rows if scope.sees is None else rows.filter(Q(peer=None) | Q(peer__server__environment__in=scope.sees))


def visible_devices(user: object) -> QuerySet[Device]:
    rows = Device.objects.select_related("person", "replaces")
    return rows.none() if scope_of(user).is_empty else rows


def own_devices(user: object) -> QuerySet[Device]:
    """Those of the person whom this user signs in as, whatever roles they have."""
    rows = Device.objects.select_related("person", "replaces")
    return rows.filter(person__user=user, person__left_at=None) if isinstance(user, User) else rows.none()


def visible_grants(user: object) -> QuerySet[Grant]:
    """Their own are those of their teams too, as long as they are in them."""
    rows = Grant.objects.select_related("person", "team", "environment", "server__environment", "request")
    sees = scope_of(user).sees
    if sees is None:
        return rows
    teams = open_memberships(timezone.now()).filter(person__in=_selves(user)).values("team")
    own = Q(person__in=_selves(user)) | Q(team__in=teams)
    return rows.filter(Q(environment__in=sees) | Q(server__environment__in=sees) | own)


def visible_peers(user: object) -> QuerySet[Peer]:
    rows = Peer.objects.select_related("device__person", "server__environment", "server__status", "status")
    rows, sees = rows.select_related("ipv4", "ipv6"), scope_of(user).sees
    own = Q(device__in=Device.objects.filter(person__in=_selves(user)).values("pk"))
    return with_causes(rows if sees is None else rows.filter(Q(server__environment__in=sees) | own))


def visible_requests(user: object) -> QuerySet[AccessRequest]:
    rows = AccessRequest.objects.select_related("person__user", "environment", "server__environment", "grant")
    sees = scope_of(user).sees
    if sees is None:
        return rows
    return rows.filter(Q(environment__in=sees) | Q(server__environment__in=sees) | Q(person__in=_selves(user)))


def waiting_requests(user: object) -> QuerySet[AccessRequest]:
    """Those that this user may decide about now by an approval."""
    scope = scope_of(user)
    if not isinstance(user, User) or not scope.is_operator:
        return AccessRequest.objects.none()
    rows = AccessRequest.objects.filter(decided_at=None).exclude(asker=user).exclude(person__in=_selves(user))
    if scope.operates is not None:
        here = scope.operates
        rows = rows.filter(Q(environment__in=here) | Q(server__environment__in=here))
    needs_second = Q(environment__needs_second=True) | Q(server__environment__needs_second=True)
    return rows.exclude(needs_second, first_approver=user)


def askable_people(user: object) -> QuerySet[Person]:
    """Whom a request may name: whom the user sees by a role, and themselves. The service says who may ask."""
    return _selves(user) if scope_of(user).is_empty else visible_people(user)


def place_named(user: object, name: str) -> dict[str, Environment | Server]:
    """The environment or server of this name, as an argument of services. Whoever asks for themselves need not see it:
    they were told the name."""
    is_somebody = own_person(user) is not None
    environments = Environment.objects.all() if is_somebody else visible_environments(user)
    servers = Server.objects.select_related("environment") if is_somebody else visible_servers(user)
    if environment := environments.filter(name=name).first():
        return {"environment": environment}
    if server := servers.filter(name=name).first():
        return {"server": server}
    raise ValidationError({"place": f"There is no environment or server {name}: give its whole name."})


def visible_receipts(user: object) -> QuerySet[Receipt]:
    return scope_of(user).of(Receipt.objects.select_related("server__status"), "server__environment")


def visible_revocations(user: object) -> QuerySet[Revocation]:
    """Those with a receipt on a server that the user sees, and the user's own."""
    sees = scope_of(user).sees
    rows = Revocation.objects.select_related("person")
    if sees is None:
        return rows
    receipts = Receipt.objects.filter(revocation=OuterRef("pk"))
    is_own = Q(revoked_by=str(user)) & ~Exists(receipts)
    return rows.filter(Exists(receipts.filter(server__environment__in=sees)) | is_own)


def visible_ranges(user: object) -> QuerySet[AddressRange]:
    return scope_of(user).of(with_holders(AddressRange.objects.all()), "server__environment")


def visible_pools(user: object) -> QuerySet[Pool]:
    return scope_of(user).of(Pool.objects.select_related("server__environment"), "server__environment")


def visible_static_addresses(user: object) -> QuerySet[StaticAddress]:
    rows = StaticAddress.objects.select_related("device__person", "server__environment", "ipv4", "ipv6")
    return scope_of(user).of(rows, "server__environment")


def visible_routed_networks(user: object) -> QuerySet[RoutedNetwork]:
    rows = RoutedNetwork.objects.select_related("device__person", "server__environment", "range")
    return scope_of(user).of(rows, "server__environment")


def of_person(rows: QuerySet[Revocation], person: Person | int) -> QuerySet[Revocation]:
    """Revocations that killed a key of this person, also among those of others, or that were of them alone."""
    keys = Device.objects.filter(person=person).values("public_key")
    theirs = Tombstone.objects.filter(revocation=OuterRef("pk"), public_key__in=keys)
    return rows.filter(Q(person=person) | Exists(theirs))
