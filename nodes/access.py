"""Who sees which held pushes."""

from django.db.models import Count, Q, QuerySet

from fleet.scope import scope_of
from nodes.models import Hold


def visible_holds(user: object) -> QuerySet[Hold]:
    """Those whose every server the user sees: to approve is to approve for all of them."""
    sees = scope_of(user).sees
    rows = Hold.objects.prefetch_related("pushes__server")
    if sees is None:
        return rows
    inside = Count("pushes", filter=Q(pushes__server__environment__in=sees))
    return rows.annotate(seen=inside).filter(seen__gt=0, seen=Count("pushes"))
