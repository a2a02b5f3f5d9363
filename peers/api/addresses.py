"""Addresses over HTTP: who has which, reservations, named pools, static addresses, routed networks."""

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet import named_pools
from fleet.filters import by_id
from fleet.models import AddressRange, Pool, Server
from fleet.pools import from_hex
from fleet.rest import Input, Reason, Resource, Text, Visible
from fleet.scope import visible_servers
from peers import reserving, routing, static
from peers.access import (
    visible_devices,
    visible_pools,
    visible_ranges,
    visible_routed_networks,
    visible_static_addresses,
)
from peers.api.people import ReasonInput
from peers.holders import STATES, lies_in, state_of, why
from peers.models import Device, RoutedNetwork, StaticAddress


class AddressRangeSerializer(serializers.ModelSerializer[AddressRange]):
    """`why` is one sentence: who has it, or why nobody may have it now."""

    server_name = serializers.CharField(source="server.name")
    first = serializers.SerializerMethodField()
    last = serializers.SerializerMethodField()
    state = serializers.SerializerMethodField()
    why = serializers.SerializerMethodField()

    class Meta:
        model = AddressRange
        fields = (
            *("id", "server", "server_name", "first", "last", "kind", "state", "why"),
            *("reason", "taken_by", "taken_at", "freed_at", "released_at"),
        )

    def get_first(self, row: AddressRange) -> str:
        return str(from_hex(row.first))

    def get_last(self, row: AddressRange) -> str:
        return str(from_hex(row.last))

    @extend_schema(responses=serializers.ChoiceField(list(STATES)))
    def get_state(self, row: AddressRange) -> str:
        return state_of(row)

    def get_why(self, row: AddressRange) -> str:
        return why(row)


class AddressRangeFilter(django_filters.FilterSet):
    server = by_id("server_id")
    kind = django_filters.ChoiceFilter(choices=AddressRange.Kind.choices)
    state = django_filters.ChoiceFilter(choices=[(state, state) for state in STATES], method="in_state")
    address = django_filters.CharFilter(method="holding", help_text="Ranges that hold this address, or meet a network.")

    def in_state(self, rows: QuerySet[AddressRange], name: str, value: str) -> QuerySet[AddressRange]:
        return rows.filter(STATES[value])

    def holding(self, rows: QuerySet[AddressRange], name: str, value: str) -> QuerySet[AddressRange]:
        try:
            return rows.filter(lies_in(value))
        except ValueError as error:
            raise serializers.ValidationError({name: [f"{error}: give one such as 10.1.0.7."]}) from None


class AddressRangeViewSet(Resource[AddressRange]):
    serializer_class = AddressRangeSerializer
    filterset_class = AddressRangeFilter

    def get_queryset(self) -> QuerySet[AddressRange]:
        return visible_ranges(self.request.user).order_by("server", "first", "pk")


class ReservationInput(Input):
    server = Visible(Server, visible_servers)
    addresses = Text()
    reason = Reason()


class ReservationViewSet(Resource[AddressRange]):
    """`addresses` is one address, a network, or first-last, such as `10.1.0.7-10.1.0.19`."""

    serializer_class = AddressRangeSerializer
    filterset_class = AddressRangeFilter

    def get_queryset(self) -> QuerySet[AddressRange]:
        rows = visible_ranges(self.request.user).filter(kind=AddressRange.Kind.RESERVED)
        return rows.order_by("server", "first", "pk")

    @extend_schema(request=ReservationInput, responses={201: AddressRangeSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(reserving.reserve_addresses(actor=self.actor, **self.given(ReservationInput)), 201)

    @extend_schema(request=ReasonInput, responses=AddressRangeSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def release(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        return self.shown(
            reserving.release_addresses(actor=self.actor, reservation=row, **self.given(ReasonInput)),
        )


class PoolSerializer(serializers.ModelSerializer[Pool]):
    class Meta:
        model = Pool
        fields = ("id", "server", "name", "ipv4", "ipv6", "created_at", "ended_at")


class PoolInput(Input):
    server = Visible(Server, visible_servers)
    name = Text()
    ipv4 = Text(required=False, allow_blank=True)
    ipv6 = Text(required=False, allow_blank=True)


class IntervalFilter(django_filters.FilterSet):
    server = by_id("server_id")
    is_ended = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull", exclude=True)


class OwnFilter(IntervalFilter):
    device = by_id("device_id")
    person = by_id("device__person_id")


class PoolViewSet(Resource[Pool]):
    serializer_class = PoolSerializer
    filterset_class = IntervalFilter

    def get_queryset(self) -> QuerySet[Pool]:
        return visible_pools(self.request.user)

    @extend_schema(request=PoolInput, responses={201: PoolSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(named_pools.add_pool(actor=self.actor, **self.given(PoolInput)), 201)

    @extend_schema(request=ReasonInput, responses=PoolSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def end(self, request: Request, pk: str) -> Response:
        pool = self.get_object()
        return self.shown(named_pools.end_pool(actor=self.actor, pool=pool, **self.given(ReasonInput)))


class StaticAddressSerializer(serializers.ModelSerializer[StaticAddress]):
    ipv4 = serializers.SerializerMethodField()
    ipv6 = serializers.SerializerMethodField()

    class Meta:
        model = StaticAddress
        fields = ("id", "device", "server", "ipv4", "ipv6", "reason", "assigned_by", "began_at", "ended_at")

    def get_ipv4(self, row: StaticAddress) -> str | None:
        return str(from_hex(row.ipv4.first)) if row.ipv4 else None

    def get_ipv6(self, row: StaticAddress) -> str | None:
        return str(from_hex(row.ipv6.first)) if row.ipv6 else None


class AssignedSerializer(StaticAddressSerializer):
    """`is_reissued`: a live peer was given these addresses, and its tunnel file has to be handed out anew."""

    is_reissued = serializers.SerializerMethodField()

    class Meta(StaticAddressSerializer.Meta):
        fields = (*StaticAddressSerializer.Meta.fields, "is_reissued")  # type: ignore[assignment]

    def get_is_reissued(self, row: StaticAddress) -> bool:
        return static.is_reissued(row)


class StaticAddressInput(Input):
    device = Visible(Device, visible_devices)
    server = Visible(Server, visible_servers)
    ipv4 = Text(required=False, allow_blank=True)
    ipv6 = Text(required=False, allow_blank=True)
    reason = Reason()


class StaticAddressViewSet(Resource[StaticAddress]):
    serializer_class = StaticAddressSerializer
    filterset_class = OwnFilter

    def get_queryset(self) -> QuerySet[StaticAddress]:
        return visible_static_addresses(self.request.user)

    @extend_schema(request=StaticAddressInput, responses={201: AssignedSerializer})
    def create(self, request: Request) -> Response:
        row = static.assign_address(actor=self.actor, **self.given(StaticAddressInput))
        return Response(AssignedSerializer(row).data, 201)

    @extend_schema(request=ReasonInput, responses=StaticAddressSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def end(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        return self.shown(static.end_static_address(actor=self.actor, static=row, **self.given(ReasonInput)))


class RoutedNetworkSerializer(serializers.ModelSerializer[RoutedNetwork]):
    class Meta:
        model = RoutedNetwork
        fields = ("id", "device", "server", "network", "reason", "routed_by", "began_at", "ended_at")


class RoutedNetworkInput(Input):
    device = Visible(Device, visible_devices)
    server = Visible(Server, visible_servers)
    network = Text()
    reason = Reason()


class RoutedNetworkViewSet(Resource[RoutedNetwork]):
    serializer_class = RoutedNetworkSerializer
    filterset_class = OwnFilter

    def get_queryset(self) -> QuerySet[RoutedNetwork]:
        return visible_routed_networks(self.request.user)

    @extend_schema(request=RoutedNetworkInput, responses={201: RoutedNetworkSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(routing.route_network(actor=self.actor, **self.given(RoutedNetworkInput)), 201)

    @extend_schema(request=ReasonInput, responses=RoutedNetworkSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def end(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        return self.shown(routing.end_route(actor=self.actor, route=row, **self.given(ReasonInput)))
