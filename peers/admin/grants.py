"""The pages of grants. What they do is done by services."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from fleet.access import may_operate
from fleet.admin import one, page_of, seen
from fleet.forms import ReasonForm
from fleet.models import Server
from fleet.questions import ask
from fleet.scope import visible_servers
from peers.access import visible_grants
from peers.admin import prolonging
from peers.admin.own import StoriedAdmin
from peers.forms import GrantForm
from peers.granting import end_grants
from peers.models import Grant
from peers.moving import move_grant
from peers.prolonging import prolong_grants
from peers.states import GRANT_STATES, grant_state, grants_in

MOVES = "Its peers on the new server are let in once the old server has confirmed that they are gone there."


class GrantStates(admin.SimpleListFilter):
    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in GRANT_STATES]

    def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return grants_in(rows, value) if value in GRANT_STATES else rows


def move_form(user: object, grant: Grant) -> type[forms.Form]:
    """Asks to which other server; those that the user sees."""
    others = visible_servers(user).exclude(pk=grant.server_id or 0)
    place = forms.ModelChoiceField(others, widget=UnfoldAdminSelectWidget, empty_label="Select a server")
    return type("MoveForm", (ReasonForm,), {"server": place, "field_order": ("server", "reason")})


@admin.register(Grant)
class GrantAdmin(StoriedAdmin):
    form = GrantForm
    is_changed = False
    list_display = ("holder", "place_name", "state", "carries", "window", "begins_at", "until", "reason")
    list_filter = (GrantStates, seen("environment"), ("team", admin.EmptyFieldListFilter))
    search_fields = ("person__name", "team__name", "reason")
    autocomplete_fields = ("person", "team")
    actions = ("set_end_selected", "end_selected")
    actions_detail = ("set_end", "move", "end")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        holder, time = ("person", "team", "environment", "server"), ("begins_at", "until", "reason")
        if obj is None:
            return (*holder, "networks", "hours", "pool", *time)
        return (*holder, "carries", "window", "pool", *time, "state", "granted_by", "moved_from", "ended_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Grant]:
        return visible_grants(request.user)

    def idle(self, request: HttpRequest, row: Grant) -> set[str]:
        if row.ended_at or not may_operate(request.user, row.place):
            return {"set_end", "end", "move"}
        if grant_state(row) == "over":
            return {"set_end", "move"}
        return set() if row.server_id else {"move"}

    @display(description="to")
    def place_name(self, grant: Grant) -> str:
        return str(grant.environment or grant.server)

    @display(description="networks")
    def carries(self, grant: Grant) -> str:
        return ", ".join(grant.networks) or "everything"

    @display(description="hours")
    def window(self, grant: Grant) -> str:
        return grant.hours or "always"

    @display(label={"open": "success", "begins later": "info", "over": "", "ended": ""})
    def state(self, grant: Grant) -> str:
        return grant_state(grant)

    @action(description="Move to another server", icon="move_up", permissions=["operate"])
    def move(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            server: Server = values["server"]
            moved = move_grant(actor=request.user, grant=grant, server=server, reason=values["reason"])
            messages.success(request, f"Moved to {server}. {MOVES}")
            return page_of(moved)

        form, title = move_form(request.user, grant), f"Move the grant {grant}?"
        return ask(request, perform, title=title, text=MOVES, button="Move", form=form, back=page_of(grant))

    @action(description="Change end", icon="event_repeat", permissions=["operate"])
    def set_end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = one(self, request, object_id)

        def carry_out(values: dict[str, Any]) -> str:
            return page_of(prolong_grants(actor=request.user, grants=[grant], **values)[0])

        title, back = f"Until when is the grant {grant}?", page_of(grant)
        return prolonging.ask_end(request, [grant], title, carry_out, back=back)

    @action(description="Change end of selected grants", permissions=["operate"])
    def set_end_selected(self, request: HttpRequest, queryset: QuerySet[Grant]) -> HttpResponse:
        grants, back = list(queryset), reverse("admin:peers_grant_changelist")

        def carry_out(values: dict[str, Any]) -> str:
            prolong_grants(actor=request.user, grants=grants, **values)
            return back

        title = f"Until when {'is this grant' if len(grants) == 1 else f'are these {len(grants)} grants'}?"
        return prolonging.ask_end(request, grants, title, carry_out, back=back, chosen=("set_end_selected", grants))

    @action(description="End grant", icon="event_busy", permissions=["operate"])
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = one(self, request, object_id)
        return ask_end(request, [grant], f"End the grant {grant}?", page_of(grant))

    @action(description="End selected grants", permissions=["operate"])
    def end_selected(self, request: HttpRequest, queryset: QuerySet[Grant]) -> HttpResponse:
        grants = list(queryset)
        title = f"End {len(grants)} grant{'' if len(grants) == 1 else 's'}?"
        back = reverse("admin:peers_grant_changelist")
        return ask_end(request, grants, title, back, chosen=("end_selected", grants))


def ask_end(request: HttpRequest, grants: list[Grant], title: str, back: str, **page: Any) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        end_grants(actor=request.user, grants=grants, reason=values["reason"])
        messages.success(request, "Ended. Peers that no other grant carries are being withdrawn.")
        return back

    text = "Keys live on. Where no other grant is left, the peers are withdrawn."
    return ask(request, perform, title=title, text=text, button="End", back=back, **page)
