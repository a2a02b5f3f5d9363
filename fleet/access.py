"""Who may operate what. Services ask here before they change anything."""

from django.core.exceptions import PermissionDenied

from audit.services import SYSTEM, Actor
from fleet.models import Environment, Role, User


def require_operator(actor: Actor, *environments: Environment, instead: str = "ask an administrator") -> None:
    """PermissionDenied unless `actor` may operate each of the environments (or any, where none is named). `instead`
    says what to do where one of them is hidden from the actor, and so is not named."""
    if actor is SYSTEM:
        return
    if not isinstance(actor, User) or not actor.is_active:
        raise PermissionDenied("Sign in with an active user.")
    if actor.is_superuser:
        return
    roles = list(Role.objects.filter(user=actor, ended_at=None).values_list("name", "environment"))
    operates = {environment for name, environment in roles if name == Role.Name.OPERATOR}
    if not environments and not operates:
        raise PermissionDenied(f"{actor} is not an operator.")
    missing = [environment for environment in environments if operates.isdisjoint({None, environment.pk})]
    if missing:
        sees = {environment for _, environment in roles}
        if any(sees.isdisjoint({None, environment.pk}) for environment in missing):
            raise PermissionDenied(f"This reaches beyond what {actor} operates: {instead}.")
        raise PermissionDenied(f"{actor} is not an operator of {', '.join(sorted(map(str, missing)))}.")


def may_operate(actor: Actor, *environments: Environment) -> bool:
    """Whether `require_operator` would let them."""
    try:
        require_operator(actor, *environments)
    except PermissionDenied:
        return False
    return True


def require_admin(actor: Actor) -> None:
    """PermissionDenied unless `actor` is the Console itself or an active superuser."""
    if actor is SYSTEM or (isinstance(actor, User) and actor.is_active and actor.is_superuser):
        return
    raise PermissionDenied(f"{actor} is not an administrator.")
