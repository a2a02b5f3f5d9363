"""The one router of the API."""

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import DefaultRouter

from fleet.api import BastionViewSet, EnvironmentViewSet, ScopedEventViewSet
from fleet.rest import NoSuchResource
from nodes.api import EnrolmentViewSet, HoldViewSet, NodeServerViewSet, PlanRequestViewSet, ReviewItemViewSet
from peers.api.addresses import (
    AddressRangeViewSet,
    PoolViewSet,
    ReservationViewSet,
    RoutedNetworkViewSet,
    StaticAddressViewSet,
)
from peers.api.leaving import LeaverViewSet, LostDeviceViewSet
from peers.api.people import PeerViewSet, RevocationViewSet
from peers.api.prolonging import LastingGrantViewSet, LastingMembershipViewSet
from peers.api.questions import QuestionViewSet
from peers.api.requests import AccessRequestViewSet
from peers.api.suspensions import SuspensionViewSet
from peers.api.teams import TeamViewSet

router = DefaultRouter(trailing_slash=False)
router.register("environments", EnvironmentViewSet, "environment")
router.register("servers", NodeServerViewSet, "server")
router.register("bastions", BastionViewSet, "bastion")
router.register("people", LeaverViewSet, "person")
router.register("teams", TeamViewSet, "team")
router.register("memberships", LastingMembershipViewSet, "membership")
router.register("devices", LostDeviceViewSet, "device")
router.register("grants", LastingGrantViewSet, "grant")
router.register("peers", PeerViewSet, "peer")
router.register("access-requests", AccessRequestViewSet, "access-request")
router.register("suspensions", SuspensionViewSet, "suspension")
router.register("revocations", RevocationViewSet, "revocation")
router.register("address-ranges", AddressRangeViewSet, "address-range")
router.register("reservations", ReservationViewSet, "reservation")
router.register("pools", PoolViewSet, "pool")
router.register("static-addresses", StaticAddressViewSet, "static-address")
router.register("routed-networks", RoutedNetworkViewSet, "routed-network")
router.register("enrolments", EnrolmentViewSet, "enrolment")
router.register("plan-requests", PlanRequestViewSet, "plan-request")
router.register("holds", HoldViewSet, "hold")
router.register("reviews", ReviewItemViewSet, "review")
router.register("events", ScopedEventViewSet, "event")
router.register("questions", QuestionViewSet, "question")

urlpatterns = [
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("", include(router.urls)),
    re_path(r"", NoSuchResource.as_view(), name="no-such-resource"),
]
