"""Another end for memberships and grants, over HTTP. Each write is one service."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.rest import Input, Reason
from peers.api.people import GrantSerializer, GrantViewSet
from peers.api.teams import MembershipSerializer, MembershipViewSet, ids, rows_of
from peers.prolonging import prolong_grants, prolong_memberships


class EndInput(Input):
    """`until` is null for no end; it has to be said."""

    until = serializers.DateTimeField(allow_null=True)
    reason = Reason()


class MembershipEndsInput(EndInput):
    memberships = ids()


class GrantEndsInput(EndInput):
    grants = ids()


class LastingMembershipViewSet(MembershipViewSet):
    """Memberships, and other ends for them: the answer is what goes on from those."""

    @extend_schema(request=EndInput, responses={201: MembershipSerializer})
    @action(detail=True, methods=["post"], url_path="set-end", filterset_class=None)
    def set_end(self, request: Request, pk: str) -> Response:
        """Earlier or later. Peers, addresses and tunnel files stay."""
        row = self.get_object()
        return self.shown(prolong_memberships(actor=self.actor, memberships=[row], **self.given(EndInput))[0], 201)

    @extend_schema(
        operation_id="memberships_set_end_many",
        request=MembershipEndsInput,
        responses={201: MembershipSerializer(many=True)},
    )
    @action(detail=False, methods=["post"], url_path="set-end", url_name="set-end-many", filterset_class=None)
    def set_end_many(self, request: Request) -> Response:
        values = self.given(MembershipEndsInput)
        values["memberships"] = rows_of(self.get_queryset(), values["memberships"], "memberships", "membership")
        return _all(self, prolong_memberships(actor=self.actor, **values))


class LastingGrantViewSet(GrantViewSet):
    """Grants, and other ends for them: the answer is what goes on from those."""

    @extend_schema(request=EndInput, responses={201: GrantSerializer})
    @action(detail=True, methods=["post"], url_path="set-end", filterset_class=None)
    def set_end(self, request: Request, pk: str) -> Response:
        """Earlier or later. Peers, addresses and tunnel files stay."""
        grant = self.get_object()
        return self.shown(prolong_grants(actor=self.actor, grants=[grant], **self.given(EndInput))[0], 201)

    @extend_schema(
        operation_id="grants_set_end_many", request=GrantEndsInput, responses={201: GrantSerializer(many=True)}
    )
    @action(detail=False, methods=["post"], url_path="set-end", url_name="set-end-many", filterset_class=None)
    def set_end_many(self, request: Request) -> Response:
        values = self.given(GrantEndsInput)
        values["grants"] = rows_of(self.get_queryset(), values["grants"], "grants", "grant")
        return _all(self, prolong_grants(actor=self.actor, **values))


def _all(view: Any, rows: Any) -> Response:
    return Response(view.get_serializer(rows, many=True).data, 201)
