"""Who is kept out, and why, over HTTP. Each write is one service."""

from typing import Any

import django_filters
from django.db.models import F, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.filters import by_id
from fleet.rest import Input, Reason, Resource, Visible
from peers import suspending
from peers.access import visible_devices, visible_peers, visible_people, visible_suspensions
from peers.api.people import ReasonInput
from peers.models import Device, Peer, Person, Suspension
from peers.states import suspension_state


class SuspensionSerializer(serializers.ModelSerializer[Suspension]):
    target = serializers.CharField()
    state = serializers.SerializerMethodField()
    since = serializers.DateTimeField(read_only=True)

    class Meta:
        model = Suspension
        fields = (
            *("id", "person", "device", "peer", "target", "state", "reason", "since", "began_at", "suspended_by"),
            *("is_idle", "ended_at", "ended_by"),
        )

    def get_state(self, row: Suspension) -> str:
        return suspension_state(row)


class SuspensionInput(Input):
    person = Visible(Person, visible_people, required=False)
    device = Visible(Device, visible_devices, required=False)
    peer = Visible(Peer, visible_peers, required=False)
    reason = Reason()

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if len(values) != 2:
            raise serializers.ValidationError("Name a person, a device or a peer: one of them.")
        return values


class SuspensionFilter(django_filters.FilterSet):
    person = by_id("person_id")
    device = by_id("device_id")
    peer = django_filters.UUIDFilter(field_name="peer_id")
    is_idle = django_filters.BooleanFilter()
    is_ended = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull", exclude=True)


class SuspensionViewSet(Resource[Suspension]):
    """Open ones first."""

    serializer_class = SuspensionSerializer
    filterset_class = SuspensionFilter

    def get_queryset(self) -> QuerySet[Suspension]:
        return visible_suspensions(self.request.user).order_by(F("ended_at").desc(nulls_first=True), "-began_at")

    @extend_schema(request=SuspensionInput, responses={201: SuspensionSerializer})
    def create(self, request: Request) -> Response:
        values = self.given(SuspensionInput)
        reason = values.pop("reason")
        (target,) = values.values()
        found = suspending.suspend(actor=self.actor, targets=[target], reason=reason)
        return self.shown(found[0], 201)

    @extend_schema(request=ReasonInput, responses=SuspensionSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def resume(self, request: Request, pk: str) -> Response:
        suspension = self.get_object()
        return self.shown(suspending.resume(actor=self.actor, suspension=suspension, **self.given(ReasonInput)))
