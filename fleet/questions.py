"""A page that asks a person something before a service acts; nothing changes by a link alone."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from fleet.forms import ReasonForm, refuse
from fleet.refusal import REFUSED, record_refusal

ANSWERED = "_answered"


def ask(
    request: HttpRequest,
    perform: Callable[[dict[str, Any]], str],
    *,
    title: str,
    button: str,
    back: str,
    text: str = "",
    form: type[forms.Form] = ReasonForm,
    chosen: tuple[str, list[Model]] = ("", []),
) -> HttpResponse:
    """Shows `form` and, once it is answered, redirects to the address that `perform` returns. What the service
    refuses stands at the field. `back` is where Cancel leads; `chosen` is a list action's name and its rows."""
    is_answered = request.method == "POST" and ANSWERED in request.POST
    asked = form(request.POST if is_answered else None)
    if is_answered and asked.is_valid():
        try:
            return HttpResponseRedirect(perform(asked.cleaned_data))
        except REFUSED as error:
            refuse(asked, error)
            if isinstance(error, PermissionDenied):
                record_refusal(request.user, f"{request.method} {request.path}", error)
    _forget_secrets(asked)
    page = {
        **admin.site.each_context(request),
        **{"title": title, "button": button, "text": text, "form": asked, "answered": ANSWERED},
        **{"back": back, "action": chosen[0], "chosen": chosen[1]},
    }
    return TemplateResponse(request, "admin/question.html", page)


def _forget_secrets(asked: forms.Form) -> None:
    """A page that is shown again never holds a secret: it is typed anew."""
    secrets = getattr(asked, "secrets", ())
    if secrets and asked.is_bound:
        asked.data = {**asked.data.dict(), **dict.fromkeys(secrets, "")}  # type: ignore[attr-defined]


class SureForm(forms.Form):
    """Nothing to fill in: the button is the answer."""
