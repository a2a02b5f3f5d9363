"""People, devices, grants, peers and revocations over HTTP. Each write is one service."""

from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from audit.services import Actor
from fleet.access import require_operator
from fleet.filters import before, by_id
from fleet.models import Environment, Server
from fleet.rest import Input, Reason, Resource, Text, Visible
from fleet.scope import visible_environments, visible_servers
from fleet.sealing import SealBroken
from fleet.sign_in import MayFetchSecret
from peers import granting, moving, revocation, services
from peers.access import (
    of_person,
    visible_devices,
    visible_grants,
    visible_peers,
    visible_people,
    visible_receipts,
    visible_revocations,
    visible_teams,
)
from peers.api.linking import Linking
from peers.api.own import MaySeeOwn
from peers.api.requests import StorySerializer
from peers.idle import is_idle
from peers.models import PENDING, Device, Grant, Peer, Person, Receipt, Revocation, Team
from peers.rights import open_memberships
from peers.selectors import NotEnrolled, address_of, config_of
from peers.states import GRANT_STATES, grant_state, grants_in, peer_state


class PersonSerializer(serializers.ModelSerializer[Person]):
    user = serializers.CharField(source="user.username", default=None)

    class Meta:
        model = Person
        fields = ("id", "name", "email", "kind", "user", "created_at", "left_at")


class PersonInput(Input):
    name = Text()
    email = Text(required=False, allow_blank=True)
    kind = Text(required=False)


class PersonFilter(django_filters.FilterSet):
    name = django_filters.CharFilter()
    email = django_filters.CharFilter()
    kind = django_filters.ChoiceFilter(choices=Person.Kind.choices)
    team = django_filters.NumberFilter(method="in_team", min_value=1, max_value=2**63 - 1, decimal_places=0)
    has_left = django_filters.BooleanFilter(field_name="left_at", lookup_expr="isnull", exclude=True)

    def in_team(self, rows: QuerySet[Person], name: str, value: int) -> QuerySet[Person]:
        return rows.filter(pk__in=open_memberships(timezone.now()).filter(team=value).values("person"))


class PersonViewSet(Linking):
    serializer_class = PersonSerializer
    filterset_class = PersonFilter

    def get_queryset(self) -> QuerySet[Person]:
        return visible_people(self.request.user)

    @extend_schema(request=PersonInput, responses={201: PersonSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(services.add_person(actor=self.actor, **self.given(PersonInput)), 201)

    @extend_schema(request=PersonInput, responses=PersonSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        person = self.get_object()
        values = self.given(PersonInput, partial=True)
        return self.shown(services.change_person(actor=self.actor, person=person, **values))


class DeviceSerializer(serializers.ModelSerializer[Device]):
    class Meta:
        model = Device
        fields = ("id", "person", "name", "public_key", "replaces", "created_at", "revoked_at")


class DeviceInput(Input):
    person = Visible(Person, visible_people)
    name = Text()
    public_key = Text()
    replaces = Visible(Device, visible_devices, required=False, allow_null=True)


class DeviceFilter(django_filters.FilterSet):
    person = by_id("person_id")
    public_key = django_filters.CharFilter()
    is_revoked = django_filters.BooleanFilter(field_name="revoked_at", lookup_expr="isnull", exclude=True)


class DeviceViewSet(Resource[Device]):
    serializer_class = DeviceSerializer
    filterset_class = DeviceFilter

    def get_queryset(self) -> QuerySet[Device]:
        return visible_devices(self.request.user)

    @extend_schema(request=DeviceInput, responses={201: DeviceSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(services.register_device(actor=self.actor, **self.given(DeviceInput)), 201)


class GrantSerializer(serializers.ModelSerializer[Grant]):
    request = StorySerializer(allow_null=True)
    holder = serializers.CharField()
    state = serializers.SerializerMethodField()

    class Meta:
        model = Grant
        fields = (
            *("id", "person", "team", "holder", "environment", "server", "networks", "hours", "pool", "begins_at"),
            *("until", "state", "reason", "granted_by", "request", "moved_from", "goes_on_from", "end_reason"),
            "ended_at",
        )

    @extend_schema_field(serializers.ChoiceField(GRANT_STATES))
    def get_state(self, grant: Grant) -> str:
        return grant_state(grant)


class GrantInput(Input):
    person = Visible(Person, visible_people, required=False)
    team = Visible(Team, visible_teams, required=False)
    environment = Visible(Environment, visible_environments, required=False, allow_null=True)
    server = Visible(Server, visible_servers, required=False, allow_null=True)
    networks = serializers.ListField(child=Text(), required=False, max_length=100)
    hours = Text(required=False, allow_blank=True)
    pool = Text(required=False, allow_blank=True)
    begins_at = serializers.DateTimeField(required=False, allow_null=True)
    until = serializers.DateTimeField(required=False, allow_null=True)
    reason = Reason()


class ReasonInput(Input):
    reason = Reason()


class MoveInput(Input):
    server = Visible(Server, visible_servers)
    reason = Reason()


class GrantsInput(Input):
    grants = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1), allow_empty=False, max_length=1000
    )
    reason = Reason()


class GrantFilter(django_filters.FilterSet):
    person = by_id("person_id")
    team = by_id("team_id")
    environment = by_id("environment_id")
    server = by_id("server_id")
    is_ended = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull", exclude=True)
    state = django_filters.ChoiceFilter(choices=[(state, state) for state in GRANT_STATES], method="in_state")

    def in_state(self, rows: QuerySet[Grant], name: str, value: str) -> QuerySet[Grant]:
        return grants_in(rows, value)


class GrantViewSet(Resource[Grant]):
    serializer_class = GrantSerializer
    filterset_class = GrantFilter
    permission_classes = [MaySeeOwn]

    def get_queryset(self) -> QuerySet[Grant]:
        return visible_grants(self.request.user)

    @extend_schema(request=GrantInput, responses={201: GrantSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(granting.grant_access(actor=self.actor, **self.given(GrantInput)), 201)

    @extend_schema(request=ReasonInput, responses=GrantSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def end(self, request: Request, pk: str) -> Response:
        grant = self.get_object()
        granting.end_grants(actor=self.actor, grants=[grant], **self.given(ReasonInput))
        grant.refresh_from_db()
        return self.shown(grant)

    @extend_schema(request=MoveInput, responses={201: GrantSerializer})
    @action(detail=True, methods=["post"], filterset_class=None)
    def move(self, request: Request, pk: str) -> Response:
        """The same right to another server; the answer is the new grant."""
        grant = self.get_object()
        return self.shown(moving.move_grant(actor=self.actor, grant=grant, **self.given(MoveInput)), 201)

    @extend_schema(operation_id="grants_end_many", request=GrantsInput, responses=GrantSerializer(many=True))
    @action(detail=False, methods=["post"], url_path="end", url_name="end-many", filterset_class=None)
    def end_many(self, request: Request) -> Response:
        values = self.given(GrantsInput)
        chosen = self.get_queryset().filter(pk__in=values["grants"])
        missing = set(values["grants"]) - {grant.pk for grant in chosen}
        if missing:
            raise ValidationError({"grants": f"There is no grant {', '.join(map(str, sorted(missing)))}."})
        granting.end_grants(actor=self.actor, grants=list(chosen), reason=values["reason"])
        return Response(GrantSerializer(chosen.all(), many=True).data)


class PeerSerializer(serializers.ModelSerializer[Peer]):
    device_name = serializers.CharField(source="device.name")
    person = serializers.IntegerField(source="device.person_id")
    public_key = serializers.CharField(source="device.public_key")
    server_name = serializers.CharField(source="server.name")
    addresses = serializers.SerializerMethodField()
    state = serializers.SerializerMethodField()
    waits_for = serializers.UUIDField(source="waits_for_id", allow_null=True)
    endpoint = serializers.CharField(source="status.endpoint")
    latest_handshake_at = serializers.DateTimeField(source="status.latest_handshake_at", allow_null=True)
    transfer_rx = serializers.IntegerField(source="status.transfer_rx")
    transfer_tx = serializers.IntegerField(source="status.transfer_tx")

    class Meta:
        model = Peer
        fields = (
            *("id", "device", "device_name", "person", "public_key", "server", "server_name", "addresses"),
            *("networks", "windows", "expires_at", "issued_at", "issued_by", "ended_at", "end", "gone_at"),
            *("state", "waits_for", "endpoint", "latest_handshake_at", "transfer_rx", "transfer_tx"),
        )

    def get_addresses(self, peer: Peer) -> list[str]:
        return [address_of(peer.ipv4), address_of(peer.ipv6)]

    def get_state(self, peer: Peer) -> str:
        """One of connected, issued, suspending, suspended, letting in, outside its hours, shut at its machine,
        not set up there yet, leaving, gone, or `waits for` and the server that it moved from."""
        return peer_state(peer)


class PeerFilter(django_filters.FilterSet):
    device = by_id("device_id")
    person = by_id("device__person_id")
    server = by_id("server_id")
    is_ended = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull", exclude=True)
    expires_before = before("expires_at")
    is_idle = django_filters.BooleanFilter(method="by_idle")

    def by_idle(self, rows: QuerySet[Peer], name: str, value: bool) -> QuerySet[Peer]:
        found = is_idle(timezone.now())
        return rows.filter(found) if value else rows.exclude(found)


def config_answer(actor: Actor, peer: Peer) -> HttpResponse:
    """The tunnel file as a download, to an operator of the server; ValidationError where there is none to give."""
    require_operator(actor, peer.server.environment)
    if peer.ended_at is not None:
        raise ValidationError({"peer": f"{peer} has ended: there is no tunnel for it any more."})
    try:
        text = config_of(peer).text()
    except NotEnrolled as error:
        raise ValidationError({"server": str(error)}) from None
    except SealBroken as error:
        raise ValidationError(
            {"peer": f"Its preshared key does not open ({error}): tell who runs this Console."}
        ) from None
    answer = HttpResponse(text, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{peer.server.name[:15]}.conf"'
    answer["Cache-Control"] = "no-store"
    return answer


class PeerViewSet(Resource[Peer]):
    serializer_class = PeerSerializer
    filterset_class = PeerFilter
    permission_classes = [MaySeeOwn]

    def get_queryset(self) -> QuerySet[Peer]:
        return visible_peers(self.request.user)

    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    @action(detail=True, methods=["get"], filterset_class=None, permission_classes=[MayFetchSecret])
    def config(self, request: HttpRequest, pk: str) -> HttpResponse:
        return config_answer(self.actor, self.get_object())

    @extend_schema(operation_id="peers_let_in", request=ReasonInput, responses=PeerSerializer)
    @action(detail=True, methods=["post"], url_path="let-in", filterset_class=None)
    def let_in(self, request: Request, pk: str) -> Response:
        """Of a peer that moved: without the word of its old server."""
        peer = self.get_object()
        return self.shown(moving.let_in(actor=self.actor, peer=peer, **self.given(ReasonInput)))


class ReceiptSerializer(serializers.ModelSerializer[Receipt]):
    server_name = serializers.CharField(source="server.name")
    state = serializers.ChoiceField(["pending", "confirmed", "nothing to confirm"], read_only=True)

    class Meta:
        model = Receipt
        fields = (
            *("server", "server_name", "public_key", "state", "confirmed_at", "overdue_at", "generation"),
            *("is_gone_from_kernel", "is_gone_from_disk", "is_durable", "found"),
        )


class RevocationSerializer(serializers.ModelSerializer[Revocation]):
    """`state` counts every server, also those that this user does not see; `not_set_up` names those that never had the
    key, as they had not been set up: nothing is waited for from these."""

    state = serializers.SerializerMethodField()
    pending = serializers.SerializerMethodField()
    not_set_up = serializers.SerializerMethodField()
    receipts = ReceiptSerializer(source="seen_receipts", many=True)

    class Meta:
        model = Revocation
        fields = (
            *("id", "label", "person", "reason", "revoked_by", "created_at", "state", "pending", "not_set_up"),
            "receipts",
        )

    @extend_schema(responses=serializers.ChoiceField(["pending", "confirmed"]))
    def get_state(self, row: Any) -> str:
        return "pending" if row.is_waiting else "confirmed"

    @extend_schema(responses=serializers.ListField(child=serializers.CharField()))
    def get_pending(self, row: Any) -> list[str]:
        return _servers(row, "pending")

    @extend_schema(responses=serializers.ListField(child=serializers.CharField()))
    def get_not_set_up(self, row: Any) -> list[str]:
        return _servers(row, "nothing to confirm")


def _servers(row: Any, state: str) -> list[str]:
    return sorted({one.server.name for one in row.seen_receipts if one.state == state})


class RevocationInput(Input):
    device = Visible(Device, visible_devices, required=False)
    person = Visible(Person, visible_people, required=False)
    public_key = Text(required=False)
    reason = Reason()

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if len(values) != 2:
            raise serializers.ValidationError("Name a device, a person or a public_key: one of them.")
        return values


class RevocationFilter(django_filters.FilterSet):
    person = django_filters.NumberFilter(method="of_one", min_value=1, max_value=2**63 - 1, decimal_places=0)

    def of_one(self, rows: QuerySet[Revocation], name: str, value: int) -> QuerySet[Revocation]:
        return of_person(rows, int(value))


def shown_revocations(user: object, rows: QuerySet[Revocation]) -> QuerySet[Revocation]:
    """With the receipts that the user sees, and whether any is pending."""
    seen = visible_receipts(user).select_related(None).select_related("server")
    waiting = Receipt.objects.filter(PENDING, revocation=OuterRef("pk"))
    seen_receipts = Prefetch("receipts", queryset=seen, to_attr="seen_receipts")
    return rows.annotate(is_waiting=Exists(waiting)).prefetch_related(seen_receipts)


class RevocationViewSet(Resource[Revocation]):
    serializer_class = RevocationSerializer
    filterset_class = RevocationFilter

    def get_queryset(self) -> QuerySet[Revocation]:
        return shown_revocations(self.request.user, visible_revocations(self.request.user))

    @extend_schema(request=RevocationInput, responses={201: RevocationSerializer})
    def create(self, request: Request) -> Response:
        row = _revoke(self.actor, **self.given(RevocationInput))
        return self.shown(shown_revocations(self.actor, Revocation.objects.all()).get(pk=row.pk), 201)


def _revoke(
    actor: Any,
    *,
    reason: str,
    device: Device | None = None,
    person: Person | None = None,
    public_key: str = "",
) -> Revocation:
    if device is not None:
        return revocation.revoke_devices(actor=actor, devices=[device], reason=reason)
    if person is not None:
        return revocation.revoke_person(actor=actor, person=person, reason=reason)
    return revocation.revoke_key(actor=actor, public_key=public_key, reason=reason)
