"""The pages of servers as machines, and of what the workers keep: runs, plans, enrolments, what waits for a person."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import action, display

from audit.models import Event
from fleet.access import may_operate
from fleet.admin import ConsoleAdmin, ServerAdmin, one, page_of, seen, state_of
from fleet.conditions import Type, read
from fleet.models import Server
from fleet.questions import SureForm, ask
from fleet.scope import scope_of
from nodes import services
from nodes.access import visible_holds, visible_reviews
from nodes.forms import DecisionForm, EnrolForm
from nodes.models import Enrolment, Hold, PlanRequest, ReviewItem, Run
from nodes.reviews import decide_review
from peers.access import visible_peers
from peers.rooms import rooms_of

SHOWN = 500  # peers of a hold on one page; the event that caused it names all


@admin.register(Server)
class NodeServerAdmin(ServerAdmin):
    """Servers, and what is asked of the machine behind each."""

    actions_detail = ("plan", "reconcile", "enrol")
    change_form_outer_before_template = "admin/nodes/server_state.html"

    def idle(self, request: HttpRequest, row: Server) -> set[str]:
        return set() if may_operate(request.user, row.environment) else set(self.actions_detail)

    def page_context(self, request: HttpRequest, obj: Server) -> dict[str, Any]:
        found = [read(obj.status.conditions, type) for type in Type]
        enrolment = obj.enrolments.first()
        return {
            "conditions": [condition for condition in found if condition],
            "status": obj.status,
            "state": state_of(obj),
            "enrolment": enrolment,
            "is_waiting": enrolment is not None and enrolment.finished_at is None,
            "runs": obj.runs.all()[:5],
            "rooms": rooms_of(obj),
        }

    @action(description="Enrol", icon="add_link", permissions=["operate"])
    def enrol(self, request: HttpRequest, object_id: str) -> HttpResponse:
        server = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            services.request_enrolment(actor=request.user, server=server, **values)
            messages.success(request, "A worker takes it up now; its progress is on this page.")
            return page_of(server)

        title, text = f"Enrol {server}", f"A worker logs in at {server.host}, port {server.ssh_port}, this one time."
        return ask(request, perform, title=title, text=text, button="Enrol", form=EnrolForm, back=page_of(server))

    @action(description="Show plan", icon="difference", permissions=["operate"])
    def plan(self, request: HttpRequest, object_id: str) -> HttpResponse:
        server = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            request_row = services.request_plan(actor=request.user, server=server)
            return reverse("admin:nodes_planrequest_change", args=[request_row.pk])

        text = "A worker asks the server what a push would change now. Nothing is changed by asking."
        title, back = f"Plan for {server}", page_of(server)
        return ask(request, perform, title=title, text=text, button="Show plan", form=SureForm, back=back)

    @action(description="Reconcile now", icon="sync", permissions=["operate"])
    def reconcile(self, request: HttpRequest, object_id: str) -> HttpResponse:
        server = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            services.request_reconcile(actor=request.user, server=server)
            messages.success(request, f"A worker looks at {server} now.")
            return page_of(server)

        text = "A worker compares the server with what is desired and repairs what differs."
        title, back = f"Reconcile {server} now?", page_of(server)
        return ask(request, perform, title=title, text=text, button="Reconcile", form=SureForm, back=back)


class SeenAdmin(ConsoleAdmin):
    """Rows that workers write."""

    is_added = is_changed = False
    list_select_related: tuple[str, ...] = ("server",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = self.model._default_manager.select_related("server__environment", *self.list_select_related)
        return scope_of(request.user).of(rows, "server__environment")


@admin.register(Run)
class RunAdmin(SeenAdmin):
    list_display = ("started_at", "server", "generation", "result", "detail", "seconds")
    list_filter = ("outcome", seen("server"))
    fields = ("server", "started_at", "epoch", "generation", "result", "detail", "seconds")
    readonly_fields = fields

    @display(
        description="outcome",
        label={"applied": "success", "already": "info", "held": "warning", "failed": "danger"},
    )
    def result(self, run: Run) -> str:
        return run.outcome


@admin.register(Enrolment)
class EnrolmentAdmin(SeenAdmin):
    list_display = ("server", "result", "requested_by", "created_at", "finished_at")
    list_filter = ("state",)
    fields = (
        *("server", "result", "error", "progress", "confirmed_host_key"),
        *("requested_by", "created_at", "finished_at"),
    )
    readonly_fields = fields

    @display(
        description="state",
        label={"done": "success", "waiting": "info", "running": "warning", "failed": "danger"},
    )
    def result(self, enrolment: Enrolment) -> str:
        return enrolment.state


@admin.register(PlanRequest)
class PlanRequestAdmin(SeenAdmin):
    list_display = ("server", "requested_by", "created_at", "finished_at")
    list_select_related = ("server", "requested_by")
    fields = ("server", "created_at", "finished_at", "error")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        asked = one(self, request, object_id)
        parts = [(word, (asked.plan or {}).get(word, [])) for word in ("add", "remove", "update")]
        page = {"title": f"Plan for {asked.server}", "asked": asked, "parts": parts, "opts": self.opts}
        return TemplateResponse(request, "admin/nodes/plan.html", {**admin.site.each_context(request), **page})


@admin.register(Hold)
class HoldAdmin(ConsoleAdmin):
    is_added = is_changed = False
    list_display = ("cause", "state", "removals", "created_at", "approved_by")
    list_filter = (("approved_at", admin.EmptyFieldListFilter),)
    fields = ("cause", "state", "created_at", "approved_at", "approved_by", "reason")
    readonly_fields = fields
    actions_detail = ("approve",)
    change_form_outer_after_template = "admin/nodes/hold_servers.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Hold]:
        return visible_holds(request.user)

    def idle(self, request: HttpRequest, row: Hold) -> set[str]:
        return {"approve"} if row.approved_at else set()

    def page_context(self, request: HttpRequest, obj: Hold) -> dict[str, Any]:
        peers = visible_peers(request.user).filter(ended_act=obj.act, gone_at=None)
        shown = peers.order_by("server__name", "device__person__name", "device__name")[:SHOWN]
        act = self.admin_site.get_model_admin(Event).get_queryset(request).filter(act=obj.act).first()
        return {"pushes": obj.pushes.all(), "peers": shown, "more": max(0, peers.count() - SHOWN), "act": act}

    @display(label={"waiting": "warning", "approved": "success", "over": "info"})
    def state(self, hold: Hold) -> str:
        """`over`: it holds nobody any more, and nobody approved it."""
        return "approved" if hold.approved_at else "waiting" if hold.pushes.all() else "over"

    @display(description="would remove")
    def removals(self, hold: Hold) -> str:
        return ", ".join(f"{push.removals} of {push.held} on {push.server.name}" for push in hold.pushes.all())

    @action(description="Approve", icon="check", permissions=["operate"])
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        hold = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            services.approve_hold(actor=request.user, hold=hold, reason=values["reason"])
            return page_of(hold)

        title = "Let these peers go?"
        text = f"{hold.cause}. {self.removals(hold)}. Your approval counts for the cause, on every server."
        return ask(request, perform, title=title, text=text, button="Approve", back=page_of(hold))


@admin.register(ReviewItem)
class ReviewItemAdmin(ConsoleAdmin):
    """Open ones first, as their model orders them."""

    is_added = is_changed = False
    list_display = ("peer", "result", "what", "by", "at", "detail", "decided_by")
    list_filter = (("decided_at", admin.EmptyFieldListFilter), seen("server"))
    fields = (
        *("peer", "result", "what", "detail", "by", "at", "seen_at"),
        *("decided_at", "decided_by", "reason"),
    )
    readonly_fields = fields
    actions_detail = ("decide",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReviewItem]:
        return visible_reviews(request.user)

    def idle(self, request: HttpRequest, row: ReviewItem) -> set[str]:
        return {"decide"} if row.state != "waiting" else set()

    @display(description="state", label={"waiting": "warning", "resume": "success", "revoke": "danger"})
    def result(self, item: ReviewItem) -> str:
        return item.state

    @action(description="Decide", icon="gavel", permissions=["operate"])
    def decide(self, request: HttpRequest, object_id: str) -> HttpResponse:
        item = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            decide_review(actor=request.user, item=item, **values)
            return page_of(item)

        title = f"What about {item}?"
        text = f"It was shut there by {item.by}: {item.detail}. Until you decide, it stays out of {item.server.name}."
        return ask(request, perform, title=title, text=text, button="Decide", form=DecisionForm, back=page_of(item))
