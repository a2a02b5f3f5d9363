"""The pages of addresses: who has which, reservations, named pools, static addresses, routed networks."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from fleet.access import may_operate
from fleet.admin import ConsoleAdmin, one, page_of, seen
from fleet.models import AddressRange, Pool
from fleet.named_pools import end_pool
from fleet.questions import ask
from peers.access import visible_pools, visible_ranges, visible_routed_networks, visible_static_addresses
from peers.admin.address_forms import PoolForm, ReservationForm, RoutedNetworkForm, StaticAddressForm
from peers.holders import STATES, lies_in, state_of, why
from peers.models import RoutedNetwork, StaticAddress
from peers.reserving import release_addresses
from peers.routing import end_route
from peers.static import end_static_address, is_reissued

OPEN = {"open": "success", "ended": ""}


class StateFilter(admin.SimpleListFilter):
    """What is taken or rests, unless asked for something else."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AddressRange]) -> QuerySet[AddressRange]:
        return queryset.filter(STATES[self.value()] if self.value() in STATES else ~STATES["released"])  # type: ignore[index]


@admin.register(AddressRange)
class AddressRangeAdmin(ConsoleAdmin):
    form = ReservationForm
    is_changed = False
    list_display = ("addresses", "server", "kind", "state", "why")
    list_filter = (StateFilter, "kind", seen("server"))
    search_fields = ("server__name", "reason")
    search_help_text = "An address, a network, a server or a reason."
    ordering = ("server", "first", "pk")
    autocomplete_fields = ("server",)
    actions_detail = ("release",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("server", "addresses", "reason")
        return (
            "addresses",
            "server",
            "kind",
            "state",
            "why",
            "reason",
            "taken_by",
            "taken_at",
            "freed_at",
            "released_at",
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[AddressRange]:
        return visible_ranges(request.user)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[AddressRange], term: str) -> Any:
        try:
            return queryset.filter(lies_in(term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, term)

    def idle(self, request: HttpRequest, row: AddressRange) -> set[str]:
        is_open = row.kind == AddressRange.Kind.RESERVED and row.released_at is None
        return set() if is_open and may_operate(request.user, row.server.environment) else {"release"}

    @display(ordering="first")
    def addresses(self, row: AddressRange) -> str:
        return str(row)

    @display(label={"taken": "info", "resting": "warning", "released": ""})
    def state(self, row: AddressRange) -> str:
        return state_of(row)

    @display(description="why")
    def why(self, row: AddressRange) -> str:
        return why(row)

    @action(description="Release", icon="lock_open", permissions=["operate"])
    def release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(release_addresses(actor=request.user, reservation=row, reason=values["reason"]))

        text = "The next peers may get these addresses at once."
        return ask(request, perform, title=f"Release {row}?", text=text, button="Release", back=page_of(row))


class IntervalAdmin(ConsoleAdmin):
    """Rows that begin by a form and end by one act."""

    is_changed = False
    actions_detail: tuple[str, ...] = ("end",)
    autocomplete_fields: tuple[str, ...] = ("server",)
    list_filter: tuple[Any, ...] = (("ended_at", admin.EmptyFieldListFilter), seen("server"))
    end_with: Callable[..., Model]
    argument = text = ""

    def idle(self, request: HttpRequest, row: Any) -> set[str]:
        return {"end"} if row.ended_at or not may_operate(request.user, row.server.environment) else set()

    @display(label=OPEN)
    def state(self, row: Any) -> str:
        return "ended" if row.ended_at else "open"

    @action(description="End", icon="event_busy", permissions=["operate"])
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            ended = type(self).end_with(actor=request.user, reason=values["reason"], **{self.argument: row})
            return page_of(ended)

        return ask(request, perform, title=f"End {row}?", text=self.text, button="End", back=page_of(row))


@admin.register(Pool)
class PoolAdmin(IntervalAdmin):
    form = PoolForm
    list_display = ("name", "server", "ipv4", "ipv6", "state", "created_at")
    search_fields = ("name", "server__name")
    argument, text = "pool", "Everybody keeps their addresses; what is free of it is given to anybody again."
    end_with = staticmethod(end_pool)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("server", "name", "ipv4", "ipv6")
        return (*shown, "created_at", "ended_at") if obj else shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        return visible_pools(request.user)


@admin.register(StaticAddress)
class StaticAddressAdmin(IntervalAdmin):
    form = StaticAddressForm
    list_display = ("device", "server", "addresses", "state", "reason", "assigned_by")
    search_fields = ("device__name", "device__person__name", "server__name")
    autocomplete_fields = ("device", "server")
    argument, text = "static", "A live peer keeps them as ordinary addresses; where there is none, they rest."
    end_with = staticmethod(end_static_address)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("device", "server", "ipv4", "ipv6", "reason")
        return ("device", "server", "addresses", "reason", "assigned_by", "began_at", "ended_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[StaticAddress]:
        return visible_static_addresses(request.user)

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        if isinstance(obj, StaticAddress) and is_reissued(obj):
            messages.warning(request, f"{obj.device} has other addresses now: hand out its tunnel file anew.")

    @display(description="addresses")
    def addresses(self, row: StaticAddress) -> str:
        return " ".join(str(one) for one in (row.ipv4, row.ipv6) if one)


@admin.register(RoutedNetwork)
class RoutedNetworkAdmin(IntervalAdmin):
    form = RoutedNetworkForm
    list_display = ("network", "device", "server", "state", "reason", "routed_by")
    search_fields = ("network", "device__name", "device__person__name", "server__name")
    autocomplete_fields = ("device", "server")
    argument, text = "route", "The server sends nothing there any more; the network rests until it has confirmed that."
    end_with = staticmethod(end_route)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("device", "server", "network", "reason")
        return (*shown, "routed_by", "began_at", "ended_at") if obj else shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[RoutedNetwork]:
        return visible_routed_networks(request.user)
