"""Forms of people, devices and grants; each is judged by its service."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.db.models import Model
from django.http import HttpRequest

from fleet.forms import Chooser, Line, Lines, ServiceForm
from peers import granting, services
from peers.models import Device, Grant, Person, Team
from peers.teams import add_team

if TYPE_CHECKING:
    AnyChoiceField = forms.ModelChoiceField[Any]
else:
    AnyChoiceField = forms.ModelChoiceField  # takes no parameter while it runs


class PersonForm(ServiceForm):
    class Meta:
        model = Person
        fields = ("name", "email", "kind")

    def add(self, values: dict[str, Any]) -> Model:
        return services.add_person(actor=self.actor, **values)

    def change(self, values: dict[str, Any]) -> Model:
        return services.change_person(actor=self.actor, person=self.instance, **values)


class TeamForm(ServiceForm):
    class Meta:
        model = Team
        fields = ("name", "description")

    def add(self, values: dict[str, Any]) -> Model:
        return add_team(actor=self.actor, **values)


def named_by_key(device: Device) -> str:
    """A person may have three devices of one name: the key tells them apart."""
    return f"{device}, key {device.public_key[:8]}…"


class DeviceField(AnyChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return named_by_key(obj)


class DeviceSelect(Chooser):
    url_name = "%s:peers_device_choices"


class DeviceChoices(AutocompleteJsonView):
    def serialize_result(self, obj: Any, to_field_name: str) -> dict[str, str]:
        return {"id": str(obj.pk), "text": named_by_key(obj)}


def device_choices(request: HttpRequest, model_admin: Any) -> Any:
    return DeviceChoices.as_view(admin_site=model_admin.admin_site)(request)


class DeviceForm(ServiceForm):
    public_key = Line(
        max_length=200,
        help_text="What `wg pubkey` prints on the device. The private key never leaves it.",
    )

    class Meta:
        model = Device
        fields = ("person", "name", "public_key", "replaces")

    def add(self, values: dict[str, Any]) -> Model:
        return services.register_device(actor=self.actor, **values)


class GrantForm(ServiceForm):
    networks = Lines(help_text="What the tunnel carries, one network a line; empty for everything.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if begins_at := self.fields.get("begins_at"):
            begins_at.required, begins_at.initial, begins_at.help_text = False, None, "Empty for now."

    class Meta:
        model = Grant
        fields = (
            *("person", "team", "environment", "server", "networks", "hours", "pool", "begins_at", "until"),
            "reason",
        )

    def add(self, values: dict[str, Any]) -> Model:
        return granting.grant_access(actor=self.actor, **values)
