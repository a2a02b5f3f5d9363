"""What pages show of ends that are near and of peers that nothing was heard of."""

import datetime as dt
from typing import Any

from django.contrib import admin
from django.db.models import F, Prefetch, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from fleet.post import can_mail
from peers.expiry import ends_soon, said
from peers.idle import is_idle
from peers.models import ExpiryWarning, Peer

MOST_SHOWN = 50


class EndsWithin(admin.SimpleListFilter):
    """Live peers that end by themselves within so many days."""

    title, parameter_name = "ends within", "ends_within"
    days = {"1": "a day", "7": "a week", "30": "30 days"}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.days.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Peer]) -> QuerySet[Peer]:
        if self.value() not in self.days:
            return queryset
        now = timezone.now()
        return queryset.filter(
            ended_at=None, expires_at__gt=now, expires_at__lte=now + dt.timedelta(int(self.value() or 0))
        )


class Idle(admin.SimpleListFilter):
    title = parameter_name = "idle"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "yes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Peer]) -> QuerySet[Peer]:
        return queryset.filter(is_idle(timezone.now())) if self.value() == "yes" else queryset


def ends_of(peers: QuerySet[Peer]) -> list[dict[str, Any]]:
    """Of these, the ones that end soon: when, and how their person was told."""
    told = Prefetch("warnings", ExpiryWarning.objects.filter(expires_at=F("peer__expires_at")), to_attr="told")
    near = peers.filter(ends_soon(timezone.now())).order_by("expires_at", "server__name").prefetch_related(told)
    return [{"peer": peer, "ends": _end(peer), "told": _told(peer)} for peer in near[:MOST_SHOWN]]


def _end(peer: Peer) -> str:
    assert peer.expires_at is not None  # it ends soon
    return said(peer.expires_at, peer.server.environment.time_zone)


def _told(peer: Any) -> str:
    """Of a mail that went out or was tried, else why there is none."""
    if not peer.told:
        return "about to be"
    warning = peer.told[0]
    if warning.mailed_to or warning.trouble:
        return str(warning.told)
    if not can_mail():
        return "here alone: no mail is set up"
    return str(warning.told) if peer.device.person.email else "no e-mail address"


def idle_count(peers: QuerySet[Peer]) -> int:
    return peers.filter(is_idle(timezone.now())).count()
