"""Teams and memberships over HTTP. Each write is one service."""

from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.filters import by_id
from fleet.rest import Input, Reason, Resource, Text, Visible
from peers import teams
from peers.access import visible_memberships, visible_people, visible_teams
from peers.api.people import ReasonInput
from peers.models import Membership, Team
from peers.states import membership_state

Ids = serializers.ListField


def ids() -> Any:
    return Ids(child=serializers.IntegerField(min_value=1, max_value=2**63 - 1), allow_empty=False, max_length=1000)


def rows_of(rows: QuerySet[Any], chosen: list[int], field: str, noun: str) -> list[Any]:
    """Those of these ids; ValidationError names every one that is not there."""
    found = {row.pk: row for row in rows.filter(pk__in=chosen)}
    missing = sorted(set(chosen) - found.keys())
    if missing:
        raise ValidationError({field: f"There is no {noun} {', '.join(map(str, missing))}."})
    return list(found.values())


class TeamSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ("id", "name", "description", "created_at", "ended_at")


class TeamInput(Input):
    name = Text()
    description = Text(required=False, allow_blank=True)


class TeamFilter(django_filters.FilterSet):
    name = django_filters.CharFilter()
    is_ended = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull", exclude=True)


class TeamViewSet(Resource[Team]):
    serializer_class = TeamSerializer
    filterset_class = TeamFilter

    def get_queryset(self) -> QuerySet[Team]:
        return visible_teams(self.request.user)

    @extend_schema(request=TeamInput, responses={201: TeamSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(teams.add_team(actor=self.actor, **self.given(TeamInput)), 201)

    @extend_schema(request=ReasonInput, responses=TeamSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def end(self, request: Request, pk: str) -> Response:
        team = self.get_object()
        return self.shown(teams.end_team(actor=self.actor, team=team, **self.given(ReasonInput)))


class MembershipSerializer(serializers.ModelSerializer[Membership]):
    person_name = serializers.CharField(source="person.name")
    team_name = serializers.CharField(source="team.name")
    state = serializers.SerializerMethodField()

    class Meta:
        model = Membership
        fields = (
            *("id", "person", "person_name", "team", "team_name", "began_at", "until", "added_by", "ended_at"),
            *("state", "goes_on_from", "end_reason"),
        )

    def get_state(self, row: Membership) -> str:
        return membership_state(row)


class JoinInput(Input):
    team = Visible(Team, visible_teams)
    people = ids()
    until = serializers.DateTimeField(required=False, allow_null=True)
    reason = Text(required=False, allow_blank=True, max_length=500)


class LeaveInput(Input):
    memberships = ids()
    reason = Reason()


class MembershipFilter(django_filters.FilterSet):
    person = by_id("person_id")
    team = by_id("team_id")
    is_ended = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull", exclude=True)


class MembershipViewSet(Resource[Membership]):
    serializer_class = MembershipSerializer
    filterset_class = MembershipFilter

    def get_queryset(self) -> QuerySet[Membership]:
        return visible_memberships(self.request.user)

    @extend_schema(request=JoinInput, responses={201: MembershipSerializer(many=True)})
    def create(self, request: Request) -> Response:
        """Several people at once, in one act."""
        values = self.given(JoinInput)
        values["people"] = rows_of(visible_people(request.user), values["people"], "people", "person")
        joined = teams.join_team(actor=self.actor, **values)
        return Response(self.get_serializer(joined, many=True).data, 201)

    @extend_schema(request=ReasonInput, responses=MembershipSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def end(self, request: Request, pk: str) -> Response:
        membership = self.get_object()
        teams.leave_team(actor=self.actor, memberships=[membership], **self.given(ReasonInput))
        membership.refresh_from_db()
        return self.shown(membership)

    @extend_schema(operation_id="memberships_end_many", request=LeaveInput, responses=MembershipSerializer(many=True))
    @action(detail=False, methods=["post"], url_path="end", url_name="end-many", filterset_class=None)
    def end_many(self, request: Request) -> Response:
        values = self.given(LeaveInput)
        chosen = rows_of(self.get_queryset(), values["memberships"], "memberships", "membership")
        teams.leave_team(actor=self.actor, memberships=chosen, reason=values["reason"])
        ended = self.get_queryset().filter(pk__in=[one.pk for one in chosen])
        return Response(self.get_serializer(ended, many=True).data)
