"""Who may operate what. Services ask here before they change anything."""

from django.core.exceptions import PermissionDenied
from django.db.models import Q

from audit.services import SYSTEM, Actor
from fleet.models import Environment, Role, User


def require_operator(actor: Actor, *environments: Environment) -> None:
    """PermissionDenied unless `actor` may operate each of the environments (or any, where none is named)."""
    if actor is SYSTEM:
        return
    if not isinstance(actor, User) or not actor.is_active:
        raise PermissionDenied("Sign in with an active user.")
    if actor.is_superuser:
        return
    roles = Role.objects.filter(user=actor, name=Role.Name.OPERATOR, ended_at=None)
    if not environments and not roles.exists():
        raise PermissionDenied(f"{actor} is not an operator.")
    for environment in environments:
        if not roles.filter(Q(environment=None) | Q(environment=environment)).exists():
            raise PermissionDenied(f"{actor} is not an operator of {environment}.")


def require_admin(actor: Actor) -> None:
    """PermissionDenied unless `actor` is the Console itself or an active superuser."""
    if actor is SYSTEM or (isinstance(actor, User) and actor.is_active and actor.is_superuser):
        return
    raise PermissionDenied(f"{actor} is not an administrator.")
