"""The forms of the four questions."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from fleet.forms import Chooser
from fleet.models import Environment, Server
from fleet.scope import visible_environments, visible_servers
from peers.access import visible_people, visible_teams
from peers.asked import parse_asked_network, parse_moment
from peers.models import Grant, Membership, Person, Team

KINDS = (("key", "public key"), ("address", "address or network"), ("name", "name"))


def _chooser(model: Any, name: str) -> Chooser:
    return Chooser(model._meta.get_field(name), admin.site, attrs={"class": "unfold-admin-autocomplete"})


class MomentForm(forms.Form):
    """`at` is last on the page: most ask about now."""

    at = forms.CharField(
        required=False,
        max_length=60,
        label="At",
        widget=UnfoldAdminTextInputWidget,
        help_text="A time such as 2026-03-04 14:00, or 2026-03-04T14:00:00+01:00; empty for now.",
    )
    field_order: tuple[str, ...] = ()

    def __init__(self, data: Any, user: object) -> None:
        super().__init__(data)
        chosen = {"person": visible_people, "team": visible_teams, "server": visible_servers}
        for name, rows in {**chosen, "environment": visible_environments}.items():
            if name in self.fields:
                self.fields[name].queryset = rows(user)  # type: ignore[attr-defined]

    def clean_at(self) -> Any:
        text = self.cleaned_data["at"]
        self.cleaned_data["is_now"] = not text.strip()
        try:
            return parse_moment(text)
        except ValidationError as error:
            raise ValidationError(error.message_dict["at"]) from None


class AccessForm(MomentForm):
    person = forms.ModelChoiceField(Person.objects.none(), required=False, widget=_chooser(Membership, "person"))
    team = forms.ModelChoiceField(Team.objects.none(), required=False, widget=_chooser(Membership, "team"))
    environment = forms.ModelChoiceField(
        Environment.objects.none(), required=False, empty_label="every one", widget=UnfoldAdminSelectWidget
    )
    server = forms.ModelChoiceField(Server.objects.none(), required=False, widget=_chooser(Grant, "server"))
    field_order = ("person", "team", "environment", "server", "at")


class PersonForm(MomentForm):
    person = forms.ModelChoiceField(Person.objects.none(), widget=_chooser(Membership, "person"))
    field_order = ("person", "at")


class ReachForm(MomentForm):
    network = forms.CharField(
        max_length=60,
        widget=UnfoldAdminTextInputWidget,
        help_text="An address or a network of either family, such as 10.20.0.7 or 10.20.0.0/16.",
    )
    field_order = ("network", "at")

    def clean_network(self) -> Any:
        try:
            return parse_asked_network(self.cleaned_data["network"])
        except ValidationError as error:
            raise ValidationError(error.message_dict["network"]) from None


class TracesForm(forms.Form):
    kind = forms.ChoiceField(choices=KINDS, initial="key", widget=UnfoldAdminSelectWidget)
    what = forms.CharField(
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="A key or its first 8 characters; an address or network; or a part of a name, old ones too.",
    )

    def __init__(self, data: Any, user: object) -> None:
        super().__init__(data)
