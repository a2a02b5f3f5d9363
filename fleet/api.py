"""Environments, servers and bastions over HTTP. Each write is one service."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from audit.api import EventViewSet
from audit.models import Event
from fleet import fields, services
from fleet.conditions import Type, read
from fleet.models import Bastion, Environment, Server
from fleet.rest import Input, Reason, Resource, Text, Visible
from fleet.scope import scope_of, visible_bastions, visible_environments, visible_servers


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    class Meta:
        model = Environment
        fields = (
            *("id", "name", "description", "address_rest", "time_zone", "warn_before", "idle_after", "suspends_idle"),
            *("needs_second", "created_at"),
        )


class EnvironmentFields(Input):
    description = Text(required=False, allow_blank=True)
    address_rest = serializers.DurationField(required=False, validators=[fields.valid_rest])
    time_zone = Text(required=False)
    warn_before = serializers.DurationField(required=False, validators=[fields.valid_warning])
    idle_after = serializers.DurationField(required=False, allow_null=True, validators=[fields.valid_idle])
    suspends_idle = serializers.BooleanField(required=False)
    needs_second = serializers.BooleanField(required=False)


class EnvironmentChange(EnvironmentFields):
    reason = Reason()


class EnvironmentInput(EnvironmentFields):
    name = Text()


class EnvironmentViewSet(Resource[Environment]):
    serializer_class = EnvironmentSerializer
    filterset_fields = ("name",)

    def get_queryset(self) -> QuerySet[Environment]:
        return visible_environments(self.request.user)

    @extend_schema(request=EnvironmentInput, responses={201: EnvironmentSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(services.add_environment(actor=self.actor, **self.given(EnvironmentInput)), 201)

    @extend_schema(request=EnvironmentChange, responses=EnvironmentSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        environment = self.get_object()
        values = self.given(EnvironmentChange)
        return self.shown(services.change_environment(actor=self.actor, environment=environment, **values))


class BastionSerializer(serializers.ModelSerializer[Bastion]):
    class Meta:
        model = Bastion
        fields = ("id", "name", "host", "ssh_port", "ssh_user", "host_key", "ssh_public_key")


class BastionInput(Input):
    name = Text()
    host = Text()
    ssh_port = serializers.IntegerField(required=False)
    ssh_user = Text(required=False)
    host_key = Text()


class BastionViewSet(Resource[Bastion]):
    serializer_class = BastionSerializer

    def get_queryset(self) -> QuerySet[Bastion]:
        return visible_bastions(self.request.user)

    @extend_schema(request=BastionInput, responses={201: BastionSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(services.add_bastion(actor=self.actor, **self.given(BastionInput)), 201)


class ConditionSerializer(serializers.Serializer[Any]):
    type = serializers.CharField()
    status = serializers.BooleanField()
    reason = serializers.CharField()
    message = serializers.CharField()
    last_transition_at = serializers.CharField()


class ServerSerializer(serializers.ModelSerializer[Server]):
    environment_name = serializers.CharField(source="environment.name")
    observed_generation = serializers.IntegerField(source="status.observed_generation")
    observed_at = serializers.DateTimeField(source="status.observed_at", allow_null=True)
    drift = serializers.JSONField(source="status.drift")
    conditions = serializers.SerializerMethodField()

    class Meta:
        model = Server
        fields = (
            *("id", "name", "environment", "environment_name", "host", "ssh_port", "ssh_user", "bastion"),
            *("interface", "endpoint_host", "listen_port", "ipv4_pool", "ipv6_pool", "dns", "mtu", "forward"),
            *("is_observe_only", "host_key", "public_key", "enrolled_at", "epoch", "generation"),
            *("observed_generation", "observed_at", "drift", "conditions"),
        )

    @extend_schema(responses=ConditionSerializer(many=True))
    def get_conditions(self, server: Server) -> list[dict[str, Any]]:
        found = [read(server.status.conditions, type) for type in Type]
        return [dict(ConditionSerializer(condition).data) for condition in found if condition]


class ServerFields(Input):
    ssh_port = serializers.IntegerField(required=False)
    ssh_user = Text(required=False)
    bastion = Visible(Bastion, visible_bastions, required=False, allow_null=True)
    interface = Text(required=False, allow_blank=True)
    listen_port = serializers.IntegerField(required=False)
    dns = serializers.JSONField(required=False)
    mtu = serializers.IntegerField(required=False)
    forward = Text(required=False)
    is_observe_only = serializers.BooleanField(required=False)


class ServerChange(ServerFields):
    host = Text(required=False)
    endpoint_host = Text(required=False)
    ipv4_pool = Text(required=False)
    ipv6_pool = Text(required=False)
    reason = Reason()


class ServerInput(ServerFields):
    name = Text()
    environment = Visible(Environment, visible_environments)
    host = Text()
    endpoint_host = Text()
    ipv4_pool = Text()
    ipv6_pool = Text()


class ServerViewSet(Resource[Server]):
    serializer_class = ServerSerializer
    filterset_fields = ("name",)

    def get_queryset(self) -> QuerySet[Server]:
        return visible_servers(self.request.user)

    @extend_schema(request=ServerInput, responses={201: ServerSerializer})
    def create(self, request: Request) -> Response:
        return self.shown(services.add_server(actor=self.actor, **self.given(ServerInput)), 201)

    @extend_schema(request=ServerChange, responses=ServerSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        server = self.get_object()
        return self.shown(services.change_server(actor=self.actor, server=server, **self.given(ServerChange)))


class ScopedEventViewSet(EventViewSet):
    """Events of the environments that the user sees; those of no environment only to who sees every one."""

    def get_queryset(self) -> QuerySet[Event]:
        rows, scope = super().get_queryset(), scope_of(self.request.user)
        if scope.sees is None:
            return rows
        return rows.filter(environment_label__in=scope.of(Environment.objects.all(), "pk").values("name"))


class TokenScheme(OpenApiAuthenticationExtension):
    """Tells the schema how TokenAuthentication works."""

    target_class = "fleet.sign_in.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class BrowserScheme(OpenApiAuthenticationExtension):
    """A browser's session; unsafe requests need its CSRF token."""

    target_class = "fleet.sign_in.BrowserAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
