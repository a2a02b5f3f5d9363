"""Who sees which people, devices, grants, peers and revocations. Doors fetch guarded rows here and nowhere else."""

from django.db.models import Exists, OuterRef, Q, QuerySet

from fleet.scope import scope_of
from peers.models import Device, Grant, Peer, Person, Receipt, Revocation, Team


def visible_people(user: object) -> QuerySet[Person]:
    """All of them to anybody with a role: a person belongs to no environment."""
    return Person.objects.none() if scope_of(user).is_empty else Person.objects.all()


def visible_teams(user: object) -> QuerySet[Team]:
    """All of them to anybody with a role: a team belongs to no environment."""
    return Team.objects.none() if scope_of(user).is_empty else Team.objects.all()


def visible_devices(user: object) -> QuerySet[Device]:
    rows = Device.objects.select_related("person", "replaces")
    return rows.none() if scope_of(user).is_empty else rows


def visible_grants(user: object) -> QuerySet[Grant]:
    rows = Grant.objects.select_related("person", "team", "environment", "server__environment")
    sees = scope_of(user).sees
    return rows if sees is None else rows.filter(Q(environment__in=sees) | Q(server__environment__in=sees))


def visible_peers(user: object) -> QuerySet[Peer]:
    rows = Peer.objects.select_related("device__person", "server__environment", "server__status", "status")
    return scope_of(user).of(rows.select_related("ipv4", "ipv6"), "server__environment")


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
