"""Offboarding, from a person's page, from the list of people and by a list of names; and devices that were lost."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import action
from unfold.widgets import UnfoldAdminTextInputWidget

from fleet import fields
from fleet.admin import ConsoleAdmin, one, page_of
from fleet.forms import Line, Lines, refuse
from fleet.questions import ask
from peers.access import own_devices, visible_people
from peers.leaving import held_by, offboard
from peers.lost import report_lost
from peers.models import PENDING, Device, Person, Receipt
from peers.naming import people_named
from peers.waiting import seen_waiting

ENDS = "Grants, memberships, requests and the sign-in end too. Revoked keys never come back, on any server."


class NamesForm(forms.Form):
    people = Lines(label="Who leaves", help_text="E-mail addresses or ids, one a line. Nothing is done yet.")


class LeavingPages(ConsoleAdmin):
    """Of people: "Offboard" on a page, for those selected in the list, and for a list that was pasted."""

    @action(description="Offboard", icon="logout", permissions=["operate"], variant="danger")
    def offboard(self, request: HttpRequest, object_id: str) -> HttpResponse:
        person = one(self, request, object_id)
        return ask_offboard(request, [person], back=page_of(person))

    @action(description="Offboard selected", permissions=["operate"])
    def offboard_selected(self, request: HttpRequest, queryset: QuerySet[Person]) -> HttpResponse:
        return _ask_many(request, list(queryset), "offboard_selected")

    @action(description="Offboard by a list", icon="group_remove", permissions=["operate"], url_path="offboard-list")
    def offboard_list(self, request: HttpRequest) -> HttpResponse:
        """First who, then how much that is, and why."""
        seen, chosen = visible_people(request.user), request.POST.getlist("_selected_action")
        if chosen:
            people = seen.filter(pk__in=[pk for pk in chosen if pk.isdecimal()])
            return _ask_many(request, list(people), "offboard_list")
        asked = NamesForm(request.POST or None)
        if asked.is_valid():
            try:
                return _ask_many(request, people_named(asked.cleaned_data["people"], seen), "offboard_list")
            except ValidationError as error:
                refuse(asked, error)
        page = {"title": "Offboard by a list", "form": asked, "answered": "_named", "button": "Next"}
        back = {"back": reverse("admin:peers_person_changelist"), "text": ENDS}
        return TemplateResponse(request, "admin/question.html", {**admin.site.each_context(request), **page, **back})


def _ask_many(request: HttpRequest, people: Sequence[Person], name: str) -> HttpResponse:
    return ask_offboard(request, people, back=reverse("admin:peers_person_changelist"), chosen=(name, list(people)))


def ask_offboard(request: HttpRequest, people: Sequence[Person], back: str, **page: Any) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        return page_of(offboard(actor=request.user, people=people, reason=values["reason"]))

    who = str(people[0]) if len(people) == 1 else f"{len(people)} people"
    text = f"{held_by(people)} will be revoked. {ENDS}"
    return ask(request, perform, title=f"Offboard {who}?", text=text, button="Offboard", back=back, **page)


class LostForm(forms.Form):
    reason = forms.CharField(
        max_length=490,
        required=False,
        validators=[fields.one_line],
        label="What happened",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the ledger, after the word: lost.",
    )
    public_key = Line(
        max_length=200,
        required=False,
        label="Key of the next device",
        help_text="What `wg pubkey` prints there, to have it issued at once; empty for none.",
    )
    name = Line(max_length=63, required=False, label="Name of the next device", help_text="Empty for the same name.")


class LostPages(ConsoleAdmin):
    """Of devices: "Lost" on a page; and a page of their own for people without any role."""

    def get_custom_urls(self) -> Any:
        mine = [("mine/", "peers_device_mine", my_devices), ("mine/<int:pk>/lost/", "peers_device_mine_lost", my_lost)]
        return (*super().get_custom_urls(), *mine)

    @action(description="Lost", icon="location_off", permissions=["help"], variant="danger")
    def lost(self, request: HttpRequest, object_id: str) -> HttpResponse:
        device = one(self, request, object_id)
        return ask_lost(request, device, back=page_of(device))


def ask_lost(request: HttpRequest, device: Device, back: str, *, is_own: bool = False) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        row, new = report_lost(actor=request.user, device=device, **values)
        messages.success(request, f"The key of {device} is revoked. Its page says where that is proven.")
        if new and (names := seen_waiting([new], request.user).get(new.pk)):
            where = ", ".join(names)
            messages.warning(request, f"{new} waits for an address on {where}: it gets one by itself once one is free.")
        if is_own:
            return back
        return page_of(new or row)

    text = "Its key is revoked on every server at once and never comes back, also if the device is found again."
    title = f"{device} is lost?"
    return ask(request, perform, title=title, text=text, button="It is lost", form=LostForm, back=back)


def my_devices(request: HttpRequest, model_admin: ConsoleAdmin) -> HttpResponse:
    """The devices of the person whom this user signs in as."""
    pending = Receipt.objects.filter(PENDING, public_key=OuterRef("public_key"))
    rows = own_devices(request.user).annotate(is_pending=Exists(pending)).order_by("-created_at")
    waits = seen_waiting(list(rows), request.user)
    devices = [(device, waits.get(device.pk, [])) for device in rows]
    page = {"title": "My devices", "devices": devices, "opts": model_admin.opts}
    return TemplateResponse(request, "admin/peers/my_devices.html", {**admin.site.each_context(request), **page})


def my_lost(request: HttpRequest, model_admin: ConsoleAdmin, pk: int) -> HttpResponse:
    device = own_devices(request.user).filter(pk=pk).first()
    if device is None:
        raise Http404
    return ask_lost(request, device, back=reverse("admin:peers_device_mine"), is_own=True)
