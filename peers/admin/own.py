"""Pages that open for who is a person themselves, with a role or without, and the link that makes them one."""

from typing import Any

from django import forms
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget

from fleet.admin import ConsoleAdmin, one, page_of
from fleet.forms import ReasonForm
from fleet.models import User
from fleet.questions import ask
from fleet.scope import scope_of
from peers.access import own_person
from peers.linking import link_user
from peers.models import Grant
from peers.story import ends_of, request_of, story_of


def may_see_own(request: HttpRequest) -> bool:
    """For the sidebar."""
    return not scope_of(request.user).is_empty or own_person(request.user) is not None


class OwnAdmin(ConsoleAdmin):
    """Rows that may be the user's own; their query says which are."""

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may_see_own(request)


class StoriedAdmin(OwnAdmin):
    """Grants, with the request that they come from and the ends that they had."""

    change_form_outer_after_template = "admin/peers/story.html"

    def page_context(self, request: HttpRequest, obj: Grant) -> dict[str, Any]:
        asked = request_of(obj)
        return {"asked": asked, "story": story_of(asked) if asked else [], "line": ends_of(obj)}


class LinkForm(ReasonForm):
    user = forms.ModelChoiceField(
        User.objects.filter(is_active=True, person=None).order_by("username"),
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="By it they ask for access for themselves and see what they have. Empty to unlink.",
    )
    field_order = ("user", "reason")


class LinkedAdmin(ConsoleAdmin):
    """People, with the sign-in that each of them is."""

    def has_administer_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return scope_of(request.user).is_admin

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("user",) if obj else ()

    @action(description="Link sign-in", icon="link", permissions=["administer"])
    def link(self, request: HttpRequest, object_id: str) -> HttpResponse:
        person = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(link_user(actor=request.user, person=person, **values))

        text = f"Now: {person.user or 'none'}. A sign-in is one person's."
        title, back = f"Which sign-in is {person}?", page_of(person)
        return ask(request, perform, title=title, text=text, button="Link", form=LinkForm, back=back)
