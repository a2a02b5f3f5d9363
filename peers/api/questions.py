"""The four questions over HTTP: now or at any time before, as JSON a page at a time, or as CSV all of it."""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from fleet.cells import csv_answer, csv_lines
from fleet.models import Environment, Server, User
from fleet.pools import Network
from fleet.rest import Input, Text, Visible
from fleet.scope import visible_environments, visible_servers
from peers.access import visible_people, visible_teams
from peers.answers import (
    KEYS,
    Line,
    Ref,
    Table,
    answer_access,
    answer_person,
    answer_reach,
    answer_traces,
    told_of,
)
from peers.asked import parse_asked_network, parse_moment
from peers.history import MOST_ROWS
from peers.models import Person, Team
from peers.traces import KINDS

FIRST_ROWS = 100
Asked = dict[str, Any]


class PagedInput(Input):
    limit = serializers.IntegerField(min_value=1, max_value=MOST_ROWS, default=FIRST_ROWS)
    offset = serializers.IntegerField(min_value=0, max_value=2**31, default=0)
    table = Text(required=False, help_text="Of several tables of an answer the one that is paged, or wanted as CSV.")


class MomentInput(PagedInput):
    at = Text(
        required=False, allow_blank=True, help_text="A time in ISO 8601; without a zone the Console's. Now, if empty."
    )


class AccessInput(MomentInput):
    environment = Visible(Environment, visible_environments, required=False)
    server = Visible(Server, visible_servers, required=False)
    team = Visible(Team, visible_teams, required=False)
    person = Visible(Person, visible_people, required=False)


class PersonInput(MomentInput):
    person = Visible(Person, visible_people)


class ReachInput(MomentInput):
    network = Text(help_text="An address or a network, of either family.")


class TracesInput(PagedInput):
    kind = serializers.ChoiceField(list(KINDS))
    what = Text(max_length=200)


def _access(user: User, asked: Asked) -> list[Table]:
    names = ("environment", "server", "team", "person")
    narrowed = {name: asked[name].pk for name in names if name in asked}
    return answer_access(user, asked["at"], is_now=asked["is_now"], **narrowed)


def _person(user: User, asked: Asked) -> list[Table]:
    return answer_person(user, asked["at"], asked["person"], is_now=asked["is_now"])


def _reach(user: User, asked: Asked) -> list[Table]:
    network: Network = parse_asked_network(asked["network"])
    return answer_reach(user, asked["at"], network, is_now=asked["is_now"])


def _traces(user: User, asked: Asked) -> list[Table]:
    return answer_traces(user, asked["kind"], asked["what"])


def _plain(value: object) -> object:
    if isinstance(value, Ref):
        return {"text": value.text, "model": value.model, "id": value.pk}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _chosen(tables: list[Table], asked: Asked) -> Table:
    names = [table.name for table in tables]
    if asked.get("table", names[0]) not in names:
        raise serializers.ValidationError({"table": [f"There is no such table: use {', '.join(names)}."]})
    return tables[names.index(asked.get("table", names[0]))]


def _shown(tables: list[Table], asked: Asked) -> Response:
    """The paged table from `offset` on, the others from their beginning."""
    paged = _chosen(tables, asked)
    found: dict[str, Any] = {"at": asked.get("at")}
    if "is_now" in asked:
        found |= {"is_now": asked["is_now"], "note": told_of(asked["is_now"])}
    for table in tables:
        lines = table.page(asked["offset"] if table is paged else 0, asked["limit"])
        rows = [{name: _plain(line[name]) for name in table.columns} for line in lines]
        found[table.name] = {"total": table.total, "rows": rows}
    return Response(found)


def table_as_csv(table: Table) -> StreamingHttpResponse:
    def cells(line: Line) -> list[object]:
        return [line[name] for name in table.columns]

    return csv_answer(table.name, csv_lines(table.columns, map(cells, table.every()), KEYS))


class QuestionViewSet(ViewSet):
    """Each answers for what the user sees, as if there were nothing else."""

    queryset: QuerySet[Person] = Person.objects.none()

    def given(self, request: Request, form: type[Input]) -> Asked:
        asked = form(data=request.query_params.dict(), context={"request": request})
        asked.is_valid(raise_exception=True)
        values = dict(asked.validated_data)
        if issubclass(form, MomentInput):
            text = values.get("at", "")
            values |= {"at": parse_moment(text), "is_now": not text.strip()}
        return values

    def answer(self, request: Request, form: type[Input], ask: Callable[[Any, Asked], list[Table]]) -> Response:
        asked = self.given(request, form)
        return _shown(ask(request.user, asked), asked)

    def download(
        self, request: Request, form: type[Input], ask: Callable[[Any, Asked], list[Table]]
    ) -> StreamingHttpResponse:
        asked = self.given(request, form)
        return table_as_csv(_chosen(ask(request.user, asked), asked))

    @extend_schema(parameters=[AccessInput], responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["get"])
    def access(self, request: Request) -> Response:
        return self.answer(request, AccessInput, _access)

    @extend_schema(parameters=[AccessInput], responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(detail=False, methods=["get"], url_path="access/csv")
    def access_csv(self, request: Request) -> StreamingHttpResponse:
        return self.download(request, AccessInput, _access)

    @extend_schema(parameters=[PersonInput], responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["get"])
    def person(self, request: Request) -> Response:
        return self.answer(request, PersonInput, _person)

    @extend_schema(parameters=[PersonInput], responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(detail=False, methods=["get"], url_path="person/csv")
    def person_csv(self, request: Request) -> StreamingHttpResponse:
        return self.download(request, PersonInput, _person)

    @extend_schema(parameters=[ReachInput], responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["get"])
    def reach(self, request: Request) -> Response:
        return self.answer(request, ReachInput, _reach)

    @extend_schema(parameters=[ReachInput], responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(detail=False, methods=["get"], url_path="reach/csv")
    def reach_csv(self, request: Request) -> StreamingHttpResponse:
        return self.download(request, ReachInput, _reach)

    @extend_schema(parameters=[TracesInput], responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["get"])
    def traces(self, request: Request) -> Response:
        return self.answer(request, TracesInput, _traces)

    @extend_schema(parameters=[TracesInput], responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(detail=False, methods=["get"], url_path="traces/csv")
    def traces_csv(self, request: Request) -> StreamingHttpResponse:
        return self.download(request, TracesInput, _traces)
