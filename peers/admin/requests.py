"""The pages of requests for access: the list, one's story, and the form to ask."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.duration import duration_string
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from fleet.access import may_operate
from fleet.admin import one, page_of
from fleet.forms import NO_DURATION, Line, Lines, Reason, ReasonForm, ServiceForm
from fleet.models import User
from fleet.questions import ask
from fleet.scope import scope_of
from peers import requests
from peers.access import own_person, visible_requests, waiting_requests
from peers.admin.own import OwnAdmin
from peers.api.requests import requested
from peers.models import AccessRequest
from peers.story import story_of

ASKED = ("person", "environment", "server", "networks", "hours", "duration", "reason")
DAY = "%Y-%m-%d %H:%M"
STATES = {"open": "warning", "half approved": "info", "approved": "success", "denied": "danger", "cancelled": ""}


def waiting(request: HttpRequest) -> int | str:
    """The badge beside Access requests: how many wait for this user's decision."""
    return waiting_requests(request.user).count() or ""


class RequestForm(ServiceForm):
    place = Line(
        required=False,
        label="To",
        help_text="The whole name of the environment or server that you need, as you were told it.",
    )
    networks = Lines(help_text="What the tunnel carries, one network a line; empty for everything.")
    duration = forms.DurationField(
        widget=UnfoldAdminTextInputWidget,
        error_messages={"invalid": NO_DURATION},
        help_text="From its approval on: days hours:minutes:seconds, such as 14 00:00:00 for two weeks.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if person := self.fields.get("person"):
            person.required = own_person(self.actor) is None
            person.help_text = "" if person.required else "Empty for yourself."

    class Meta:
        model = AccessRequest
        fields = ASKED

    def add(self, values: dict[str, Any]) -> Model:
        assert isinstance(self.actor, User)
        return requests.request_access(actor=self.actor, **requested(self.actor, values))


class OptionalReasonForm(forms.Form):
    reason = Reason(autofocus="")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = False


@admin.register(AccessRequest)
class AccessRequestAdmin(OwnAdmin):
    """Open ones first."""

    form = RequestForm
    is_changed = False
    list_display = ("person", "place_name", "state", "duration", "asked_by", "created_at", "reason")
    list_filter = (("decided_at", admin.EmptyFieldListFilter), "decision")
    search_fields = ("person__name", "asked_by", "reason")
    ordering = (F("decided_at").desc(nulls_first=True), "-created_at")
    autocomplete_fields = ("person",)
    actions_detail = ("approve", "deny", "cancel")
    change_form_outer_after_template = "admin/peers/story.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessRequest]:
        return visible_requests(request.user)

    def has_operate_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Who may ask for somebody: the services say who may do what with one of them."""
        return scope_of(request.user).is_helper or own_person(request.user) is not None

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Who helps nowhere asks for themselves, and names the place; others choose from what they see."""
        if obj is not None:
            return ("person", "environment", "server", "carries", *ASKED[4:], "state", "became")
        own = ("place",) if own_person(request.user) else ()
        helper = scope_of(request.user).is_helper
        return (*ASKED[:3], *own, *ASKED[3:]) if helper else (*own, *ASKED[3:])

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("carries", "state", "became") if obj else ()

    def page_context(self, request: HttpRequest, obj: AccessRequest) -> dict[str, Any]:
        return {"asked": obj, "story": story_of(obj)}

    def idle(self, request: HttpRequest, row: AccessRequest) -> set[str]:
        if row.decided_at is not None:
            return set(self.actions_detail)
        assert isinstance(request.user, User)
        may = {
            "approve": requests.may_approve(request.user, row),
            "deny": may_operate(request.user, row.place),
            "cancel": requests.may_cancel(request.user, row),
        }
        return {name for name, is_possible in may.items() if not is_possible}

    @display(description="to")
    def place_name(self, asked: AccessRequest) -> str:
        return str(asked.environment or asked.server)

    @display(label=STATES)
    def state(self, asked: AccessRequest) -> str:
        return asked.state

    @display(description="networks")
    def carries(self, asked: AccessRequest) -> str:
        return ", ".join(asked.networks) or "everything"

    @display(description="grant")
    def became(self, asked: AccessRequest) -> str:
        grant = getattr(asked, "grant", None)
        if grant is None:
            return "none"
        return format_html('<a href="{}">until {}</a>', page_of(grant), timezone.localtime(grant.until).strftime(DAY))

    @action(description="Approve", icon="check", permissions=["operate"])
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        asked = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(requests.approve_request(actor=request.user, request=asked, **values))

        is_first = asked.place.needs_second and asked.first_approved_at is None
        text = f"To {self.carries(asked)}, {asked.hours or 'at all hours'}, for {duration_string(asked.duration)} from "
        text += "the second operator's approval on" if is_first else "now on"
        text += f". {asked.asked_by} says: {asked.reason}"
        return self.ask(request, asked, perform, title=f"Let {asked}?", text=text, button="Approve")

    @action(description="Deny", icon="close", permissions=["operate"], variant="danger")
    def deny(self, request: HttpRequest, object_id: str) -> HttpResponse:
        asked = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(requests.deny_request(actor=request.user, request=asked, **values))

        return self.ask(request, asked, perform, title=f"Deny {asked}?", button="Deny", form=ReasonForm)

    @action(description="Cancel request", icon="undo", permissions=["operate"])
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        asked = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(requests.cancel_request(actor=request.user, request=asked, **values))

        return self.ask(request, asked, perform, title=f"Cancel the request {asked}?", button="Cancel request")

    def ask(self, request: HttpRequest, asked: AccessRequest, perform: Any, **page: Any) -> HttpResponse:
        return ask(request, perform, back=page_of(asked), **{"form": OptionalReasonForm, **page})
