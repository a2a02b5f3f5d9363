"""Another end for a membership or a grant: the question, and the row where it is asked for."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from unfold.widgets import UnfoldAdminSplitDateTimeWidget

from fleet.forms import ReasonForm
from fleet.questions import ask
from peers.models import Grant, Membership

KEPT = "Tunnels go on as they are: the same file, the same addresses. Whoever was warned of the old end is warned anew."


def end_form(rows: Sequence[Grant] | Sequence[Membership]) -> type[forms.Form]:
    """Asks until when, beginning with the end that they have: nothing becomes endless by a field left empty."""
    ends: list[dt.datetime] = [row.until for row in rows if row.until]
    widget = UnfoldAdminSplitDateTimeWidget()
    widget.widgets[0].format = "%Y-%m-%d"  # as all pages write it
    until = forms.SplitDateTimeField(
        required=False,
        initial=max(ends, default=None),
        widget=widget,
        help_text="Later or earlier than now agreed. Empty for no end; contractors need one.",
    )
    return type("EndForm", (ReasonForm,), {"until": until, "field_order": ("until", "reason")})


def ask_end(
    request: HttpRequest,
    rows: Sequence[Grant] | Sequence[Membership],
    title: str,
    carry_out: Callable[[dict[str, Any]], str],
    **page: Any,
) -> HttpResponse:
    def perform(values: dict[str, Any]) -> str:
        answer = carry_out(values)
        until = values["until"]
        messages.success(request, f"Until {until:%Y-%m-%d %H:%M %Z}." if until else "Without an end from now on.")
        return answer

    return ask(request, perform, title=title, text=KEPT, button="Change end", form=end_form(rows), **page)
