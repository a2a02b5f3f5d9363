"""The pages of teams and their members. What they do is done by services."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, F, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSplitDateTimeWidget, UnfoldAdminTextInputWidget

from fleet import fields
from fleet.access import may_operate
from fleet.admin import ConsoleAdmin, one, page_of
from fleet.forms import Lines
from fleet.questions import ask
from peers.access import visible_grants, visible_memberships, visible_peers, visible_people, visible_teams
from peers.admin.people import peer_rows
from peers.admin.prolonging import ask_end
from peers.admin.suspensions import Ended
from peers.forms import TeamForm
from peers.granting import servers_of
from peers.models import Membership, Team
from peers.naming import people_named
from peers.prolonging import prolong_memberships
from peers.rights import open_memberships
from peers.states import grant_state, grants_in, membership_state
from peers.story import ends_of
from peers.teams import end_team, environments_of, join_team, leave_team


class JoinForm(forms.Form):
    people = Lines(label="Who joins", help_text="E-mail addresses or ids, one a line.")
    until = forms.SplitDateTimeField(
        required=False, widget=UnfoldAdminSplitDateTimeWidget, help_text="Empty for no end; contractors need one."
    )
    reason = forms.CharField(
        max_length=500,
        required=False,
        validators=[fields.one_line],
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the ledger, for whoever asks later.",
    )


@admin.register(Team)
class TeamAdmin(ConsoleAdmin):
    form = TeamForm
    is_changed = False
    list_display = ("name", "description", "members", "state", "created_at")
    list_filter = (Ended,)
    search_fields = ("name", "description")
    actions_detail = ("join", "grant", "end")
    change_form_outer_after_template = "admin/peers/team_access.html"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name", "description", "created_at", "ended_at") if obj else ("name", "description")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        now = timezone.now()
        here = Q(memberships__ended_at=None) & (Q(memberships__until=None) | Q(memberships__until__gt=now))
        return visible_teams(request.user).annotate(held=Count("memberships", filter=here))

    def page_context(self, request: HttpRequest, obj: Team) -> dict[str, Any]:
        now, grants = timezone.now(), visible_grants(request.user).filter(team=obj)
        members = open_memberships(now).filter(team=obj).values("person")
        reached = servers_of(grants_in(grants, "open"))
        peers = visible_peers(request.user).filter(server__in=reached, device__person__in=members, ended_at=None)
        rows = visible_memberships(request.user).filter(team=obj)
        shown = rows.order_by(F("ended_at").desc(nulls_first=True), "person__name")[:200]
        return {
            "memberships": [(membership, membership_state(membership)) for membership in shown],
            "grants": [(grant, grant_state(grant)) for grant in grants.order_by(*NEWEST)[:200]],
            "peers": peer_rows(peers, request.user),
            "shows_person": True,
        }

    def idle(self, request: HttpRequest, row: Team) -> set[str]:
        if row.ended_at:
            return {"join", "grant", "end"}
        return set() if may_operate(request.user, *environments_of(row)) else {"join", "end"}

    @display(ordering="held")
    def members(self, team: Any) -> int:
        return int(team.held)

    @display(label={"open": "success", "ended": ""})
    def state(self, team: Team) -> str:
        return "ended" if team.ended_at else "open"

    @action(description="Add members", icon="group_add", permissions=["operate"])
    def join(self, request: HttpRequest, object_id: str) -> HttpResponse:
        team = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            values["people"] = people_named(values["people"], visible_people(request.user))
            join_team(actor=request.user, team=team, **values)
            return page_of(team)

        title, text = f"Who joins {team}?", "They have what the team has, at once, for as long as they are in it."
        return ask(request, perform, title=title, text=text, button="Add", form=JoinForm, back=page_of(team))

    @action(description="Grant access", icon="key", permissions=["operate"])
    def grant(self, request: HttpRequest, object_id: str) -> HttpResponse:
        team = one(self, request, object_id)
        return HttpResponseRedirect(f"{reverse('admin:peers_grant_add')}?team={team.pk}")

    @action(description="End team", icon="group_off", permissions=["operate"])
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        team = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(end_team(actor=request.user, team=team, reason=values["reason"]))

        text = "Its grants have to be ended before, so that nobody loses access by the way."
        return ask(request, perform, title=f"End the team {team}?", text=text, button="End team", back=page_of(team))


NEWEST = (F("ended_at").desc(nulls_first=True), "-begins_at")


@admin.register(Membership)
class MembershipAdmin(ConsoleAdmin):
    is_added = is_changed = False
    list_display = ("person", "team", "state", "began_at", "until", "added_by", "ended_at")
    list_filter = (Ended, "team")
    search_fields = ("person__name", "person__email", "team__name")
    fields = ("person", "team", "state", "began_at", "until", "added_by", "ended_at")
    readonly_fields = fields
    actions = ("set_end_selected", "leave_selected")
    actions_detail = ("set_end", "leave")
    change_form_outer_after_template = "admin/peers/ends_told.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return visible_memberships(request.user)

    def page_context(self, request: HttpRequest, obj: Membership) -> dict[str, Any]:
        return {"line": ends_of(obj)}

    def idle(self, request: HttpRequest, row: Membership) -> set[str]:
        if row.ended_at or not may_operate(request.user, *environments_of(row.team)):
            return {"set_end", "leave"}
        return set() if membership_state(row) == "open" else {"set_end"}

    @display(label={"open": "success", "over": "", "ended": ""})
    def state(self, row: Membership) -> str:
        return membership_state(row)

    @action(description="Change end", icon="event_repeat", permissions=["operate"])
    def set_end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)

        def carry_out(values: dict[str, Any]) -> str:
            return page_of(prolong_memberships(actor=request.user, memberships=[row], **values)[0])

        return ask_end(request, [row], f"Until when is {row.person} in {row.team}?", carry_out, back=page_of(row))

    @action(description="Change end of selected memberships", permissions=["operate"])
    def set_end_selected(self, request: HttpRequest, queryset: QuerySet[Membership]) -> HttpResponse:
        rows, back = list(queryset), reverse("admin:peers_membership_changelist")
        which = "is this membership" if len(rows) == 1 else f"are these {len(rows)} memberships"

        def carry_out(values: dict[str, Any]) -> str:
            prolong_memberships(actor=request.user, memberships=rows, **values)
            return back

        title, chosen = f"Until when {which}?", ("set_end_selected", rows)
        return ask_end(request, rows, title, carry_out, back=back, chosen=chosen)

    @action(description="End membership", icon="group_remove", permissions=["operate"])
    def leave(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)
        return ask_leave(request, [row], f"{row.person} leaves {row.team}?", page_of(row.team))

    @action(description="End selected memberships", permissions=["operate"])
    def leave_selected(self, request: HttpRequest, queryset: QuerySet[Membership]) -> HttpResponse:
        rows = list(queryset)
        title = f"End {len(rows)} membership{'' if len(rows) == 1 else 's'}?"
        back = reverse("admin:peers_membership_changelist")
        return ask_leave(request, rows, title, back, chosen=("leave_selected", rows))


def ask_leave(request: HttpRequest, rows: list[Membership], title: str, back: str, **page: Any) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        leave_team(actor=request.user, memberships=rows, reason=values["reason"])
        messages.success(request, "Ended. Peers that they had by the team alone are being withdrawn.")
        return back

    text = "What they have by the team alone is withdrawn. Keys live on, and so does what they have by other grants."
    return ask(request, perform, title=title, text=text, button="End", back=back, **page)
