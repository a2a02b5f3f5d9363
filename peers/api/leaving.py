"""People who leave and devices that are lost, over HTTP. Each write is one service."""

from typing import Any

from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fleet.models import ApiToken
from fleet.rest import Input, Reason, Text
from fleet.sign_in import SAFE
from peers.access import own_devices, visible_people
from peers.api.people import DeviceSerializer, DeviceViewSet, PersonViewSet, RevocationSerializer, shown_revocations
from peers.leaving import offboard
from peers.lost import report_lost
from peers.models import Device, Revocation
from peers.naming import MOST_NAMED, people_named
from peers.waiting import seen_waiting


@extend_schema_field(OpenApiTypes.STR)
class Name(serializers.Field[Any, Any, Any, Any]):
    """An e-mail address or an id."""

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, bool) or not isinstance(data, str | int):
            raise serializers.ValidationError("Give an e-mail address or an id.")
        return str(data)[:254]


class OffboardInput(Input):
    people = serializers.ListField(child=Name(), allow_empty=False, max_length=MOST_NAMED)
    reason = Reason()


class LeaverViewSet(PersonViewSet):
    """People, and the end of all that they have."""

    @extend_schema(request=OffboardInput, responses={201: RevocationSerializer})
    @action(detail=False, methods=["post"], filterset_class=None)
    def offboard(self, request: Request) -> Response:
        """By e-mail addresses and ids: where one is unknown or may be somebody else, nothing is done."""
        values = self.given(OffboardInput)
        people = people_named(values["people"], visible_people(request.user))
        row = offboard(actor=self.actor, people=people, reason=values["reason"])
        return Response(_shown(request, row), 201)


class LostInput(Input):
    reason = Text(required=False, allow_blank=True, max_length=490)
    public_key = Text(required=False)
    name = Text(required=False)


class LostSerializer(serializers.Serializer[Any]):
    revocation = RevocationSerializer()
    device = DeviceSerializer(allow_null=True)
    waits_for_address = serializers.ListField(
        child=serializers.CharField(), help_text="The names of servers that have no address free for the device yet."
    )


class MayBeOwner(BasePermission):
    """Anybody who signs in: which rows they reach is the view's affair. A token of scope read changes nothing."""

    message = "Your token does not allow this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.auth, ApiToken) and request.auth.scope == ApiToken.Scope.READ:
            return request.method in SAFE
        return bool(request.user and request.user.is_authenticated)


class LostDeviceViewSet(DeviceViewSet):
    """Devices, and what a person does about their own without any role."""

    @extend_schema(operation_id="devices_own", responses=DeviceSerializer(many=True))
    @action(detail=False, methods=["get"], filterset_class=None, permission_classes=[MayBeOwner], pagination_class=None)
    def own(self, request: Request) -> Response:
        """The devices of the person whom this user signs in as."""
        return Response(self.get_serializer(own_devices(request.user), many=True).data)

    @extend_schema(request=LostInput, responses={201: LostSerializer})
    @action(detail=True, methods=["post"], filterset_class=None, permission_classes=[MayBeOwner])
    def lost(self, request: Request, pk: str) -> Response:
        """Revokes the key everywhere; `public_key` is that of the device that takes its place. Where a pool is full
        that one waits; the key is dead all the same."""
        row, new = report_lost(actor=self.actor, device=self._reachable(pk), **self.given(LostInput))
        device = None if new is None else self.get_serializer(new).data
        waits = seen_waiting([new], self.actor).get(new.pk, []) if new else []
        return Response({"revocation": _shown(request, row), "device": device, "waits_for_address": waits}, 201)

    def _reachable(self, pk: str) -> Device:
        rows = self.get_queryset() | own_devices(self.request.user)
        found = rows.filter(pk=pk).first() if pk.isascii() and pk.isdecimal() and len(pk) < 19 else None
        if found is None:
            raise Http404
        return found


def _shown(request: Request, row: Revocation) -> Any:
    found = shown_revocations(request.user, Revocation.objects.filter(pk=row.pk)).get()
    return RevocationSerializer(found, context={"request": request}).data
