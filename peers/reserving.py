"""The write path for reservations: addresses of a server's pools that no peer gets."""

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.changes import lock_servers
from fleet.models import AddressRange, Server
from fleet.pools import BadRange, meet, parse_range, span_of
from peers.holders import refuse_taken


def reserve_addresses(*, actor: Actor, server: Server, addresses: str, reason: str) -> AddressRange:
    """One address, a network or first-last, of either family. ValidationError names what is in the way."""
    require_operator(actor, server.environment)
    try:
        span = parse_range(addresses)
    except BadRange as error:
        raise ValidationError({"addresses": str(error)}) from None
    first, last = (f"{number:032x}" for number in span)
    row = AddressRange(server=server, first=first, last=last, kind=AddressRange.Kind.RESERVED, reason=reason)
    row.taken_by = str(actor)
    with act(Verb.ADDRESS_RESERVE, actor=actor, reason=reason) as this:
        require_reason(reason, "Say what these addresses are kept for.")
        row.clean_fields()
        row.server = lock_servers([server.pk])[0]
        pools = row.server.pool4, row.server.pool6
        if all(meet(span, span_of(pool)) != span for pool in pools):
            raise ValidationError({"addresses": f"Give addresses of the server's pools: {pools[0]} and {pools[1]}."})
        refuse_taken(row.server, span, "addresses")
        row.save(force_insert=True)
        changes = {"reserved": ["", reason]}
        this.on(row, changes=changes, environment=server.environment.name, label=f"{row} on {server}")
    return row


def release_addresses(*, actor: Actor, reservation: AddressRange, reason: str) -> AddressRange:
    """Peers may have them at once: nobody did, so there is nothing to rest from."""
    require_operator(actor, reservation.server.environment)
    if reservation.kind != AddressRange.Kind.RESERVED:
        raise ValidationError(f"{reservation} is no reservation: it ends with what has it.")
    require_reason(reason, "Say why these addresses are kept no more.")
    with act(Verb.ADDRESS_RELEASE, actor=actor, reason=reason) as this:
        lock_servers([reservation.server_id])
        now = timezone.now()
        open_rows = AddressRange.objects.filter(pk=reservation.pk, released_at=None)
        if not open_rows.update(freed_at=now, released_at=now):
            raise ValidationError("This reservation has ended already: look again.", code="taken")
        reservation.freed_at = reservation.released_at = now
        changes = {"reserved": [reservation.reason, ""]}
        server = reservation.server
        this.on(reservation, changes=changes, environment=server.environment.name, label=f"{reservation} on {server}")
    return reservation
