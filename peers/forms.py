"""Forms of people, devices and grants; each is judged by its service."""

from typing import Any

from django.db.models import Model

from fleet.forms import Line, Lines, ServiceForm
from peers import granting, services
from peers.models import Device, Grant, Person


class PersonForm(ServiceForm):
    class Meta:
        model = Person
        fields = ("name", "email", "kind")

    def add(self, values: dict[str, Any]) -> Model:
        return services.add_person(actor=self.actor, **values)

    def change(self, values: dict[str, Any]) -> Model:
        return services.change_person(actor=self.actor, person=self.instance, **values)


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
        fields = ("person", "team", "environment", "server", "networks", "hours", "begins_at", "until", "reason")

    def add(self, values: dict[str, Any]) -> Model:
        return granting.grant_access(actor=self.actor, **values)
