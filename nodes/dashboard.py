"""The first page: what needs a person now, and how every server is."""

from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest

from audit.models import Event
from fleet.admin import state_of
from fleet.conditions import Condition, Type, read
from fleet.models import Server
from fleet.scope import scope_of, visible_servers
from nodes.access import visible_holds, visible_reviews
from nodes.reviews import OPEN
from peers.access import visible_receipts


def show(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's hook: adds to the context of the first page."""
    user = request.user
    live = Count("peers", filter=Q(peers__ended_at=None))
    servers = list(visible_servers(user).annotate(held=live))
    context.update(
        {
            "servers": [{"server": server, "state": state_of(server)} for server in servers],
            "unreachable": [(server, found) for server in servers if (found := failing(server, Type.REACHABLE))],
            "broken": [(server, found) for server in servers if (found := failing(server, Type.INTACT))],
            "pending": visible_receipts(user).filter(confirmed_at=None).select_related("server", "revocation")[:50],
            "holds": visible_holds(user).filter(approved_at=None),
            "reviews": visible_reviews(user).filter(OPEN)[:50],
            "unexplained": Event.objects.filter(verb="")[:10] if scope_of(user).sees is None else [],
        }
    )
    return context


def failing(server: Server, type: Type) -> Condition | None:
    found = read(server.status.conditions, type)
    return found if found and not found.status else None


def waiting_holds(request: HttpRequest) -> int | str:
    """The badge beside Held pushes; empty where none waits."""
    return visible_holds(request.user).filter(approved_at=None).count() or ""


def waiting_reviews(request: HttpRequest) -> int | str:
    """The badge beside Review items."""
    return visible_reviews(request.user).filter(OPEN).count() or ""


def may_look(request: HttpRequest) -> bool:
    return not scope_of(request.user).is_empty


def may_administer(request: HttpRequest) -> bool:
    return scope_of(request.user).is_admin
