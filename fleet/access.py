"""Who may operate what. Services ask here before they change anything."""

from collections.abc import Callable, Collection

from django.core.exceptions import PermissionDenied, ValidationError

from audit.services import SYSTEM, Actor
from fleet.models import Environment, Role, User

OPERATES = frozenset({Role.Name.OPERATOR})
HELPS = frozenset({Role.Name.OPERATOR, Role.Name.HELPDESK})


def require_operator(actor: Actor, *environments: Environment, instead: str = "ask an administrator") -> None:
    """PermissionDenied unless `actor` may operate each of the environments (or any, where none is named). `instead`
    says what to do where one of them is hidden from the actor, and so is not named."""
    _require(actor, environments, OPERATES, "is not an operator", instead)


def require_helpdesk(actor: Actor, *environments: Environment, instead: str = "ask an administrator") -> None:
    """As `require_operator`, for what the helpdesk may too: to ask for access for somebody, and to take it away."""
    _require(actor, environments, HELPS, "is neither operator nor helpdesk", instead)


def _require(
    actor: Actor, environments: Collection[Environment], names: frozenset[Role.Name], lacking: str, instead: str
) -> None:
    if actor is SYSTEM:
        return
    if not isinstance(actor, User) or not actor.is_active:
        raise PermissionDenied("Sign in with an active user.")
    if actor.is_superuser:
        return
    roles = list(Role.objects.filter(user=actor, ended_at=None).values_list("name", "environment"))
    covers = {environment for name, environment in roles if name in names}
    if not environments and not covers:
        raise PermissionDenied(f"{actor} {lacking}.")
    missing = [environment for environment in environments if covers.isdisjoint({None, environment.pk})]
    if missing:
        sees = {environment for _, environment in roles}
        if any(sees.isdisjoint({None, environment.pk}) for environment in missing):
            raise PermissionDenied(f"This reaches beyond what {actor} covers: {instead}.")
        raise PermissionDenied(f"{actor} {lacking} of {', '.join(sorted(map(str, missing)))}.")


def may_operate(actor: Actor, *environments: Environment) -> bool:
    """Whether `require_operator` would let them."""
    return _would_pass(require_operator, actor, environments)


def may_help(actor: Actor, *environments: Environment) -> bool:
    """Whether `require_helpdesk` would let them."""
    return _would_pass(require_helpdesk, actor, environments)


def _would_pass(require: Callable[..., None], actor: Actor, environments: Collection[Environment]) -> bool:
    try:
        require(actor, *environments)
    except PermissionDenied:
        return False
    return True


def require_reason(reason: str, mend: str = "Say why: the ledger keeps it.") -> None:
    """ValidationError at the field where a person acts without saying why."""
    if not reason.strip():
        raise ValidationError({"reason": mend})


def require_admin(actor: Actor) -> None:
    """PermissionDenied unless `actor` is the Console itself or an active superuser."""
    if actor is SYSTEM or (isinstance(actor, User) and actor.is_active and actor.is_superuser):
        return
    raise PermissionDenied(f"{actor} is not an administrator.")
