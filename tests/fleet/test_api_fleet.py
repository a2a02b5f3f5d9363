"""Environments, servers and bastions over HTTP."""

from typing import Any

import pytest

from fleet.models import Environment, Server, User
from tests.build import make_server
from tests.doors import rows, script

SERVER = {
    "name": "vpn-fra",
    "host": "198.51.100.7",
    "endpoint_host": "vpn.example.com",
    "ipv4_pool": "10.1.0.0/16",
    "ipv6_pool": "fd00:1::/64",
}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Z"
BASTION = {"name": "jump", "host": "198.51.100.9", "host_key": HOST_KEY}
LONG = "x" * 300

BAD_NAMES = ["", "UPPER", "a b", "a\n", "a\n[Interface]\nPostUp = id", "-a", "é", "x" * 64, "a\x00b", 5, None, ["a"]]
BAD_IDS: list[Any] = [10**30, "x", None, [1], {"id": 1}, True, 0, 999]
BAD_SERVERS: list[tuple[str, Any]] = [
    *(("name", name) for name in BAD_NAMES),
    *(("host", value) for value in ("", "a b", "-oProxyCommand=id", "host:22 ", "a\nb", LONG)),
    *(("endpoint_host", value) for value in ("", "vpn.example.com\nPostUp = id", "$(id)")),
    *(("interface", value) for value in ("", "../../etc/cron.d/x", "wg0;id", "-h", "x" * 16, "wg0\n", ".")),
    *(("ipv4_pool", value) for value in ("", "10.1.0.5/16", "10.1.0.0/33", "010.1.0.0/16", "fd00::/64", "10.0.0.0/31")),
    *(("ipv4_pool", value) for value in ("10.0.0.0/16;id", "10.0.0.0/16\t0.0.0.0/0", "10.0.0.0/16 ", "0.0.0.0/0")),
    *(("ipv6_pool", value) for value in ("", "::ffff:10.0.0.0/112", "fd00::1/64", "10.0.0.0/8", "FD00::/64", "::/0")),
    *(("listen_port", value) for value in (0, 65536, -1, 10**30, "x", 1.5, None)),
    *(("ssh_port", value) for value in (0, 65536, 10**400)),
    *(("mtu", value) for value in (0, 1501, 10**30)),
    *(("dns", value) for value in ("10.0.0.53", ["10.0.0.53/32"], ["dns.example.com"], [5], {"a": 1}, ["::1\nPostUp"])),
    *(("forward", value) for value in ("nat", "")),
    *(("ssh_user", value) for value in ("admin", "root;id")),
    *(("environment", value) for value in BAD_IDS),
    *(("bastion", value) for value in (10**30, "x", 999)),
    ("is_observe_only", "perhaps"),
    ("is_observe_only", []),
]


@pytest.mark.parametrize(("field", "value"), BAD_SERVERS)
def test_a_bad_field_of_a_server_is_named_and_nothing_changes(
    field: str, value: Any, alice: User, staging: Environment
) -> None:
    """A1, A3, A4: the same request without the bad value is taken."""
    caller, good = script(alice), {**SERVER, "environment": staging.pk}
    before = rows()
    code, body = caller.post("servers", **{**good, field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.post("servers", **good)[0] == 201


@pytest.mark.parametrize("field", ["name", "environment", "host", "endpoint_host", "ipv4_pool", "ipv6_pool"])
def test_a_missing_field_of_a_server_is_named(field: str, alice: User, staging: Environment) -> None:
    values = {**SERVER, "environment": staging.pk}
    del values[field]
    code, body = script(alice).post("servers", **values)
    assert (code, list(body)) == (400, [field])


@pytest.mark.parametrize("field", ["id", "generation", "public_key", "host_key", "is_superuser", "enrolled_at"])
def test_an_unknown_field_is_named_not_ignored(field: str, alice: User, staging: Environment) -> None:
    """B4."""
    caller = script(alice)
    before = rows()
    code, body = caller.post("servers", **SERVER, environment=staging.pk, **{field: "x"})
    assert (code, list(body)) == (400, [field])
    assert rows() == before


def test_a_server_is_shown_with_what_was_wanted_and_what_was_seen(alice: User, staging: Environment) -> None:
    code, body = script(alice).post("servers", **SERVER, environment=staging.pk, dns=["10.1.0.1"])
    assert code == 201
    shown = {name: body[name] for name in (*SERVER, "dns", "generation", "observed_generation", "conditions", "drift")}
    wanted = {"dns": ["10.1.0.1"], "generation": 1, "observed_generation": 0, "conditions": [], "drift": []}
    assert shown == {**SERVER, **wanted}


def test_a_name_that_is_taken_is_a_conflict(alice: User, staging: Environment) -> None:
    caller = script(alice)
    make_server(staging, "vpn-fra")
    code, body = caller.post("servers", **SERVER, environment=staging.pk)
    assert (code, list(body)) == (409, ["name"])


def test_a_server_changes_with_a_reason_and_its_generation_grows(alice: User, staging: Environment) -> None:
    server, caller = make_server(staging), script(alice)
    assert caller.patch(f"servers/{server.pk}", endpoint_host="new.example.com")[0] == 400
    code, body = caller.patch(f"servers/{server.pk}", endpoint_host="new.example.com", reason="moved house")
    assert (code, body["endpoint_host"]) == (200, "new.example.com")
    assert Server.objects.get(pk=server.pk).generation == server.generation + 1


def test_an_operator_sees_and_changes_the_servers_of_their_environments_alone(
    bob: User, staging: Environment, production: Environment
) -> None:
    """B3: another's answers as one that does not exist."""
    own, other = make_server(staging, "own", is_set_up=False), make_server(production, "other")
    caller = script(bob)
    assert caller.names("servers") == ["own"]
    assert caller.names("servers?name=other") == []
    assert caller.get(f"servers/{own.pk}")[0] == 200
    assert caller.get(f"servers/{other.pk}") == caller.get("servers/999999")
    change = {"mtu": 1400, "reason": "tunnel in tunnel"}
    before = rows()
    assert caller.patch(f"servers/{other.pk}", **change) == caller.patch("servers/999999", **change)
    assert caller.post("servers", **SERVER, environment=production.pk)[0] == 400
    assert rows() == before
    assert caller.patch(f"servers/{own.pk}", **change)[0] == 200


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_of_an_environment_is_refused(name: Any, alice: User) -> None:
    """A1."""
    caller = script(alice)
    before = rows()
    code, body = caller.post("environments", name=name)
    assert (code, list(body)) == (400, ["name"])
    assert rows() == before


@pytest.mark.parametrize("rest", ["-1", "400 00:00:00", "999999999 00:00:00", "soon", [], 10**30])
def test_a_bad_rest_of_an_environment_is_refused(rest: Any, alice: User) -> None:
    code, body = script(alice).post("environments", name="staging", address_rest=rest)
    assert (code, list(body)) == (400, ["address_rest"])


def test_environments_and_bastions_are_for_administrators(alice: User, bob: User) -> None:
    administrator, operator = script(alice), script(bob)
    before = rows()
    assert operator.post("environments", name="mine")[0] == 403
    assert operator.post("bastions", **BASTION)[0] == 403
    assert rows() == before
    assert administrator.post("environments", name="mine")[0] == 201
    assert administrator.post("bastions", **BASTION)[0] == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [("host_key", HOST_KEY + " root@host"), ("host_key", "x"), ("ssh_user", "a b"), ("host", "a b"), ("name", "A")],
)
def test_a_bad_field_of_a_bastion_is_named(field: str, value: str, alice: User) -> None:
    code, body = script(alice).post("bastions", **{**BASTION, field: value})
    assert (code, list(body)) == (400, [field])
