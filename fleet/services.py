"""The write path for environments, servers, bastions and their operators."""

import copy
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit.services import Act, Actor, act
from audit.verbs import Verb
from fleet import addresses, fields
from fleet.access import require_admin, require_operator, require_reason
from fleet.changes import SETTLE, hint, lock_servers, mark_changed
from fleet.models import Bastion, Environment, Placement, Role, Server, ServerStatus, User

Row = TypeVar("Row", Environment, Server, Role)

# What a running interface has from these is set when it is enrolled; a change here alone would be a lie.
FIXED_ONCE_ENROLLED = {"interface", "listen_port", "mtu", "forward"}
CHANGEABLE = {
    *("host", "ssh_port", "ssh_user", "bastion", "endpoint_host", "dns", "is_observe_only"),
    *("ipv4_pool", "ipv6_pool"),  # widened alone, once it is enrolled
    *FIXED_ONCE_ENROLLED,
}


def add_environment(*, actor: Actor, name: str, **values: Any) -> Environment:
    """`values`: other fields of Environment."""
    require_admin(actor)
    environment = Environment(name=name, **{field: value for field, value in values.items() if value is not None})
    with act(Verb.ENVIRONMENT_ADD, actor=actor) as this:
        environment.full_clean()
        _check_times(environment)
        environment.save(force_insert=True)
        this.on(environment, environment=environment.name)
    return environment


def change_environment(*, actor: Actor, environment: Environment, reason: str = "", **values: Any) -> Environment:
    """`values`: any field but the name. Where the time zone is another, hours mean other times: peers follow."""
    require_admin(actor)
    zone = environment.time_zone
    with transaction.atomic():
        changed = _change(Verb.ENVIRONMENT_CHANGE, actor, environment, reason, values, environment.name)
        _check_times(changed)
        if changed.time_zone != zone:
            Placement.objects.filter(environment=environment, ended_at=None).update(settled_at=None)
            hint(SETTLE, environment.servers.values_list("pk", flat=True))
    return changed


def _check_times(environment: Environment) -> None:
    """Of a row that may be half wrong: each message stands at its field."""
    wrong = {}
    for name, check in (("warn_before", fields.valid_warning), ("idle_after", fields.valid_idle)):
        value = getattr(environment, name)
        try:
            check(value) if value is not None else None
        except ValidationError as error:
            wrong[name] = error
    if environment.suspends_idle and environment.idle_after is None:
        wrong["suspends_idle"] = ValidationError("Say first after how long a peer counts as idle.")
    if wrong:
        raise ValidationError(wrong)


def add_bastion(*, actor: Actor, **values: Any) -> Bastion:
    """`values`: name, host, ssh_port, ssh_user, host_key (as the operator confirmed it)."""
    require_admin(actor)
    bastion = Bastion(**values)
    with act(Verb.BASTION_ADD, actor=actor) as this:
        bastion.full_clean()
        bastion.save(force_insert=True)
        this.on(bastion)
    return bastion


def add_server(*, actor: Actor, environment: Environment, **values: Any) -> Server:
    """A Server as the Console wants it; `enrol` makes it so on the machine. `values` are fields of Server."""
    require_operator(actor, environment)
    server = Server(environment=environment, **values)
    with act(Verb.SERVER_ADD, actor=actor) as this:
        server.full_clean(exclude=["ipv4_address", "ipv6_address"])
        addresses.name_gateways(server)
        server.save(force_insert=True)
        Placement.objects.create(server=server, environment=environment)
        ServerStatus.objects.create(server=server)
        addresses.take_gateway(server)
        this.on(server, environment=environment.name)
        hint(SETTLE, [server.pk])
    return server


def change_server(*, actor: Actor, server: Server, reason: str = "", **values: Any) -> Server:
    """Change fields of CHANGEABLE; ValidationError for one that an enrolled interface cannot take while it runs."""
    require_operator(actor, server.environment)
    unknown = set(values) - CHANGEABLE
    if unknown:
        raise ValidationError(dict.fromkeys(unknown, "This cannot be changed here."))
    fixed = {name for name in FIXED_ONCE_ENROLLED & set(values) if values[name] != getattr(server, name)}
    if server.enrolled_at and fixed:
        message = "This stays as it was enrolled: for another value add a new server with an interface of its own."
        raise ValidationError(dict.fromkeys(fixed, message))
    return _change(Verb.SERVER_CHANGE, actor, server, reason, values, server.environment.name)


def add_user(*, actor: Actor, username: str, email: str, password: str | None, is_superuser: bool) -> User:
    require_admin(actor)
    user = User(username=username, email=email, is_staff=True, is_superuser=is_superuser)
    user.set_password(password)
    with act(Verb.USER_ADD, actor=actor) as this:
        user.full_clean(exclude=["password"])
        user.save(force_insert=True)
        this.on(user)
    return user


def disable_user(*, actor: Actor, user: User, reason: str) -> User:
    """They are refused at once, whatever session or token they hold. Roles and tokens stay, but open nothing.

    An operator may shut out who has no role, as when somebody leaves."""
    if user.is_superuser or user.roles.filter(ended_at=None).exists():
        require_admin(actor)
    else:
        require_operator(actor)
    if user.pk == actor.pk:
        raise ValidationError("Nobody disables themselves: ask another administrator.")
    with act(Verb.USER_DISABLE, actor=actor, reason=reason) as this:
        # Locked in one order by all, so that of two administrators who disable each other one stays.
        admins = User.objects.select_for_update().filter(is_superuser=True, is_active=True).order_by("pk")
        if [admin.pk for admin in admins] == [user.pk]:
            raise ValidationError(f"{user} is the last active administrator: add or enable another one first.")
        return _set_active(this, user, is_active=False)


def enable_user(*, actor: Actor, user: User, reason: str) -> User:
    """They sign in again, with the sessions, roles and tokens that they still have."""
    require_admin(actor)
    with act(Verb.USER_ENABLE, actor=actor, reason=reason) as this:
        return _set_active(this, user, is_active=True)


def _set_active(this: Act, user: User, *, is_active: bool) -> User:
    require_reason(this.reason, "Say why.")
    if not User.objects.filter(pk=user.pk, is_active=not is_active).update(is_active=is_active):
        raise ValidationError(f"{user} is {'enabled' if is_active else 'disabled'} already.", code="taken")
    user.is_active = is_active
    this.on(user, changes={"is_active": [str(not is_active), str(is_active)]})
    return user


def give_role(*, actor: Actor, user: User, name: str, environment: Environment | None) -> Role:
    require_admin(actor)
    role = Role(user=user, name=name, environment=environment)
    with act(Verb.ROLE_GIVE, actor=actor) as this:
        role.full_clean()
        role.save(force_insert=True)
        this.on(role, environment=environment.name if environment else "")
    return role


def end_role(*, actor: Actor, role: Role) -> Role:
    require_admin(actor)
    label = role.environment.name if role.environment else ""
    return _change(Verb.ROLE_END, actor, role, "", {"ended_at": timezone.now()}, label)


def _change(verb: Verb, actor: Actor, row: Row, reason: str, values: dict[str, Any], environment: str) -> Row:
    before = copy.copy(row)
    with act(verb, actor=actor, reason=reason) as this:
        locked: list[Server] = lock_servers([row.pk]) if isinstance(row, Server) else []
        for name, value in values.items():
            setattr(row, name, value)
        row.full_clean()
        row.save(update_fields=list(values))
        this.on(row, before=before, environment=environment)
        if isinstance(row, Server):
            addresses.follow_pools(locked[0], row)
            mark_changed([row.pk])
    return row
