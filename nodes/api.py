"""What a script asks of the workers: enrolments, plans, held pushes, review items, reconcile."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.api import ServerViewSet
from fleet.rest import Input, Reason, Resource, Text
from fleet.scope import scope_of
from nodes import services
from nodes.access import visible_holds, visible_reviews
from nodes.models import Enrolment, HeldPush, Hold, PlanRequest, ReviewItem
from nodes.reviews import decide_review


class EnrolmentSerializer(serializers.ModelSerializer[Enrolment]):
    class Meta:
        model = Enrolment
        fields = (
            *("id", "server", "state", "progress", "error", "confirmed_host_key"),
            *("requested_by", "created_at", "finished_at"),
        )


class EnrolmentInput(Input):
    host_key = Text(max_length=1000)
    user = Text(max_length=32)
    password = Text(required=False, allow_blank=True, max_length=1000, write_only=True)
    private_key = Text(required=False, allow_blank=True, max_length=20_000, write_only=True)


class PlanRequestSerializer(serializers.ModelSerializer[PlanRequest]):
    class Meta:
        model = PlanRequest
        fields = ("id", "server", "created_at", "finished_at", "plan", "error")


class NodeServerViewSet(ServerViewSet):
    """Servers, and what is asked of the machine behind each."""

    @extend_schema(request=EnrolmentInput, responses={201: EnrolmentSerializer})
    @action(detail=True, methods=["post"])
    def enrol(self, request: Request, pk: str) -> Response:
        server = self.get_object()
        enrolment = services.request_enrolment(actor=self.actor, server=server, **self.given(EnrolmentInput))
        return Response(EnrolmentSerializer(enrolment).data, 201)

    @extend_schema(request=Input, responses={202: PlanRequestSerializer})
    @action(detail=True, methods=["post"])
    def plan(self, request: Request, pk: str) -> Response:
        server = self.get_object()
        self.given(Input)
        return Response(PlanRequestSerializer(services.request_plan(actor=self.actor, server=server)).data, 202)

    @extend_schema(request=Input, responses={202: None})
    @action(detail=True, methods=["post"])
    def reconcile(self, request: Request, pk: str) -> Response:
        server = self.get_object()
        self.given(Input)
        services.request_reconcile(actor=self.actor, server=server)
        return Response(status=202)


class EnrolmentViewSet(Resource[Enrolment]):
    serializer_class = EnrolmentSerializer
    filterset_fields = ("state",)

    def get_queryset(self) -> QuerySet[Enrolment]:
        return scope_of(self.request.user).of(Enrolment.objects.all(), "server__environment")


class PlanRequestViewSet(Resource[PlanRequest]):
    serializer_class = PlanRequestSerializer

    def get_queryset(self) -> QuerySet[PlanRequest]:
        return scope_of(self.request.user).of(PlanRequest.objects.all(), "server__environment")


class HeldPushSerializer(serializers.ModelSerializer[HeldPush]):
    server_name = serializers.CharField(source="server.name")

    class Meta:
        model = HeldPush
        fields = ("server", "server_name", "removals", "held")


class HoldSerializer(serializers.ModelSerializer[Hold]):
    pushes = HeldPushSerializer(many=True)

    class Meta:
        model = Hold
        fields = ("id", "act", "cause", "created_at", "approved_at", "approved_by", "reason", "pushes")


class ApprovalInput(Input):
    reason = Reason()


class HoldViewSet(Resource[Hold]):
    serializer_class = HoldSerializer

    def get_queryset(self) -> QuerySet[Hold]:
        return visible_holds(self.request.user)

    @extend_schema(request=ApprovalInput, responses=HoldSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        hold = self.get_object()
        return self.shown(services.approve_hold(actor=self.actor, hold=hold, **self.given(ApprovalInput)))


class ReviewItemSerializer(serializers.ModelSerializer[ReviewItem]):
    server_name = serializers.CharField(source="server.name")
    device = serializers.IntegerField(source="peer.device_id")
    public_key = serializers.CharField(source="peer.device.public_key")
    state = serializers.CharField()

    class Meta:
        model = ReviewItem
        fields = (
            *("id", "server", "server_name", "peer", "device", "public_key", "state", "what", "detail", "by"),
            *("at", "seen_at", "decided_at", "decided_by", "decision", "reason"),
        )


class DecisionInput(Input):
    decision = serializers.ChoiceField(ReviewItem.Decision.choices)
    reason = Reason()


class ReviewItemViewSet(Resource[ReviewItem]):
    serializer_class = ReviewItemSerializer
    filterset_fields = ("server", "decision")

    def get_queryset(self) -> QuerySet[ReviewItem]:
        return visible_reviews(self.request.user)

    @extend_schema(request=DecisionInput, responses=ReviewItemSerializer)
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, pk: str) -> Response:
        item = self.get_object()
        return self.shown(decide_review(actor=self.actor, item=item, **self.given(DecisionInput)))
