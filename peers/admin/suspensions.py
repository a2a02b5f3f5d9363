"""The pages of who is kept out; and the two buttons, wherever somebody may be kept out."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.db.models import F, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action, display

from fleet.admin import ConsoleAdmin, one, page_of
from fleet.questions import ask
from peers.access import visible_suspensions
from peers.models import Suspension
from peers.states import DORMANT, suspension_state
from peers.suspending import Target, resume, suspend

KEPT = "Keys, addresses and grants stay. Nobody passes until you resume, once each server has confirmed it."


class SuspendingPages(ConsoleAdmin):
    """Of people, devices or peers: "Suspend" and "Resume" on their pages, and "Suspend selected" on their list."""

    def idle_of(self, row: Any, *, is_over: bool) -> set[str]:
        if is_over:
            return {"suspend", "resume"}
        return {"suspend"} if row.suspensions.filter(ended_at=None).exists() else {"resume"}

    @action(description="Suspend", icon="pause_circle", permissions=["help"])
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)
        return ask_suspend(request, [row], f"Suspend {row}?", back=page_of(row))

    @action(description="Resume", icon="play_circle", permissions=["operate"])
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)
        suspension = row.suspensions.filter(ended_at=None).first()
        if suspension is None:
            raise Http404
        return ask_resume(request, suspension, back=page_of(row))

    @action(description="Suspend selected", permissions=["help"])
    def suspend_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        rows: list[Any] = list(queryset)
        noun = self.opts.verbose_name if len(rows) == 1 else self.opts.verbose_name_plural
        back = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        return ask_suspend(request, rows, f"Suspend {len(rows)} {noun}?", back, chosen=("suspend_selected", rows))


def ask_suspend(request: HttpRequest, rows: Sequence[Target], title: str, back: str, **page: Any) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        suspend(actor=request.user, targets=rows, reason=values["reason"])
        messages.success(request, "Suspended. Each peer says when its server has confirmed it.")
        return back

    return ask(request, perform, title=title, text=KEPT, button="Suspend", back=back, **page)


def ask_resume(request: HttpRequest, suspension: Suspension, back: str) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        resume(actor=request.user, suspension=suspension, reason=values["reason"])
        messages.success(request, "Resumed. Whatever else keeps them out still does.")
        return back

    why = f"Suspended by {suspension.suspended_by}: {suspension.reason}"
    return ask(request, perform, title=f"Resume {suspension.target}?", text=why, button="Resume", back=back)


class Ended(admin.SimpleListFilter):
    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("ended", "ended")]

    def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "open":
            return rows.filter(ended_at=None)
        return rows.exclude(ended_at=None) if self.value() == "ended" else rows


@admin.register(Suspension)
class SuspensionAdmin(ConsoleAdmin):
    """Open ones first."""

    is_added = is_changed = False
    list_display = ("whom", "kind", "state", "reason", "suspended_by", "is_idle", "began_at", "ended_at")
    list_filter = (Ended, "is_idle")
    search_fields = ("person__name", "device__name", "device__person__name", "peer__device__person__name", "reason")
    fields = ("whom", "kind", "state", "reason", "suspended_by", "is_idle", "since", "began_at", "ended_at", "ended_by")
    readonly_fields = fields
    actions_detail = ("resume",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Suspension]:
        return visible_suspensions(request.user).order_by(F("ended_at").desc(nulls_first=True), "-began_at")

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        return (F("ended_at").desc(nulls_first=True), "-began_at")

    def idle(self, request: HttpRequest, row: Suspension) -> set[str]:
        return set() if suspension_state(row) in {"open", DORMANT} else {"resume"}

    @display(description="who")
    def whom(self, row: Suspension) -> str:
        return str(row.target)

    @display(description="what")
    def kind(self, row: Suspension) -> str:
        target: Model = row.target
        return str(target._meta.verbose_name)

    @display(label={"open": "warning", DORMANT: "info", "over": "", "went on": "", "ended": ""})
    def state(self, row: Suspension) -> str:
        return suspension_state(row)

    @action(description="Resume", icon="play_circle", permissions=["operate"])
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)
        return ask_resume(request, row, back=page_of(row))
