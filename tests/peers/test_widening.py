"""A pool that is widened moves nobody; no other change of an enrolled server's pools is taken."""

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from fleet.named_pools import add_pool, end_pool
from fleet.pools import PoolExhausted
from fleet.services import change_server
from nodes.desired import desired_state
from peers.models import Device, Peer
from peers.routing import route_network
from peers.selectors import config_of
from tests.build import make_device, make_grant, make_peers, make_person, make_server, new_public_key
from tests.doors import browser, script

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(staging: Environment) -> Server:
    """Enrolled, and full."""
    server = make_server(staging, "vpn-fra", ipv4_pool="10.9.4.0/30", ipv6_pool="fd00:9::8/126")
    Server.objects.update(public_key=new_public_key(), enrolled_at=timezone.now())
    make_peers(staging, 1)
    server.refresh_from_db()
    return server


def widen(server: Server, **pools: str) -> Server:
    change_server(actor=SYSTEM, server=Server.objects.get(pk=server.pk), reason="it is full", **pools)
    server.refresh_from_db()
    return server


def join(server: Server) -> Peer:
    person = make_person()
    make_grant(person, server.environment)
    return Peer.objects.get(device=make_device(person), server=server)


def test_a_full_server_takes_more_once_it_is_widened_and_nobody_moves(server: Server) -> None:
    first = Peer.objects.get()
    file, generation = config_of(first).text(), server.generation
    with pytest.raises(PoolExhausted):
        join(server)
    widen(server, ipv4_pool="10.9.0.0/21", ipv6_pool="fd00:9::/120")
    assert (server.ipv4_address, server.ipv6_address) == ("10.9.4.1", "fd00:9::9")
    assert desired_state(server.pk).content.interface.addresses == ("10.9.4.1/21", "fd00:9::9/120")
    assert server.generation == generation + 1
    first = Peer.objects.select_related("server").get(pk=first.pk)
    assert config_of(first).text() == file
    assert [(str(p.ipv4), str(p.ipv6)) for p in (join(server), join(server))] == [
        ("10.9.0.1/32", "fd00:9::1/128"),
        ("10.9.0.2/32", "fd00:9::2/128"),
    ]


def test_what_lies_below_the_server_s_own_address_is_given_but_for_the_ends(server: Server) -> None:
    widen(server, ipv4_pool="10.9.4.0/29", ipv6_pool="fd00:9::8/125")
    given = [str(Peer.objects.get().ipv4), *(str(join(server).ipv4) for _ in range(4))]
    assert given == [f"10.9.4.{number}/32" for number in (2, 3, 4, 5, 6)]
    with pytest.raises(PoolExhausted):
        join(server)
    widen(server, ipv4_pool="10.9.4.0/28")
    assert str(join(server).ipv4) == "10.9.4.7/32"  # the broadcast address that was


@pytest.mark.parametrize(
    ("pool", "mend"),
    [
        ("10.9.4.0/31", "Give an IPv4 network from /8 to /30, such as 10.1.0.0/16."),
        ("10.9.5.0/24", "An enrolled server's pool can only be widened: give a network that holds 10.9.4.0/30."),
        ("10.9.4.4/30", "An enrolled server's pool can only be widened: give a network that holds 10.9.4.0/30."),
        ("10.9.0.5/21", "Write '10.9.0.5/21' as '10.9.0.0/21'."),
        ("10.8.0.0/13", "192.168.7.0"),
        ("0.0.0.0/0", None),
        ("x", None),
    ],
)
def test_every_other_change_of_an_enrolled_pool_is_refused(server: Server, pool: str, mend: str | None) -> None:
    if mend == "192.168.7.0":
        route_network(actor=SYSTEM, device=Device.objects.get(), server=server, network="10.15.0.0/16", reason="site")
        mend = "10.15.0.0 to 10.15.255.255 of it is routed to a peer: end that first."
    with pytest.raises(ValidationError) as refusal:
        widen(server, ipv4_pool=pool)
    assert list(refusal.value.message_dict) == ["ipv4_pool"]
    assert mend is None or refusal.value.message_dict["ipv4_pool"] == [mend]
    server.refresh_from_db()
    assert server.ipv4_pool == "10.9.4.0/30"
    assert widen(server, ipv4_pool="10.9.0.0/21").ipv4_pool == "10.9.0.0/21"


def test_of_two_who_widen_at_once_the_second_does_not_take_back_what_the_first_gave(server: Server) -> None:
    stale = Server.objects.get()
    widen(server, ipv4_pool="10.9.0.0/16")
    with pytest.raises(ValidationError, match="can only be widened"):
        change_server(actor=SYSTEM, server=stale, reason="full", ipv4_pool="10.9.0.0/21")
    server.refresh_from_db()
    assert server.ipv4_pool == "10.9.0.0/16"


def test_a_pool_that_is_another_one_still_holds_its_named_parts(staging: Environment) -> None:
    server = make_server(staging, is_set_up=False, ipv4_pool="10.9.0.0/24")
    named = add_pool(actor=SYSTEM, server=server, name="temps", ipv4="10.9.0.128/25")
    with pytest.raises(ValidationError, match="has to hold the pool temps"):
        widen(server, ipv4_pool="10.8.0.0/24")
    assert widen(server, ipv4_pool="10.9.0.0/23").ipv4_address == "10.9.0.1"
    end_pool(actor=SYSTEM, pool=named, reason="none")
    assert widen(server, ipv4_pool="10.8.0.0/24").ipv4_address == "10.8.0.1"


def test_a_pool_is_widened_by_the_api_and_on_its_page(server: Server, bob: User) -> None:
    caller = script(bob)
    code, body = caller.patch(f"servers/{server.pk}", ipv4_pool="10.9.4.0/24", reason="full")
    assert (code, body["ipv4_pool"]) == (200, "10.9.4.0/24")
    code, body = caller.patch(f"servers/{server.pk}", ipv4_pool="10.9.4.0/25", reason="too much")
    assert (code, list(body)) == (400, ["ipv4_pool"])
    client = browser(bob)
    page = client.get(f"/admin/fleet/server/{server.pk}/change/")
    form = {name: "" if value is None else value for name, value in page.context["adminform"].form.initial.items()}
    form |= {"dns": "", "ipv4_pool": "10.9.0.0/16", "reason": "full"}
    client.post(f"/admin/fleet/server/{server.pk}/change/", form)
    server.refresh_from_db()
    assert server.ipv4_pool == "10.9.0.0/16"
