"""Marks the peers that servers were seen to let in, which from now on each confirmed push does."""

import datetime as dt

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F, OuterRef, Q, Subquery


def mark_let_in(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    """All that stand on a server in step; on another one those that were issued before its last push went through. It
    counts from when they were issued, as it did for who is idle. The rest is marked by the next push."""
    Server, Run = apps.get_model("fleet", "Server"), apps.get_model("nodes", "Run")
    Peer, PeerStatus = apps.get_model("peers", "Peer"), apps.get_model("peers", "PeerStatus")
    issued_at = Subquery(Peer.objects.filter(pk=OuterRef("peer")).values("issued_at")[:1])
    there = PeerStatus.objects.filter(let_in_at=None, shut_at=None, peer__gone_at=None, peer__waits_for=None)
    in_step = Q(epoch=F("status__confirmed_epoch"), generation=F("status__confirmed_generation"))
    reached = set(Server.objects.filter(in_step).values_list("pk", flat=True))
    there.filter(peer__server__in=reached).update(let_in_at=issued_at)
    for server in Server.objects.exclude(pk__in=reached).filter(status__confirmed_generation__gt=0):
        run = Run.objects.filter(server=server, outcome__in=["applied", "already"]).order_by("-id").first()
        if run is not None:
            began_at = run.started_at - dt.timedelta(seconds=run.seconds)  # it is written down at its end
            there.filter(peer__server=server, peer__issued_at__lt=began_at).update(let_in_at=issued_at)


class Migration(migrations.Migration):
    dependencies = [
        ("fleet", "0007_plain_words"),
        ("nodes", "0002_review_items"),
        ("peers", "0011_let_in"),
    ]

    operations = [migrations.RunPython(mark_let_in, migrations.RunPython.noop)]
