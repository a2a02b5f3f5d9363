"""Forms whose only judge is a service: valid is what the service has done."""

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied
from django.db.models import Model
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from audit.services import Actor
from fleet import fields, services
from fleet.models import ApiToken, Bastion, Environment, Role, Server, User
from fleet.refusal import REFUSED, messages_of, record_refusal
from fleet.tokens import add_token

LONGEST_ID = 19
NO_DURATION = "Write days hours:minutes:seconds, such as 8:00:00 for eight hours or 14 00:00:00 for two weeks."


def refuse(form: forms.BaseForm, error: Exception) -> None:
    """What a service said, at the fields it named; the rest at the top of the form."""
    for name, messages in messages_of(error).items():
        for message in messages:
            if name in form.fields:
                form.add_error(name, message)
            else:
                form.add_error(None, message if name == NON_FIELD_ERRORS else f"{name}: {message}")


if TYPE_CHECKING:
    AnyModelForm = forms.ModelForm[Any]
else:
    AnyModelForm = forms.ModelForm  # takes no parameter while it runs


class ServiceForm(AnyModelForm):
    """Its validation is the act itself, so that what a service refuses stands at the field and nothing is half done."""

    actor: ClassVar[Actor]  # whoever opens the form; the admin makes a class for each request

    def add(self, values: dict[str, Any]) -> Model:
        raise NotImplementedError

    def change(self, values: dict[str, Any]) -> Model:
        raise NotImplementedError

    def _post_clean(self) -> None:
        if self.errors:
            return
        values = {name: value for name, value in self.cleaned_data.items() if name in self.changed_data}
        try:
            if self.instance._state.adding:
                self.instance = self.add(dict(self.cleaned_data))
            elif values.keys() - {"reason"}:
                self.instance = self.change(values)
        except REFUSED as error:
            refuse(self, error)
            if isinstance(error, PermissionDenied):
                record_refusal(self.actor, f"{type(self).__name__} {self.instance.pk or ''}".strip(), error)

    def save(self, commit: bool = True) -> Any:
        return self.instance

    def save_m2m(self) -> None:
        """Services have saved all there is."""


class Reason(forms.CharField):
    """Why a person does this, on one line; it is kept in the ledger."""

    def __init__(self, **attrs: str) -> None:
        super().__init__(
            max_length=500,
            validators=[fields.one_line],
            widget=UnfoldAdminTextInputWidget(attrs={**attrs, "autocomplete": "off"}),
            help_text="Kept in the ledger, for whoever asks later.",
            error_messages={"required": "Say why: the ledger keeps it."},
        )


class ReasonedForm(ServiceForm):
    """A change needs a reason, here as over the API; a new row needs none."""

    reason = Reason()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            del self.fields["reason"]


class Chooser(AutocompleteSelect):
    """A row is chosen by typing. What is no id chooses none: the field says so, and the page is shown again."""

    def optgroups(self, name: str, value: Sequence[str], attr: dict[str, Any] | None = None) -> Any:
        ids = [one for one in map(str, value) if one.isascii() and one.isdecimal() and len(one) < LONGEST_ID]
        return super().optgroups(name, ids, attr)


class Line(forms.CharField):
    """One line, exactly as typed: a space at its end is a mistake to be shown, not to be hidden."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("widget", UnfoldAdminTextInputWidget)
        super().__init__(strip=False, **options)


class Lines(forms.CharField):
    """A list of texts, one a line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **options)

    def prepare_value(self, value: object) -> object:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: object) -> Any:
        return [line.strip() for line in str(value or "").splitlines() if line.strip()]

    def has_changed(self, initial: object, data: object) -> bool:
        return bool(self.to_python(data) != (initial or []))


class ReasonForm(forms.Form):
    """The question why, where nothing else is asked."""

    reason = Reason(autofocus="")


HAVE_ONE = {"time_zone", "warn_before"}  # left empty they stay as they are


class EnvironmentForm(ReasonedForm):
    address_rest = forms.DurationField(
        required=False,
        validators=[fields.valid_rest],
        widget=UnfoldAdminTextInputWidget,
        error_messages={"invalid": NO_DURATION},
        help_text="How long a freed address rests before another peer may have it: days hours:minutes:seconds.",
    )
    time_zone = Line(
        max_length=63, required=False, initial="UTC", help_text="Of access windows, such as Europe/Berlin."
    )
    warn_before = forms.DurationField(
        required=False,
        validators=[fields.valid_warning],
        widget=UnfoldAdminTextInputWidget,
        error_messages={"invalid": NO_DURATION},
        initial=dt.timedelta(days=7),
        help_text="How long before its end people are told that access ends; 0 for never.",
    )
    idle_after = forms.DurationField(
        required=False,
        validators=[fields.valid_idle],
        widget=UnfoldAdminTextInputWidget,
        error_messages={"invalid": NO_DURATION},
        help_text="A peer that nothing was heard of for so long, from 1 day on, is listed as idle; empty for never.",
    )

    class Meta:
        model = Environment
        fields = (
            *("name", "description", "address_rest", "time_zone", "warn_before", "idle_after", "suspends_idle"),
            "needs_second",
        )

    def add(self, values: dict[str, Any]) -> Model:
        given = {name: value for name, value in values.items() if value not in ("", None)}
        return services.add_environment(actor=self.actor, **given)

    def change(self, values: dict[str, Any]) -> Model:
        given = {name: value for name, value in values.items() if name not in HAVE_ONE or value not in ("", None)}
        return services.change_environment(actor=self.actor, environment=self.instance, **given)


class BastionForm(ServiceForm):
    host_key = Line(
        max_length=1000,
        help_text="As read on the machine, without the comment: cat /etc/ssh/ssh_host_ed25519_key.pub",
    )

    class Meta:
        model = Bastion
        fields = ("name", "host", "ssh_port", "ssh_user", "host_key")

    def add(self, values: dict[str, Any]) -> Model:
        return services.add_bastion(actor=self.actor, **values)


class ServerForm(ReasonedForm):
    dns = Lines(label="DNS", help_text="Addresses that clients ask, one a line.")

    class Meta:
        model = Server
        fields = (
            *("name", "environment", "host", "ssh_port", "ssh_user", "bastion"),
            *("interface", "endpoint_host", "listen_port", "ipv4_pool", "ipv6_pool", "dns", "mtu", "forward"),
            "is_observe_only",
        )
        labels: ClassVar = {
            "ssh_port": "SSH port",
            "ssh_user": "SSH user",
            "mtu": "MTU",
            "is_observe_only": "Observe only",
        }

    def add(self, values: dict[str, Any]) -> Model:
        return services.add_server(actor=self.actor, **values)

    def change(self, values: dict[str, Any]) -> Model:
        return services.change_server(actor=self.actor, server=self.instance, **values)


class UserForm(ServiceForm):
    password = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Empty for a user who never signs in and has API tokens alone.",
    )

    class Meta:
        model = User
        fields = ("username", "email", "is_superuser")

    def add(self, values: dict[str, Any]) -> Model:
        values["password"] = values["password"] or None
        return services.add_user(actor=self.actor, **values)


class RoleForm(ServiceForm):
    class Meta:
        model = Role
        fields = ("user", "name", "environment")

    def add(self, values: dict[str, Any]) -> Model:
        return services.give_role(actor=self.actor, **values)


class ApiTokenForm(ServiceForm):
    text = ""

    class Meta:
        model = ApiToken
        fields = ("name", "user", "scope", "expires_at")

    def add(self, values: dict[str, Any]) -> Model:
        token, self.text = add_token(actor=self.actor, **values)
        return token
