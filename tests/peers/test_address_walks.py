"""Whatever is asked for in whatever order: no address is anybody else's, and none that is kept back is given."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Pool, Server
from fleet.named_pools import add_pool, end_pool
from fleet.pools import PoolExhausted, from_hex, span_of
from fleet.services import change_server
from peers.granting import end_grants, grant_access
from peers.models import Device, Grant, Peer, StaticAddress
from peers.reserving import release_addresses, reserve_addresses
from peers.revocation import revoke_devices
from peers.static import assign_address, end_static_address
from tests.build import make_device, make_person, make_server
from tests.peers.addresses import confirm_all, let_rest_pass

pytestmark = pytest.mark.django_db
WHY = {"actor": SYSTEM, "reason": "a walk"}
ASKED = (
    *("join", "join temps", "leave", "revoke", "reserve", "release", "name", "end name"),
    *("assign", "end static", "rest", "widen"),
)


class Walk:
    """One server of fourteen addresses for peers, and what was kept back when each peer was made."""

    def __init__(self, staging: Environment) -> None:
        self.staging = staging
        self.server = make_server(staging, ipv4_pool="10.9.0.16/28", ipv6_pool="fd00:9::/120")

    def do(self, what: str, number: int) -> None:
        before = self.kept_back()
        peers = set(Peer.objects.values_list("pk", flat=True))
        try:
            with transaction.atomic():
                getattr(self, what.replace(" ", "_"))(number)
        except (ValidationError, PoolExhausted, IndexError):
            return
        for peer in Peer.objects.exclude(pk__in=peers).select_related("ipv4"):
            if peer.ipv4.kind == AddressRange.Kind.PEER:
                name = peer.device.person.grants.get().pool
                assert int(peer.ipv4.first, 16) not in before[name], what
        self.check()

    def kept_back(self) -> dict[str, set[int]]:
        """Pool of a grant -> addresses that its next peer must not get."""
        rows = AddressRange.objects.filter(server=self.server, released_at=None)
        taken = {n for row in rows if row.is_ipv4 for n in range(row.span[0], row.span[1] + 1)}
        first, last = span_of(Server.objects.get().pool4)
        named = Pool.objects.filter(ended_at=None).first()
        low, high = span_of(named.network("ipv4")) if named else (0, -1)  # type: ignore[arg-type]
        inside = set(range(low, high + 1))
        outside = set(range(first, last + 1)) - inside if named else set()
        return {"": taken | inside | {first, last}, "temps": taken | outside | {first, last}}

    def check(self) -> None:
        rows = AddressRange.objects.filter(server=self.server, released_at=None).order_by("first")
        spans = [row.span for row in rows]
        assert all(one[1] < other[0] for one, other in pairwise(spans))
        pool = span_of(Server.objects.get().pool4)
        assert all(pool[0] <= low and high <= pool[1] for low, high in spans if from_hex(f"{low:032x}").version == 4)
        live = list(Peer.objects.filter(ended_at=None).values_list("ipv4", "ipv6"))
        assert len({pk for pair in live for pk in pair}) == 2 * len(live)
        assert not AddressRange.objects.filter(peers4__ended_at=None, peers4__isnull=False, freed_at__isnull=False)
        assert not AddressRange.objects.filter(static4__isnull=False, static4__ended_at=None, freed_at__isnull=False)

    def join(self, number: int, pool: str = "") -> None:
        person = make_person()
        grant_access(person=person, server=self.server, pool=pool, **WHY)  # type: ignore[arg-type]
        make_device(person)

    def join_temps(self, number: int) -> None:
        self.join(number, "temps")

    def leave(self, number: int) -> None:
        open_grants = Grant.objects.filter(ended_at=None).order_by("pk")
        end_grants(grants=[open_grants[number % 3]], **WHY)  # type: ignore[arg-type]

    def revoke(self, number: int) -> None:
        revoke_devices(devices=[Device.objects.filter(revoked_at=None).order_by("pk")[number % 3]], **WHY)  # type: ignore[arg-type]

    def reserve(self, number: int) -> None:
        low = 16 + number % 14
        reserve_addresses(server=self.server, addresses=f"10.9.0.{low}-10.9.0.{low + number % 3}", **WHY)  # type: ignore[arg-type]

    def release(self, number: int) -> None:
        rows = AddressRange.objects.filter(kind="reserved", released_at=None).order_by("pk")
        release_addresses(reservation=rows[0], **WHY)  # type: ignore[arg-type]

    def name(self, number: int) -> None:
        add_pool(actor=SYSTEM, server=self.server, name="temps", ipv4=f"10.9.0.{16 + number % 4 * 4}/30")

    def end_name(self, number: int) -> None:
        end_pool(pool=Pool.objects.filter(ended_at=None)[0], **WHY)  # type: ignore[arg-type]

    def assign(self, number: int) -> None:
        device = Device.objects.filter(revoked_at=None).order_by("pk")[number % 3]
        assign_address(device=device, server=self.server, ipv4=f"10.9.0.{16 + number % 16}", **WHY)  # type: ignore[arg-type]

    def end_static(self, number: int) -> None:
        end_static_address(static=StaticAddress.objects.filter(ended_at=None)[0], **WHY)  # type: ignore[arg-type]

    def rest(self, number: int) -> None:
        confirm_all()
        let_rest_pass([self.server])

    def widen(self, number: int) -> None:
        change_server(server=Server.objects.get(), ipv4_pool="10.9.0.0/27", **WHY)  # type: ignore[arg-type]


@pytest.fixture
def begin(staging: Environment) -> Callable[[], Walk]:
    return lambda: Walk(staging)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(ASKED), st.integers(0, 47)), min_size=5, max_size=25))
def test_no_walk_gives_an_address_that_is_taken_kept_back_or_resting(
    begin: Callable[[], Walk], steps: list[tuple[str, int]]
) -> None:
    with transaction.atomic():
        walk = begin()
        for _ in range(4):
            walk.do("join", 0)
        for what, number in steps:
            walk.do(what, number)
        transaction.set_rollback(True)
