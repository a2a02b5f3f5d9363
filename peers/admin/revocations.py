"""The pages of revocations: where each key is proven to be gone, what is waited for, and what cannot be."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from fleet.admin import ConsoleAdmin
from fleet.conditions import Type, read
from fleet.models import Server
from fleet.scope import visible_servers
from peers.access import of_person, visible_receipts, visible_revocations
from peers.models import Device, Peer, Person, Receipt, Revocation

LOOKED_AT = (
    "The Console only looks at this server and changes nothing there: revoke at the box what may be there by hand."
)


@admin.register(Revocation)
class RevocationAdmin(ConsoleAdmin):
    is_added = is_changed = False
    list_display = ("label", "created_at", "revoked_by", "reason", "state")
    search_fields = ("label", "reason", "tombstones__public_key")
    fields = ("label", "reason", "revoked_by", "created_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Revocation]:
        return with_counts(visible_revocations(request.user))

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        rows = [receipt_row(receipt) for receipt in visible_receipts(request.user).filter(revocation=obj)]
        add_expiries(rows)
        counts = {"waiting": obj.waiting, "every": obj.every, "never": obj.never}
        return {"receipts": rows, "not_asked": not_asked(request.user, obj), **counts}

    @display(label={"pending": "danger", "confirmed": "success"})
    def state(self, row: Any) -> tuple[str, str]:
        if row.waiting:
            return "pending", f"pending on {row.waiting} of {row.every}"
        return "confirmed", f"confirmed on {row.every}" if row.every else "nothing to confirm"


def revocations_of(request: HttpRequest, person: Person) -> QuerySet[Revocation]:
    return with_counts(of_person(visible_revocations(request.user), person))


def with_counts(rows: QuerySet[Revocation]) -> QuerySet[Revocation]:
    """How many receipts are waited for, of how many; and how many servers had nothing to prove."""
    needed = Q(receipts__is_needless=False)
    return rows.annotate(
        waiting=Count("receipts", filter=needed & Q(receipts__confirmed_at=None), distinct=True),
        every=Count("receipts", filter=needed, distinct=True),
        never=Count("receipts", filter=Q(receipts__is_needless=True), distinct=True),
    )


def not_asked(user: object, row: Revocation) -> QuerySet[Server]:
    """Where a key that no device has may be by hand, and the Console takes nothing out."""
    found = visible_servers(user).filter(is_observe_only=True).exclude(enrolled_at=None)
    is_unknown = row.tombstones.exclude(public_key__in=Device.objects.values("public_key")).exists()
    return found.exclude(receipts__revocation=row) if is_unknown else found.none()


def receipt_row(receipt: Receipt) -> dict[str, Any]:
    """A receipt and, while it is pending, why: what the server said last."""
    if receipt.server.is_observe_only and not receipt.confirmed_at:
        return {"receipt": receipt, "why": LOOKED_AT, "expires_at": None}
    reachable = read(receipt.server.status.conditions, Type.REACHABLE)
    why = f"Found in {', '.join(map(str, receipt.found))}." if receipt.found else ""
    if not why and reachable and not reachable.status:
        why = reachable.message
    return {"receipt": receipt, "why": why or "Not answered yet.", "expires_at": None}


def add_expiries(rows: list[dict[str, Any]]) -> None:
    """When access ends by itself where it is not proven gone yet, in one query."""
    waiting = [row["receipt"] for row in rows if row["receipt"].state == "pending"]
    found = Peer.objects.filter(
        server__in={receipt.server_id for receipt in waiting},
        device__public_key__in={receipt.public_key for receipt in waiting},
    ).order_by("issued_at")
    ends = {(server, key): end for server, key, end in found.values_list("server", "device__public_key", "expires_at")}
    for row in rows:
        row["expires_at"] = ends.get((row["receipt"].server_id, row["receipt"].public_key))
