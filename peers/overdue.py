"""The alarm about revocations that a server has not proven in time."""

import datetime as dt
from collections import defaultdict

from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from peers.models import Receipt, Revocation

LATE = dt.timedelta(minutes=5)


def tell_overdue() -> dict[Revocation, list[Receipt]]:
    """Once for each receipt that is late: one Event a revocation, however many servers it waits for."""
    now = timezone.now()
    late = Receipt.objects.filter(confirmed_at=None, overdue_at=None, created_at__lte=now - LATE)
    found: defaultdict[Revocation, list[Receipt]] = defaultdict(list)
    for receipt in late.select_related("server__environment", "revocation"):
        found[receipt.revocation].append(receipt)
    for revocation, receipts in found.items():
        with act(Verb.REVOKE_OVERDUE, actor=SYSTEM, reason="not proven within 5 minutes") as this:
            Receipt.objects.filter(pk__in=[one.pk for one in receipts], confirmed_at=None).update(overdue_at=now)
            changes = {one.server.name: ["", f"pending since {one.created_at:%Y-%m-%d %H:%M} UTC"] for one in receipts}
            environments = {one.server.environment.name for one in receipts}
            this.on(revocation, changes=changes, environment=environments.pop() if len(environments) == 1 else "")
    return dict(found)
