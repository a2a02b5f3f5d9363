"""Addresses over HTTP and on their pages: who has which and why, and what is done about it."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Pool, Role, Server, User
from fleet.named_pools import add_pool
from fleet.services import give_role
from nodes.desired import desired_state
from peers.granting import end_grants
from peers.models import Device, Grant, RoutedNetwork, StaticAddress
from peers.reserving import reserve_addresses
from peers.rooms import rooms_of
from peers.routing import route_network
from peers.static import assign_address
from tests.build import make_device, make_grant, make_peers, make_person, make_server
from tests.doors import browser, rows, script

pytestmark = pytest.mark.django_db
KINDS = ("reservations", "pools", "static-addresses", "routed-networks")


@pytest.fixture
def server(staging: Environment) -> Server:
    return make_server(staging, "vpn-fra", ipv4_pool="10.9.0.0/24", ipv6_pool="fd00:9::/64")


@pytest.fixture
def laptop(server: Server) -> Device:
    return make_device(make_person("Carol"))


def body_of(kind: str, server: Server, device: Device) -> dict[str, Any]:
    """A good request."""
    return {
        "reservations": {"server": server.pk, "addresses": "10.9.0.40-10.9.0.49", "reason": "printers"},
        "pools": {"server": server.pk, "name": "temps", "ipv4": "10.9.0.128/25", "ipv6": "fd00:9::1:0/112"},
        "static-addresses": {"server": server.pk, "device": device.pk, "ipv4": "10.9.0.50", "reason": "a printer"},
        "routed-networks": {"server": server.pk, "device": device.pk, "network": "192.168.7.0/24", "reason": "branch"},
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_operator_begins_they_end(kind: str, server: Server, laptop: Device, bob: User) -> None:
    caller, verb = script(bob), "release" if kind == "reservations" else "end"
    code, row = caller.post(kind, **body_of(kind, server, laptop))
    assert (code, row["server"]) == (201, server.pk)
    assert caller.get(f"{kind}/{row['id']}")[0] == 200
    assert caller.post(f"{kind}/{row['id']}/{verb}")[0] == 400
    code, ended = caller.post(f"{kind}/{row['id']}/{verb}", reason="no need")
    assert (code, bool(ended.get("ended_at") or ended.get("released_at"))) == (200, True)
    assert caller.post(f"{kind}/{row['id']}/{verb}", reason="again")[0] == 409


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_sees_or_changes_another_environment_s(
    kind: str, production: Environment, bob: User, charlie: User, laptop: Device, server: Server
) -> None:
    """B3."""
    other = make_server(production, "vpn-far", ipv4_pool="10.9.0.0/24", ipv6_pool="fd00:9::/64")
    asked = body_of(kind, other, laptop)
    far = {**asked, "actor": SYSTEM, "server": other, "device": laptop}
    if kind in {"reservations", "pools"}:
        far.pop("device")
    begin: Any = {
        "reservations": reserve_addresses,
        "pools": add_pool,
        "static-addresses": assign_address,
        "routed-networks": route_network,
    }[kind]
    row = begin(**far)
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=production)
    operator, auditor = script(bob), script(charlie)
    before = rows()
    assert operator.get(kind)[1]["results"] == []
    assert [one["id"] for one in auditor.get(kind)[1]["results"]] == [row.pk]
    verb = "release" if kind == "reservations" else "end"
    for path in (f"{kind}/{row.pk}/{verb}", f"{kind}/999999/{verb}"):
        assert operator.post(path, reason="mine")[0] == 404
    assert operator.post(kind, **asked)[0] == 400
    assert auditor.post(kind, **asked)[0] == 403
    assert auditor.post(f"{kind}/{row.pk}/{verb}", reason="mine")[0] == 403
    assert rows() == before
    assert operator.post(kind, **body_of(kind, server, laptop))[0] == 201


BAD: list[tuple[str, str, Any]] = [
    *(("reservations", "addresses", value) for value in ("", "x", "10.9.0.0/33", 5, None, ["10.9.0.4"], "10.1.0.1")),
    *(("pools", "ipv4", value) for value in ("x", "10.9.0.1/25", 5, "10.8.0.0/25", "fd00::/64")),
    *(("pools", "name", value) for value in ("", "A", "a\nb", 5, None)),
    *(("static-addresses", "ipv4", value) for value in ("x", "10.9.0.0", "10.9.0.0/30", 5, "10.8.0.1")),
    *(("static-addresses", "device", value) for value in (10**30, "x", None, [1], True, 0)),
    *(("routed-networks", "network", value) for value in ("", "x", "0.0.0.0/0", "10.9.0.0/24", 5, None, "::1/128")),
    *((kind, "server", value) for kind in KINDS for value in (10**30, "x", None, {"id": 1}, 0)),
    *((kind, "colour", "red") for kind in KINDS),
    *((kind, "reason", value) for kind in KINDS if kind != "pools" for value in ("", " ", "a\nb", 5, None, "x" * 501)),
]


@pytest.mark.parametrize(("kind", "field", "value"), BAD)
def test_a_bad_field_is_named_and_nothing_changes(
    kind: str, field: str, value: Any, server: Server, laptop: Device, bob: User
) -> None:
    """A1, A3: the same request without it is taken."""
    caller, good = script(bob), body_of(kind, server, laptop)
    before = rows()
    code, body = caller.post(kind, **{**good, field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.post(kind, **good)[0] == 201


def test_a_live_peer_s_new_address_is_told_of(server: Server, laptop: Device, bob: User) -> None:
    make_grant(laptop.person, server.environment)
    code, row = script(bob).post("static-addresses", **body_of("static-addresses", server, laptop))
    assert (code, row["ipv4"], row["ipv6"], row["is_reissued"]) == (201, "10.9.0.50", None, True)
    phone = make_device(laptop.person, "phone")
    form = {"device": phone.pk, "server": server.pk, "ipv4": "10.9.0.51", "ipv6": "", "reason": "a printer"}
    page = browser(bob).post(reverse("admin:peers_staticaddress_add"), form, follow=True)
    assert "hand out its tunnel file anew" in page.content.decode()


def test_an_address_is_found_inside_of_ranges_with_why_nobody_may_have_it(
    server: Server, laptop: Device, bob: User, staging: Environment
) -> None:
    caller = script(bob)
    caller.post("reservations", **body_of("reservations", server, laptop))
    make_server(staging, "vpn-sgp")
    make_grant(laptop.person, server.environment)

    def asked(query: str) -> list[tuple[str, str, str]]:
        code, body = caller.get(f"address-ranges?{query}")
        assert code == 200, body
        return [(row["first"], row["state"], row["why"][:20]) for row in body["results"]]

    assert asked("address=10.9.0.44") == [("10.9.0.40", "taken", "reserved by bob on 2")]
    assert asked("address=10.9.0.2") == [("10.9.0.2", "taken", "in use by Carol's la")]
    assert asked("address=fd00:9::2") == [("fd00:9::2", "taken", "in use by Carol's la")]
    assert asked("address=10.9.0.200") == []
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="over")
    assert asked("address=10.9.0.2&state=resting") == [("10.9.0.2", "resting", "rests, as vpn-fra ha")]
    assert len(asked(f"server={server.pk}&kind=server")) == 2
    assert len(asked(f"server={server.pk}")) == 5
    assert caller.get("address-ranges?state=lost")[0] == 400
    code, body = caller.get("address-ranges?address=10.9.0.5/24")
    assert (code, list(body)) == (400, ["address"])
    assert caller.call("POST", "address-ranges", {})[0] == 405


def test_the_page_finds_an_address_inside_of_ranges_and_says_why(server: Server, laptop: Device, bob: User) -> None:
    reserve_addresses(actor=SYSTEM, server=server, addresses="10.9.0.40-10.9.0.49", reason="printers")
    make_grant(laptop.person, server.environment)
    client, page = browser(bob), reverse("admin:fleet_addressrange_changelist")

    def shown(query: str) -> list[str]:
        return [str(row) for row in client.get(page + query).context["cl"].result_list]

    assert shown("?q=10.9.0.44") == ["10.9.0.40 to 10.9.0.49"]
    assert shown("?q=10.9.0.0/29") == ["10.9.0.1/32", "10.9.0.2/32"]
    assert shown("?q=printers") == ["10.9.0.40 to 10.9.0.49"]
    assert len(shown("?q=vpn-fra")) == 5
    assert shown("?state=released") == []
    assert "in use by Carol&#x27;s laptop since" in client.get(page).content.decode()


def test_a_reservation_is_made_and_released_on_its_page(server: Server, bob: User) -> None:
    client, form = browser(bob), {"server": server.pk, "addresses": "10.9.0.1-10.9.0.3", "reason": "printers"}
    answer = client.post(reverse("admin:fleet_addressrange_add"), form)
    assert "This is in the way: 10.9.0.1/32 (the server&#x27;s own)." in answer.content.decode()
    client.post(reverse("admin:fleet_addressrange_add"), {**form, "addresses": "10.9.0.3"})
    row = AddressRange.objects.get(kind="reserved")
    release = reverse("admin:fleet_addressrange_release", args=[row.pk])
    assert client.get(release).status_code == 200
    assert AddressRange.objects.filter(kind="reserved", released_at=None).exists()
    client.post(release, {"_answered": "1", "reason": "sold"})
    assert not AddressRange.objects.filter(kind="reserved", released_at=None).exists()


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (Pool, {"name": "temps", "ipv4": "10.9.0.128/25", "ipv6": ""}),
        (StaticAddress, {"ipv4": "10.9.0.50", "ipv6": "", "reason": "a printer"}),
        (RoutedNetwork, {"network": "192.168.7.0/24", "reason": "the branch"}),
    ],
)
def test_what_has_an_end_is_begun_and_ended_on_its_page(
    model: Any, form: dict[str, str], server: Server, laptop: Device, bob: User
) -> None:
    client, name = browser(bob), f"admin:{model._meta.app_label}_{model._meta.model_name}"
    bad = {name: "x" if name in {"ipv4", "network"} else value for name, value in form.items()}
    places = {"server": server.pk, "device": laptop.pk}
    assert client.post(reverse(f"{name}_add"), {**bad, **places}).context["adminform"].form.errors
    assert client.post(reverse(f"{name}_add"), {**form, **places}).status_code == 302
    row = model.objects.get()
    end = reverse(f"{name}_end", args=[row.pk])
    assert client.post(end, {"_answered": "1", "reason": ""}).status_code == 200
    assert client.post(end, {"_answered": "1", "reason": "no need"}).status_code == 302
    row.refresh_from_db()
    assert row.ended_at


def test_a_server_s_page_says_how_much_room_is_left(server: Server, laptop: Device, bob: User) -> None:
    add_pool(actor=SYSTEM, server=server, name="temps", ipv4="10.9.0.128/25")
    reserve_addresses(actor=SYSTEM, server=server, addresses="10.9.0.120-10.9.0.129", reason="printers")
    make_grant(laptop.person, server.environment)
    make_device(laptop.person, "phone")
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="over")
    make_peers(server.environment, 3)
    found = [
        (room.name, str(room.network), room.size, room.taken, room.resting, room.free) for room in rooms_of(server)
    ]
    assert found == [
        ("for anybody", "10.9.0.0/24", 127, 1 + 3 + 8, 2, "113"),
        ("temps", "10.9.0.128/25", 127, 2, 0, "125"),
        ("for anybody", "fd00:9::/64", 2**64 - 1, 1 + 3, 2, "more than a billion"),
    ]
    page = browser(bob).get(f"/admin/fleet/server/{server.pk}/change/").content.decode()
    assert "10.9.0.128/25" in page
    assert "more than a billion" in page


def test_lists_cost_the_same_however_many_addresses_there_are(server: Server, laptop: Device, alice: User) -> None:
    """L4."""
    client = browser(alice)
    paths = [
        f"/api/v1/address-ranges?server={server.pk}",
        *(f"/api/v1/{kind}" for kind in KINDS),
        f"/admin/fleet/addressrange/?server__id__exact={server.pk}",
        f"/admin/fleet/server/{server.pk}/change/",
    ]

    def fill(number: int) -> None:
        make_peers(server.environment, 3)
        device = make_device(make_person("Dave"))
        asked: dict[str, Any] = {"actor": SYSTEM, "server": server, "reason": "x"}
        reserve_addresses(addresses=f"10.9.0.{100 + number}", **asked)
        assign_address(device=device, ipv4=f"10.9.0.{150 + number}", **asked)
        route_network(device=device, network=f"192.168.{number}.0/24", **asked)
        add_pool(actor=SYSTEM, server=server, name=f"p{number}", ipv6=f"fd00:9::{number}:0:0/96")

    def cost() -> dict[str, int]:
        found = {}
        for path in paths:
            client.get(path)
            with CaptureQueriesContext(connection) as seen:
                assert client.get(path).status_code == 200, path
            found[path] = len(seen)
        with CaptureQueriesContext(connection) as seen:
            desired_state(server.pk)
        return {**found, "desired": len(seen)}

    fill(1)
    few = cost()
    for number in (2, 3, 4):
        fill(number)
    assert cost() == few
