"""Who sees which held pushes and review items."""

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from fleet.scope import scope_of
from nodes.models import HeldPush, Hold, ReviewItem


def visible_holds(user: object) -> QuerySet[Hold]:
    """Those whose every server the user sees: to approve is to approve for all of them."""
    sees = scope_of(user).sees
    rows = Hold.objects.prefetch_related("pushes__server")
    if sees is None:
        return rows
    inside = Count("pushes", filter=Q(pushes__server__environment__in=sees))
    return rows.annotate(seen=inside).filter(seen__gt=0, seen=Count("pushes"))


def waiting_holds(user: object) -> QuerySet[Hold]:
    """Those that keep somebody in just now."""
    return visible_holds(user).filter(Exists(HeldPush.objects.filter(hold=OuterRef("pk"))), approved_at=None)


def visible_reviews(user: object) -> QuerySet[ReviewItem]:
    rows = ReviewItem.objects.select_related("server__environment", "peer__server", "peer__device__person")
    return scope_of(user).of(rows, "server__environment")
