"""The alarm about revocations that a server has not proven in time: an Event, and one mail to administrators."""

import datetime as dt
from collections import defaultdict

from django.conf import settings
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from fleet.models import User
from fleet.post import MaybeSent, Post, can_mail
from peers.models import PENDING, Receipt, Revocation

LATE = dt.timedelta(minutes=5)


def tell_overdue() -> dict[Revocation, list[Receipt]]:
    """Once for each receipt that is late: one Event a revocation, however many servers it waits for."""
    now = timezone.now()
    late = Receipt.objects.filter(PENDING, overdue_at=None, created_at__lte=now - LATE)
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


def mail_overdue() -> int:
    """One mail to each administrator, of all that is late and was not mailed yet. How many were sent. What no mail
    server takes waits for the next sweep; what one may have taken is not sent again."""
    people = User.objects.filter(is_superuser=True, is_active=True).exclude(email="").values_list("email", flat=True)
    if not can_mail() or not people:
        return 0
    late = Receipt.objects.filter(PENDING, overdue_at__isnull=False, mailed_at=None)
    with transaction.atomic():
        found = list(late.select_for_update(of=("self",)).select_related("server", "revocation").order_by("pk"))
        # Before the claim: one that cannot be written is claimed by nobody.
        body = render_to_string("mail/overdue.txt", {"receipts": found, "url": settings.CONSOLE_URL})
        rows = Receipt.objects.filter(pk__in=[one.pk for one in found])
        rows.update(mailed_at=timezone.now())
    return _send(list(people), found, body) if found else 0


def _send(people: list[str], late: list[Receipt], body: str) -> int:
    servers = {one.server_id for one in late}
    subject = f"A revocation is pending on {len(servers)} server{'' if len(servers) == 1 else 's'} for over 5 minutes"
    sent = 0
    try:
        with Post() as post:
            for address in people:
                post.send(to=address, subject=subject, body=body)
                sent += 1
    except MaybeSent:
        return sent + 1
    except (OSError, ValueError):
        if not sent:
            Receipt.objects.filter(pk__in=[one.pk for one in late]).update(mailed_at=None)
    return sent
