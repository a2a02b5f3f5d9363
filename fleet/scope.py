"""What a User sees, operates and helps with by the roles they have now. Doors fetch guarded rows through it."""

from dataclasses import dataclass
from typing import TypeVar

from django.db.models import Model, QuerySet

from fleet.access import HELPS, OPERATES
from fleet.models import Bastion, Environment, Role, Server, User

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True)
class Scope:
    """`sees`, `operates` and `helps` hold ids of Environments; None stands for every one. Operators help too."""

    is_admin: bool = False
    sees: frozenset[int] | None = frozenset()
    operates: frozenset[int] | None = frozenset()
    helps: frozenset[int] | None = frozenset()

    @property
    def is_empty(self) -> bool:
        return self.sees == frozenset()

    @property
    def is_operator(self) -> bool:
        return self.operates != frozenset()

    @property
    def is_helper(self) -> bool:
        return self.helps != frozenset()

    def of(self, rows: QuerySet[Row], path: str = "environment") -> QuerySet[Row]:
        """The rows whose environment, found by the lookup `path`, is seen."""
        return rows if self.sees is None else rows.filter(**{f"{path}__in": self.sees})


def scope_of(user: object) -> Scope:
    if not isinstance(user, User) or not user.is_active:
        return Scope()
    if user.is_superuser:
        return Scope(is_admin=True, sees=None, operates=None, helps=None)
    sees, operates, helps = (
        _ids([environment for name, environment in user.open_roles if name in names])
        for names in (frozenset(Role.Name), OPERATES, HELPS)
    )
    return Scope(sees=sees, operates=operates, helps=helps)


def _ids(environments: list[int | None]) -> frozenset[int] | None:
    named = frozenset(environment for environment in environments if environment is not None)
    return None if len(named) < len(set(environments)) else named


def visible_environments(user: object) -> QuerySet[Environment]:
    return scope_of(user).of(Environment.objects.all(), "pk")


def visible_servers(user: object) -> QuerySet[Server]:
    return scope_of(user).of(Server.objects.select_related("environment", "bastion", "status"))


def visible_bastions(user: object) -> QuerySet[Bastion]:
    """All of them to anybody with a role: a bastion belongs to no environment."""
    return Bastion.objects.none() if scope_of(user).is_empty else Bastion.objects.all()
