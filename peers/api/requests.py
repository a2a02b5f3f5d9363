"""Asking for access over HTTP, and deciding about it."""

from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet import fields
from fleet.filters import by_id
from fleet.models import Environment, Server, User
from fleet.rest import Input, Reason, Resource, Text, Visible
from fleet.scope import visible_environments, visible_servers
from peers import requests
from peers.access import askable_people, own_person, place_named, visible_requests
from peers.api.own import MaySeeOwn
from peers.models import AccessRequest, Person


class AccessRequestSerializer(serializers.ModelSerializer[AccessRequest]):
    person_name = serializers.CharField(source="person.name")
    to = serializers.SerializerMethodField()
    state = serializers.CharField()
    grant = serializers.SerializerMethodField()

    class Meta:
        model = AccessRequest
        fields = (
            *("id", "person", "person_name", "environment", "server", "to", "networks", "hours", "duration", "reason"),
            *("state", "asked_by", "created_at", "first_approved_by", "first_approved_at"),
            *("decision", "decided_by", "decided_at", "decision_reason", "grant"),
        )

    def get_to(self, asked: AccessRequest) -> str:
        return str(asked.environment or asked.server)

    def get_grant(self, asked: AccessRequest) -> int | None:
        grant = getattr(asked, "grant", None)
        return grant.pk if grant else None


class AccessRequestInput(Input):
    """`place` names an environment or a server that this user need not see, for access of their own."""

    person = Visible(Person, askable_people, required=False)
    environment = Visible(Environment, visible_environments, required=False, allow_null=True)
    server = Visible(Server, visible_servers, required=False, allow_null=True)
    place = Text(required=False)
    networks = serializers.ListField(child=Text(), required=False, max_length=100)
    hours = Text(required=False, allow_blank=True)
    duration = serializers.DurationField()
    reason = Reason()

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        return requested(self.context["request"].user, values)


def requested(user: User, values: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `request_access`: who names nobody asks for themselves, who names a place means that one."""
    values = dict(values)
    if values.get("person") is None:
        values["person"] = own_person(user)
    if values["person"] is None:
        raise ValidationError({"person": "Say whom this is for: you are not linked to a person yourself."})
    if name := values.pop("place", ""):
        if values.get("environment") or values.get("server"):
            raise ValidationError({"place": "Name one place: an environment, a server or this."})
        values.update(place_named(user, name))
    return values


class OptionalReason(Input):
    reason = Text(required=False, allow_blank=True, max_length=500, validators=[fields.one_line])


class DenialInput(Input):
    reason = Reason()


class AccessRequestFilter(django_filters.FilterSet):
    person = by_id("person_id")
    environment = by_id("environment_id")
    server = by_id("server_id")
    decision = django_filters.ChoiceFilter(choices=AccessRequest.Decision.choices)
    is_open = django_filters.BooleanFilter(field_name="decided_at", lookup_expr="isnull")


class AccessRequestViewSet(Resource[AccessRequest]):
    serializer_class = AccessRequestSerializer
    filterset_class = AccessRequestFilter
    permission_classes = [MaySeeOwn]

    def get_queryset(self) -> QuerySet[AccessRequest]:
        return visible_requests(self.request.user)

    @extend_schema(request=AccessRequestInput, responses={201: AccessRequestSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(requests.request_access(actor=self.actor, **self.given(AccessRequestInput)), 201)

    @extend_schema(request=OptionalReason, responses=AccessRequestSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def approve(self, request: Request, pk: str) -> Response:
        asked = self.get_object()
        return self.shown(requests.approve_request(actor=self.actor, request=asked, **self.given(OptionalReason)))

    @extend_schema(request=DenialInput, responses=AccessRequestSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def deny(self, request: Request, pk: str) -> Response:
        asked = self.get_object()
        return self.shown(requests.deny_request(actor=self.actor, request=asked, **self.given(DenialInput)))

    @extend_schema(request=OptionalReason, responses=AccessRequestSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def cancel(self, request: Request, pk: str) -> Response:
        asked = self.get_object()
        return self.shown(requests.cancel_request(actor=self.actor, request=asked, **self.given(OptionalReason)))


class StorySerializer(serializers.ModelSerializer[AccessRequest]):
    """Where a grant comes from."""

    class Meta:
        model = AccessRequest
        fields = (
            *("id", "asked_by", "created_at", "duration", "reason"),
            *("first_approved_by", "first_approved_at", "decided_by", "decided_at", "decision_reason"),
        )
