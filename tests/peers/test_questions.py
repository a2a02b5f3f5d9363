"""What the four questions are answered with."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import AddressRange, Environment, Server, User
from peers.due import settle_placements
from peers.granting import end_grants, grant_access
from peers.models import Peer, PeerStatus, Person, RoutedNetwork
from peers.moving import move_grant
from peers.revocation import revoke_devices, revoke_key
from peers.services import change_person
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_person, make_server, new_public_key, read_back
from tests.doors import script
from tests.peers.asking import hex_of, seen, table, whose

LONG_AGO = "2020-01-01T00:00:00Z"


def test_who_has_access_says_how_and_since_when(alice: User, staging: Environment) -> None:
    make_server(staging, "vpn-a")
    ann, team = make_person("Ann"), add_team(actor=SYSTEM, name="blue")
    device = make_device(ann)
    join_team(actor=SYSTEM, team=team, people=[ann])
    terms: dict[str, Any] = {"networks": ["10.0.0.0/8"], "hours": "mon-sun 00:00-24:00"}
    grant = grant_access(actor=SYSTEM, team=team, environment=staging, reason="project work", **terms)
    read_back()
    body = script(alice).get("questions/access")[1]
    peer, row = Peer.objects.get(), table(body)[0]
    assert body["access"]["total"] == 1
    assert (row["state"], row["kind"], row["public_key"]) == ("has it", "employee", device.public_key)
    assert row["person"] == {"text": "Ann", "model": "peers.person", "id": ann.pk}
    assert row["server"]["text"] == "vpn-a"
    assert (row["networks"], row["hours"], row["until"]) == (["10.0.0.0/8"], ["mon-sun 00:00-24:00 UTC"], None)
    story = "team blue, by Console: project work"
    assert row["grants"] == [{"text": story, "model": "peers.grant", "id": grant.pk}]
    assert row["since"] == {"text": f"{peer.issued_at:%Y-%m-%d %H:%M:%S}", "model": "peers.peer", "id": str(peer.pk)}
    assert len(row["addresses"]) == 2


def test_a_right_without_a_device_or_a_peer_is_told_too(alice: User, staging: Environment) -> None:
    ann, ben = make_person("Ann"), make_person("Ben")
    make_grant(ann, staging)
    make_grant(ben, staging)
    make_device(ben)
    make_server(staging, "vpn-a")
    caller = script(alice)
    assert whose(caller.get("questions/access")[1]) == [("Ann", "no device", "vpn-a"), ("Ben", "no peer", "vpn-a")]
    settle_placements()
    read_back()
    assert whose(caller.get("questions/access")[1]) == [("Ann", "no device", "vpn-a"), ("Ben", "has it", "vpn-a")]


def test_what_ended_is_pending_until_its_server_was_seen_without_it(alice: User, staging: Environment) -> None:
    """D12: it may still pass there, so nobody reads that it was revoked."""
    make_server(staging, "vpn-a")
    ann = make_person("Ann")
    grant, device = make_grant(ann, staging), make_device(ann)
    caller = script(alice)
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    end_grants(actor=SYSTEM, grants=[grant], reason="over")
    body = caller.get("questions/access")[1]
    assert whose(body) == [("Ann", "pending", "vpn-a")]
    assert table(body)[0]["note"].endswith("not seen gone yet")
    between = timezone.now().isoformat().replace("+", "%2B")
    Peer.objects.update(gone_at=timezone.now())
    assert whose(caller.get("questions/access")[1]) == []
    assert whose(caller.get(f"questions/access?at={between}")[1]) == [("Ann", "pending", "vpn-a")]


def test_a_move_waits_where_the_old_server_was_not_seen_without_it(alice: User, staging: Environment) -> None:
    old, new = make_server(staging, "vpn-old"), make_server(staging, "vpn-new")
    ann = make_person("Ann")
    make_device(ann)
    grant = grant_access(actor=SYSTEM, person=ann, server=old, reason="project work")
    before = timezone.now()
    move_grant(actor=SYSTEM, grant=grant, server=new, reason="closer")
    caller = script(alice)
    assert whose(caller.get("questions/access")[1]) == [("Ann", "waiting", "vpn-new"), ("Ann", "pending", "vpn-old")]
    then = before.isoformat().replace("+", "%2B")
    assert whose(caller.get(f"questions/access?at={then}")[1]) == [("Ann", "has it", "vpn-old")]


def test_who_was_on_the_other_server_already_stays_in_when_a_grant_moves(alice: User, staging: Environment) -> None:
    old, new = make_server(staging, "vpn-old"), make_server(staging, "vpn-new")
    ann = make_person("Ann")
    make_device(ann)
    grant = grant_access(actor=SYSTEM, person=ann, server=old, reason="project work")
    grant_access(actor=SYSTEM, person=ann, server=new, reason="on call")
    move_grant(actor=SYSTEM, grant=grant, server=new, reason="closer")
    read_back(new)
    told = whose(script(alice).get("questions/access")[1])
    assert told == [("Ann", "has it", "vpn-new"), ("Ann", "pending", "vpn-old")]
    assert Peer.objects.get(server=new).waits_for is None


@pytest.mark.parametrize("name", ["person", "team", "environment", "server"])
def test_the_answer_is_narrowed(name: str, alice: User, staging: Environment, production: Environment) -> None:
    server = make_server(staging, "vpn-a")
    make_server(production, "vpn-b")
    ann, team = make_person("Ann"), add_team(actor=SYSTEM, name="blue")
    join_team(actor=SYSTEM, team=team, people=[ann])
    make_grant(ann, staging)
    make_device(ann)
    ben = make_person("Ben")
    make_grant(ben, production)
    make_device(ben)
    read_back()
    caller = script(alice)
    assert caller.get("questions/access")[1]["access"]["total"] == 2
    pk = {"person": ann.pk, "team": team.pk, "environment": staging.pk, "server": server.pk}[name]
    assert whose(caller.get(f"questions/access?{name}={pk}")[1]) == [("Ann", "has it", "vpn-a")]


def test_what_one_person_has_tells_how_it_came_about(alice: User, staging: Environment) -> None:
    make_server(staging, "vpn-a")
    ann = make_person("Ann")
    make_grant(ann, staging)
    device = make_device(ann)
    tomorrow = timezone.now() + dt.timedelta(days=1)
    grant_access(actor=SYSTEM, person=ann, environment=staging, reason="later", begins_at=tomorrow)
    suspend(actor=SYSTEM, targets=[device], reason="on leave")
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    body = script(alice).get(f"questions/person?person={ann.pk}")[1]
    assert [row["what"]["text"] for row in table(body, "revocations")] == ["Ann's laptop"]
    assert [row["reason"] for row in table(body, "later")] == ["later"]
    assert [row["reason"] for row in table(body, "suspensions")] == ["on leave"]
    steps = [(row["what"], row["by"], row["reason"]) for row in table(body, "timeline")]
    assert ("peer revoked", "Console", "lost") in steps
    assert ("suspended", "Console", "on leave") in steps
    assert ("access granted", "Console", "project work") in steps
    early = script(alice, scope="read").get(f"questions/person?person={ann.pk}&at={LONG_AGO}")[1]
    tables = {name: one["total"] for name, one in early.items() if isinstance(one, dict)}
    assert tables == dict.fromkeys(set(early) - {"at", "is_now", "note"}, 0)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.20.0.7", ["Ann", "Ben"]),
        ("10.0.0.0/8", ["Ann", "Ben"]),
        ("192.0.2.1", ["Ben"]),
        ("fd00::1", ["Ann", "Ben"]),
    ],
)
def test_what_reaches_a_network_is_whose_tunnels_carry_it(
    network: str, expected: list[str], alice: User, staging: Environment
) -> None:
    """No networks means everything; both families."""
    make_server(staging)
    for name, networks in (("Ann", ["10.20.0.0/16", "fd00::/8"]), ("Ben", []), ("Cem", ["10.200.0.0/16"])):
        person = make_person(name)
        make_device(person)
        until = timezone.now() + dt.timedelta(days=2)
        grant_access(actor=SYSTEM, person=person, environment=staging, networks=networks, reason="work", until=until)
    body = script(alice).get(f"questions/reach?network={network}")[1]
    names = [one[0] for one in whose(body)]
    assert [name for name in names if name != "Cem"] == expected
    assert ("Cem" in names) == (network == "10.0.0.0/8")


def test_what_reaches_a_network_names_who_it_is_behind_and_whose_pool_it_is(alice: User, staging: Environment) -> None:
    server = make_server(staging, "vpn-a", ipv4_pool="10.77.0.0/16")
    ann = make_person("Ann")
    make_grant(ann, staging)
    device = make_device(ann)
    low, high = hex_of("192.0.2.0"), hex_of("192.0.2.255")
    taken = AddressRange.objects.create(server=server, first=low, last=high, kind=AddressRange.Kind.ROUTED)
    site = {"network": "192.0.2.0/24", "range": taken, "reason": "site", "routed_by": "alice"}
    RoutedNetwork.objects.create(device=device, server=server, **site)
    caller = script(alice)
    body = caller.get("questions/reach?network=192.0.2.9")[1]
    assert [(row["network"], row["device"]["text"]) for row in table(body, "routed")] == [
        ("192.0.2.0/24", "Ann's laptop")
    ]
    assert table(body, "pools") == []
    pools = table(caller.get("questions/reach?network=10.77.3.0/24")[1], "pools")
    assert [(row["server"]["text"], row["pool"]) for row in pools] == [("vpn-a", "10.77.0.0/16")]


def test_a_key_is_found_by_its_beginning_also_one_that_no_device_ever_had(alice: User, staging: Environment) -> None:
    make_server(staging, "vpn-a")
    ann = make_person("Ann")
    make_grant(ann, staging)
    key, stranger = new_public_key(), new_public_key()
    make_device(ann, public_key=key)
    revoke_key(actor=SYSTEM, public_key=stranger, reason="found on a disk")
    caller = script(alice)
    known = seen(caller, "key", key[:8])
    assert {"device", "peer", "event"} <= known.keys()
    assert known["peer"][0]["where"] == "vpn-a"
    assert {"tombstone", "event"} <= seen(caller, "key", stranger).keys()
    assert seen(caller, "key", new_public_key()) == {}
    assert seen(caller, "key", key.swapcase()) == {}


def test_an_address_tells_who_had_it_one_after_another(alice: User, staging: Environment) -> None:
    make_server(staging, "vpn-a")
    ann = make_person("Ann")
    make_grant(ann, staging)
    device = make_device(ann)
    peer = Peer.objects.get()
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    Peer.objects.update(gone_at=timezone.now())
    AddressRange.objects.exclude(freed_at=None).update(released_at=timezone.now())
    make_device(make_person("Ben"))
    make_grant(Person.objects.get(name="Ben"), staging)
    PeerStatus.objects.filter(peer__ended_at=None).update(endpoint="198.51.100.7:4711")
    caller = script(alice)
    had = seen(caller, "address", str(peer.ipv4).split("/")[0])["peer"]
    assert [(row["whose"], row["last"] is None) for row in had] == [("Ann's laptop", False), ("Ben's laptop", True)]
    assert seen(caller, "address", "198.51.100.0/24")["endpoint"][0]["whose"] == "Ben's laptop"
    assert "endpoint" not in seen(caller, "address", "198.51.100.8")
    assert "the server's own" in seen(caller, "address", Server.objects.get().ipv4_address)


def test_a_name_is_found_in_any_case_and_when_it_is_old(alice: User, staging: Environment) -> None:
    ann = make_person("Ann Zoë Smith")
    change_person(actor=SYSTEM, person=ann, name="Ann Zoë Jones")
    caller = script(alice)
    assert seen(caller, "name", "zoë jones")["person"][0]["text"] == "Ann Zoë Jones"
    assert seen(caller, "name", "SMITH")["event"][0]["text"] == "Ann Zoë Smith became Ann Zoë Jones"
    assert seen(caller, "name", "smithers") == {}
