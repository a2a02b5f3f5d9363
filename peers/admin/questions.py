"""The pages of the four questions: a form, and the answer as tables, each also as CSV. They change nothing."""

import datetime as dt
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone

from fleet.forms import refuse
from fleet.scope import scope_of
from peers.admin.asking import AccessForm, PersonForm, ReachForm, TracesForm
from peers.answers import Line, Ref, Table, answer_access, answer_person, answer_reach, answer_traces, told_of
from peers.api.questions import table_as_csv

PAGE_ROWS = 100
Values = dict[str, Any]
PILLS = {
    **{"has it": "ok", "pending": "pending", "suspended": "bad", "waiting": "waiting", "no peer": "held"},
    **{"suspending": "suspending", "shut at its machine": "shut-at-its-machine", "letting in": "letting-in"},
    **{"issued": "issued", "not set up there yet": "not-enrolled"},
}


def _access(user: object, values: Values) -> list[Table]:
    names = ("environment", "server", "team", "person")
    narrowed = {name: values[name].pk for name in names if values.get(name)}
    return answer_access(user, values["at"], is_now=values["is_now"], **narrowed)


def _person(user: object, values: Values) -> list[Table]:
    return answer_person(user, values["at"], values["person"], is_now=values["is_now"])


def _reach(user: object, values: Values) -> list[Table]:
    return answer_reach(user, values["at"], values["network"], is_now=values["is_now"])


def _traces(user: object, values: Values) -> list[Table]:
    return answer_traces(user, values["kind"], values["what"])


def _page(
    title: str, form: Callable[..., forms.Form], ask: Callable[[object, Values], list[Table]], *, asks_all: bool = False
) -> Callable[[HttpRequest], HttpResponseBase]:
    """`asks_all`: there is an answer before anything was filled in."""

    def show(request: HttpRequest) -> HttpResponseBase:
        if scope_of(request.user).is_empty:
            raise PermissionDenied
        is_asked = bool(request.GET) or asks_all
        asked = form(request.GET if is_asked else None, request.user)
        tables = _tables(asked, request, ask) if is_asked else []
        chosen = [table for table in tables if table.name == request.GET.get("csv")]
        if chosen:
            return table_as_csv(chosen[0])
        shown = [_shown(table, request) for table in tables]
        found = asked.cleaned_data if asked.is_bound else {}
        note = told_of(found["is_now"]) if tables and "is_now" in found else ""
        page = {"title": title, "form": asked, "tables": shown, "at": found.get("at"), "note": note}
        context = {**admin.site.each_context(request), **page}
        return TemplateResponse(request, "admin/peers/answer.html", context)

    return show


def _tables(asked: forms.Form, request: HttpRequest, ask: Callable[[object, Values], list[Table]]) -> list[Table]:
    if not asked.is_valid():
        return []
    try:
        return ask(request.user, asked.cleaned_data)
    except ValidationError as error:
        refuse(asked, error)
        return []


def _shown(table: Table, request: HttpRequest) -> dict[str, Any]:
    """A page of a table; those of one page are told apart by their names."""
    text = request.GET.get(f"{table.name}-from", "")
    offset = min(int(text), table.total) if text.isdecimal() and len(text) < 10 else 0
    lines = table.page(offset, PAGE_ROWS)

    def address(**more: object) -> str:
        kept = {name: value for name, value in request.GET.items() if name != "csv"}
        return f"?{urlencode({**kept, **more})}"

    after = offset + PAGE_ROWS
    return {
        "table": table,
        "columns": [column.replace("_", " ") for column in table.columns],
        "rows": [[_cell(name, line) for name in table.columns] for line in lines],
        "begin": offset + 1 if lines else 0,
        "end": offset + len(lines),
        "csv": address(csv=table.name),
        "before": address(**{f"{table.name}-from": max(0, offset - PAGE_ROWS)}) if offset else "",
        "after": address(**{f"{table.name}-from": after}) if after < table.total else "",
    }


def _cell(name: str, line: Line) -> dict[str, Any]:
    value = line[name]
    parts = value if isinstance(value, list) else [value]
    return {
        "label": name.replace("_", " "),
        "parts": [_part(one) for one in parts if one not in (None, "")],
        "pill": PILLS.get(value, "none") if name == "state" else "",
        "is_mono": name in {"addresses", "networks", "public_key", "text", "network", "pool"},
    }


def _part(value: object) -> dict[str, str]:
    if isinstance(value, dt.datetime):
        return {"text": f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}", "url": ""}
    if isinstance(value, Ref):
        return {"text": value.text, "url": reverse(f"admin:{value.model.replace('.', '_')}_change", args=[value.pk])}
    return {"text": str(value), "url": ""}


app_name = "questions"
urlpatterns = [
    path(name, admin.site.admin_view(view), name=name)
    for name, view in (
        ("access", _page("Who has access to what", AccessForm, _access, asks_all=True)),
        ("person", _page("What one person has", PersonForm, _person)),
        ("reach", _page("What can reach a network", ReachForm, _reach)),
        ("traces", _page("Where it was seen", TracesForm, _traces)),
    )
]
