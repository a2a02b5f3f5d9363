"""The write path for named pools: parts of a server's pools that only those get addresses from whose grant says so."""

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.addresses import open_pools
from fleet.changes import lock_servers
from fleet.fields import parse_network
from fleet.models import Pool, Server
from fleet.pools import Network, holds


def add_pool(*, actor: Actor, server: Server, name: str, ipv4: str = "", ipv6: str = "") -> Pool:
    """Whoever has an address in it already keeps it; from now on it is given to nobody without such a grant."""
    require_operator(actor, server.environment)
    pool = Pool(server=server, name=name, ipv4=ipv4, ipv6=ipv6)
    with act(Verb.POOL_ADD, actor=actor) as this:
        pool.clean_fields()
        if not (ipv4 or ipv6):
            raise ValidationError({"ipv4": "Give a part of the server's IPv4 pool, of its IPv6 pool, or of both."})
        pool.server = lock_servers([server.pk])[0]
        others = open_pools([server.pk])[server.pk]
        if name in {other.name for other in others}:
            message = ValidationError(f"{server} has a pool of this name already: choose another.", code="taken")
            raise ValidationError({"name": message})
        for family, whole in (("ipv4", pool.server.pool4), ("ipv6", pool.server.pool6)):
            if text := getattr(pool, family):
                _check(family, text, whole, others)
        pool.save(force_insert=True)
        this.on(pool, environment=server.environment.name)
    return pool


def _check(family: str, text: str, whole: Network, others: list[Pool]) -> None:
    try:
        part = parse_network(text)
    except ValidationError as error:
        raise ValidationError({family: error.messages}) from None
    if not holds(whole, part):
        raise ValidationError({family: f"Give a part of the server's pool {whole}, not {part}."})
    for other in others:
        there = other.network(family)
        if there and (holds(there, part) or holds(part, there)):
            raise ValidationError({family: ValidationError(f"It overlaps the pool {other.name}, {there}.")})


def end_pool(*, actor: Actor, pool: Pool, reason: str) -> Pool:
    """Everybody keeps their addresses; what is free of it is given to anybody again."""
    require_operator(actor, pool.server.environment)
    require_reason(reason, "Say why this pool ends.")
    with act(Verb.POOL_END, actor=actor, reason=reason) as this:
        lock_servers([pool.server_id])
        pool.ended_at = timezone.now()
        if not Pool.objects.filter(pk=pool.pk, ended_at=None).update(ended_at=pool.ended_at):
            raise ValidationError("This pool has ended already: look again.", code="taken")
        this.on(pool, changes={"ended_at": ["", str(pool.ended_at)]}, environment=pool.server.environment.name)
    return pool
