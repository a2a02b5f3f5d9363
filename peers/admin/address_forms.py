"""Forms of reservations, named pools, static addresses and routed networks; each is judged by its service."""

from typing import Any

from django.db.models import Model

from fleet import named_pools
from fleet.forms import Line, ServiceForm
from fleet.models import AddressRange, Pool
from peers import reserving, routing, static
from peers.models import RoutedNetwork, StaticAddress

REISSUED = "Where the device has a tunnel to this server already, it gets another tunnel file."


class ReservationForm(ServiceForm):
    addresses = Line(help_text="An address, a network, or first-last: 10.1.0.7, 10.1.0.0/28, 10.1.0.7-10.1.0.19.")

    class Meta:
        model = AddressRange
        fields = ("server", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if reason := self.fields.get("reason"):
            reason.required = True

    def add(self, values: dict[str, Any]) -> Model:
        return reserving.reserve_addresses(actor=self.actor, **values)


class PoolForm(ServiceForm):
    ipv4 = Line(required=False, label="IPv4", help_text="A part of the server's IPv4 pool, such as 10.1.240.0/20.")
    ipv6 = Line(required=False, label="IPv6", help_text="A part of the server's IPv6 pool.")

    class Meta:
        model = Pool
        fields = ("server", "name", "ipv4", "ipv6")

    def add(self, values: dict[str, Any]) -> Model:
        return named_pools.add_pool(actor=self.actor, **values)


class StaticAddressForm(ServiceForm):
    ipv4 = Line(required=False, label="IPv4", help_text=REISSUED)
    ipv6 = Line(required=False, label="IPv6")

    class Meta:
        model = StaticAddress
        fields = ("device", "server", "reason")

    def add(self, values: dict[str, Any]) -> Model:
        return static.assign_address(actor=self.actor, **values)


class RoutedNetworkForm(ServiceForm):
    network = Line(help_text="What lies behind the device, such as 192.168.7.0/24. Whose grants name it reaches it.")

    class Meta:
        model = RoutedNetwork
        fields = ("device", "server", "network", "reason")

    def add(self, values: dict[str, Any]) -> Model:
        return routing.route_network(actor=self.actor, **values)
