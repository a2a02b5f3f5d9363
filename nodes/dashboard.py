"""The first page: what needs a person now, and how every server is."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest

from audit.models import Event
from audit.verbs import Verb
from fleet.admin import state_of
from fleet.conditions import Condition, Type, read
from fleet.models import Server
from fleet.scope import scope_of, visible_servers
from nodes import access
from nodes.reviews import OPEN
from peers.access import own_devices, own_person, visible_peers, visible_receipts, waiting_requests
from peers.admin.ends import ends_of, idle_count
from peers.models import PENDING


def show(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's hook: adds to the context of the first page."""
    user = request.user
    live = Count("peers", filter=Q(peers__ended_at=None))
    servers, has_role = list(visible_servers(user).annotate(held=live)), not scope_of(user).is_empty
    context.update(
        {
            "has_role": has_role,
            "is_linked": has_role or own_person(user) is not None,
            "servers": [{"server": server, "state": state_of(server)} for server in servers],
            "unreachable": [(server, found) for server in servers if (found := failing(server, Type.REACHABLE))],
            "broken": [(server, found) for server in servers if (found := failing(server, Type.INTACT))],
            "refusing": [(server, found) for server in servers if (found := refusing(server))],
            "strangers": strangers(servers),
            "pending": visible_receipts(user).filter(PENDING).select_related("server", "revocation")[:50],
            "holds": access.waiting_holds(user),
            "reviews": access.visible_reviews(user).filter(OPEN)[:50],
            "ends": ends_of(visible_peers(user)),
            "idle": idle_count(visible_peers(user)),
            "asked": waiting_requests(user).select_related("person", "environment", "server")[:50],
            "unexplained": Event.objects.filter(verb="")[:10] if scope_of(user).sees is None else [],
        }
    )
    return context


def failing(server: Server, type: Type) -> Condition | None:
    found = read(server.status.conditions, type)
    return found if found and not found.status else None


def refusing(server: Server) -> Condition | None:
    """Why this server is not as desired, where neither a repair nor an approval will make it so."""
    found = failing(server, Type.IN_SYNC)
    return found if found and found.reason not in {"Drifted", "Held"} else None


def strangers(servers: Sequence[Server]) -> list[tuple[Server, Event]]:
    """Servers where another machine answered, until a login with the pinned key works again; whatever failed since."""
    since = {str(server.pk): (server, found.since) for server in servers if (found := failing(server, Type.REACHABLE))}
    seen = Event.objects.filter(verb=Verb.IDENTITY_CHANGED, object_pk__in=list(since)).order_by("pk")
    latest = {event.object_pk: event for event in seen}
    return [(server, latest[pk]) for pk, (server, at) in since.items() if pk in latest and latest[pk].timestamp >= at]


def waiting_holds(request: HttpRequest) -> int | str:
    """The badge beside Held pushes; empty where none waits."""
    return access.waiting_holds(request.user).count() or ""


def waiting_reviews(request: HttpRequest) -> int | str:
    """The badge beside Review items."""
    return access.visible_reviews(request.user).filter(OPEN).count() or ""


def may_look(request: HttpRequest) -> bool:
    return not scope_of(request.user).is_empty


def may_see_own(request: HttpRequest) -> bool:
    return own_devices(request.user).exists()


def may_administer(request: HttpRequest) -> bool:
    return scope_of(request.user).is_admin
