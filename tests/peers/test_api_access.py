"""People, devices, grants and peers over HTTP."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Role, Server, User
from fleet.services import give_role
from peers.models import Device, Grant, Peer
from peers.revocation import revoke_key
from tests.build import make_device, make_grant, make_peers, make_person, make_server, new_public_key
from tests.doors import rows, script

BAD_LINES = ["", "bob\n[Interface]\nPostUp = touch /run/pwned", "a\x00b", "a\tb", "a\u2028b", "x" * 101, 5, None, ["a"]]
TOMORROW = (timezone.now() + dt.timedelta(days=1)).isoformat()
ZERO = "A" * 43 + "="
BAD_IDS: list[Any] = [10**30, "x", [1], {"id": 1}, True, 0, 999]  # None is how a grant names no environment
BAD_KEYS = ["", ZERO, "A" * 44, "x", 5, None, ["a"], "\u00e9" * 44]


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_name_of_a_person_is_refused(name: Any, bob: User) -> None:
    """A1."""
    caller = script(bob)
    before = rows()
    code, body = caller.post("people", name=name)
    assert (code, list(body)) == (400, ["name"])
    assert rows() == before
    assert caller.post("people", name="Zoë O'Neil")[0] == 201


@pytest.mark.parametrize(("field", "value"), [("email", "x"), ("email", "a@b\nc"), ("kind", "boss"), ("user", 1)])
def test_a_bad_field_of_a_person_is_named(field: str, value: Any, bob: User) -> None:
    """B4."""
    code, body = script(bob).post("people", **{"name": "Dave", field: value})
    assert (code, list(body)) == (400, [field])


def test_a_person_changes(bob: User) -> None:
    person, caller = make_person("Dave"), script(bob)
    assert caller.patch(f"people/{person.pk}", name="Dave Dietrich")[1]["name"] == "Dave Dietrich"
    assert caller.patch(f"people/{person.pk}", name="a\nb")[0] == 400
    assert caller.names("people") == ["Dave Dietrich"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_none_is_refused(key: Any, bob: User, staging: Environment) -> None:
    """A6."""
    person, caller = make_person(), script(bob)
    before = rows()
    code, body = caller.post("devices", person=person.pk, name="laptop", public_key=key)
    assert (code, list(body)) == (400, ["public_key"])
    assert rows() == before


def test_a_key_with_a_space_or_another_last_character_is_refused(bob: User) -> None:
    """A6."""
    person, caller, key = make_person(), script(bob), new_public_key()
    other_end = key[:42] + chr(ord(key[42]) + 1) + "="
    before = rows()
    for bad in (f" {key}", f"{key} ", f"{key}\n", key[:43], other_end):
        code, body = caller.post("devices", person=person.pk, name="laptop", public_key=bad)
        assert (code, list(body)) == (400, ["public_key"]), bad
    assert rows() == before
    assert caller.post("devices", person=person.pk, name="laptop", public_key=key)[0] == 201


def test_a_key_that_is_taken_is_a_conflict(bob: User, staging: Environment) -> None:
    """A6: another device's, a server's own, a tombstoned one."""
    person, caller = make_person(), script(bob)
    taken, own, dead = make_device(person).public_key, new_public_key(), new_public_key()
    Server.objects.filter(pk=make_server(staging).pk).update(public_key=own)
    revoke_key(actor=SYSTEM, public_key=dead, reason="leaked")
    before = rows()
    for key in (taken, own, dead):
        code, body = caller.post("devices", person=person.pk, name="phone", public_key=key)
        assert (code, list(body)) == (409, ["public_key"])
    assert rows() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("networks", value) for value in (["10.0.0.2/8"], ["10.0.0.2/32;id"], ["$(id)"], ["10.0.0.2/33"])),
        *(("networks", value) for value in (["010.0.0.2/32"], ["::ffff:10.0.0.2/128"], "10.0.0.0/8", [5], [None])),
        *(("networks", value) for value in (["10.0.0.2/32\t0.0.0.0/0"], ["10.0.0.0/8 "])),
        ("networks", [["10.0.0.0/8"]]),
        ("networks", {}),
        *(("until", value) for value in ("soon", "2001-01-01T00:00:00Z", 5, "9999-12-31T23:59:59-23:59")),
        *(("reason", value) for value in ("", " ", "a\nb", "x" * 501, None, 5)),
        *(("person", value) for value in (999, None, "x", 10**30)),
        *(("environment", value) for value in BAD_IDS),
        ("granted_by", "alice"),
        ("server", 999),
    ],
)
def test_a_bad_field_of_a_grant_is_named_and_nothing_changes(
    field: str, value: Any, bob: User, staging: Environment
) -> None:
    """A3."""
    caller = script(bob)
    good = {"person": make_person().pk, "environment": staging.pk, "reason": "project", "until": TOMORROW}
    before = rows()
    code, body = caller.post("grants", **{**good, field: value})
    assert (code, list(body)) == (400, [field])
    assert rows() == before
    assert caller.post("grants", **good)[0] == 201


def test_a_grant_goes_to_one_place(bob: User, staging: Environment) -> None:
    person, server, caller = make_person(), make_server(staging), script(bob)
    before = rows()
    assert caller.post("grants", person=person.pk, reason="x")[0] == 400
    both = {"environment": staging.pk, "server": server.pk}
    assert caller.post("grants", person=person.pk, reason="x", **both)[0] == 400
    assert rows() == before


def test_a_grant_issues_peers_and_its_end_withdraws_them(bob: User, staging: Environment) -> None:
    server, person, caller = make_server(staging), make_person(), script(bob)
    device = make_device(person)
    code, grant = caller.post("grants", person=person.pk, environment=staging.pk, reason="project")
    assert code == 201
    (peer,) = caller.get(f"peers?device={device.pk}")[1]["results"]
    assert (peer["server"], peer["public_key"], len(peer["addresses"])) == (server.pk, device.public_key, 2)
    assert caller.post(f"grants/{grant['id']}/end")[0] == 400
    assert caller.post(f"grants/{grant['id']}/end", reason="over")[1]["ended_at"] is not None
    assert caller.get(f"peers/{peer['id']}")[1]["end"] == "withdrawn"
    assert caller.post(f"grants/{grant['id']}/end", reason="again")[0] == 409


def test_many_grants_end_in_one_act(bob: User, staging: Environment, production: Environment) -> None:
    """A4: an empty choice touches nothing."""
    mine = [make_grant(make_person(), staging) for _ in range(3)]
    other, caller = make_grant(make_person(), production), script(bob)
    before = rows()
    for chosen in ([], None, "all", [0], [10**30], [mine[0].pk, other.pk], [999]):
        code, body = caller.post("grants/end", grants=chosen, reason="over")
        assert (code, list(body)) == (400, ["grants"]), chosen
    assert caller.post("grants/end", reason="over")[0] == 400
    assert rows() == before
    assert caller.post("grants/end", grants=[grant.pk for grant in mine], reason="over")[0] == 200
    assert list(Grant.objects.filter(ended_at=None)) == [other]


def test_an_operator_s_access_is_that_of_their_environments(
    bob: User, alice: User, staging: Environment, production: Environment
) -> None:
    """B3."""
    make_server(staging), make_server(production)
    person, caller = make_person(), script(bob)
    own, other = make_grant(person, staging), make_grant(person, production)
    make_device(person)
    hidden = Peer.objects.get(server__environment=production)
    assert caller.names("grants", "id") == [own.pk]
    assert len(caller.names("peers", "id")) == 1
    assert caller.get(f"grants?environment={production.pk}")[1]["count"] == 0
    assert caller.get(f"peers?server={hidden.server_id}")[1]["count"] == 0
    missing = caller.get("peers/00000000-0000-0000-0000-000000000000")
    assert caller.get(f"peers/{hidden.pk}") == caller.get(f"peers/{hidden.pk}/config") == missing
    before = rows()
    assert caller.post(f"grants/{other.pk}/end", reason="x") == caller.post("grants/999/end", reason="x")
    assert caller.post("grants", person=person.pk, environment=production.pk, reason="x")[0] == 400
    assert rows() == before
    assert len(script(alice).names("peers", "id")) == 2


def test_the_tunnel_file_is_plain_text_and_holds_no_name(bob: User, staging: Environment) -> None:
    """A2."""
    server, person, caller = make_server(staging), make_person("Mallory"), script(bob)
    make_grant(person, staging)
    make_device(person, "PostUp")
    peer = Peer.objects.get()
    assert caller.get(f"peers/{peer.pk}/config")[0] == 400
    Server.objects.filter(pk=server.pk).update(public_key=new_public_key())
    answer = caller.client.get(f"/api/v1/peers/{peer.pk}/config", headers={"Authorization": f"Bearer {caller.token}"})
    assert (answer["Content-Type"], answer["Cache-Control"]) == ("text/plain; charset=utf-8", "no-store")
    text = answer.content.decode()
    assert text.startswith("[Interface]\n")
    assert ("Mallory" in text, "PostUp" in text, staging.name in text) == (False, False, False)


def test_no_answer_holds_the_preshared_key(bob: User, staging: Environment) -> None:
    """C3."""
    make_server(staging)
    person, caller = make_person(), script(bob)
    make_grant(person, staging)
    make_device(person)
    sealed = Peer.objects.get().preshared_key
    assert sealed not in str(caller.get("peers")[1])
    assert "preshared" not in str(caller.get("peers")[1])


def test_lists_cost_the_same_however_long_they_are(
    bob: User, staging: Environment, django_assert_num_queries: Any
) -> None:
    """L4."""
    caller = script(bob)
    make_server(staging)
    for _ in range(12):
        person = make_person()
        make_grant(person, staging)
        make_device(person)
    for path in ("people", "devices", "grants", "peers"):
        with django_assert_num_queries(4):  # the token, its user's roles, the count, the rows
            assert len(caller.names(path, "id")) == 12
    assert Device.objects.count() == 12


def test_who_may_only_look_is_given_no_tunnel_file(bob: User, charlie: User, staging: Environment) -> None:
    """B2."""
    server = make_server(staging)
    make_peers(staging, 1)
    Server.objects.filter(pk=server.pk).update(public_key=new_public_key())
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=staging)
    path = f"peers/{Peer.objects.get().pk}/config"
    asked = [script(charlie), script(bob, scope="read"), script(bob)]
    assert [caller.get(path)[0] for caller in asked] == [403, 403, 200]
