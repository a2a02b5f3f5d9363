"""What an operator types to enrol a server, none of which is ever shown again, and to decide on a peer."""

from django import forms
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from fleet.forms import Line, ReasonForm

READ_IT = "Read it at the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"


class EnrolForm(forms.Form):
    """The fingerprint that the operator confirms, and a login that is used once and deleted."""

    secrets = ("password", "private_key")

    host_key = Line(label="Host key or its fingerprint", max_length=1000, help_text=READ_IT)
    user = Line(label="Login user", initial="root", max_length=32)
    password = forms.CharField(
        required=False,
        strip=False,
        max_length=1000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
    )
    private_key = forms.CharField(
        label="or private key",
        required=False,
        strip=False,
        max_length=20_000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5, "spellcheck": "false"}),
        help_text="Sealed for the workers at once, used one time, deleted on use or after ten minutes.",
    )

    def clean_private_key(self) -> str:
        """Browsers send lines as CRLF; a key file has LF alone."""
        return str(self.cleaned_data["private_key"]).replace("\r\n", "\n")


class DecisionForm(ReasonForm):
    decision = forms.ChoiceField(
        choices=[("", "Choose"), ("resume", "Let it in again"), ("revoke", "Revoke its key, everywhere and for ever")],
        widget=UnfoldAdminSelectWidget,
    )

    field_order = ("decision", "reason")
