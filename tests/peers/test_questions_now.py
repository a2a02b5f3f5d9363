"""What is told of now is what the machines have, in the words of the peer's own page; of the past, what was written."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from fleet.models import Environment, Server, ServerStatus, User
from nodes.status import forget_machine
from peers.granting import end_grants, grant_access
from peers.models import Device, Peer, PeerStatus, Person
from peers.moving import let_in, move_grant
from peers.static import assign_address
from peers.suspending import resume, suspend
from tests.build import make_device, make_grant, make_person, make_review, make_server, read_back
from tests.doors import Script, browser, script
from tests.peers.asking import seen, table, whose


def granted(server: Server, name: str, **terms: Any) -> Peer:
    """A new person's peer on this server."""
    person = make_person(name)
    make_device(person)
    grant_access(actor=SYSTEM, person=person, server=server, reason="work", **terms)
    return Peer.objects.get(device__person=person, server=server)


def moment() -> str:
    return timezone.now().isoformat().replace("+", "%2B")


def shut(peer: Peer) -> None:
    """As its server says once a push has kept it out."""
    PeerStatus.objects.filter(peer=peer).update(shut_at=timezone.now())


@pytest.fixture
def kept_out(staging: Environment) -> dict[str, Peer]:
    """A person for each state, by the state; all of them but one on a server that was read back."""
    server, new = make_server(staging, "vpn-a"), make_server(staging, "vpn-new", is_set_up=False)
    names = ("has it", "suspending", "suspended", "letting in", "shut at its machine")
    found = {name: granted(server, name) for name in names}
    found["outside its hours"] = granted(server, "outside its hours", hours=an_hour_of_another_day())
    for name in ("suspending", "suspended", "letting in"):
        (held,) = suspend(actor=SYSTEM, targets=[found[name]], reason="on leave")
        if name != "suspending":
            shut(found[name])
    resume(actor=SYSTEM, suspension=held, reason="back")
    make_review(found["shut at its machine"])
    found["not set up there yet"] = granted(new, "not set up there yet")
    read_back(server)
    return found


def an_hour_of_another_day() -> str:
    return ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(timezone.now().weekday() + 3) % 7] + " 12:00-13:00"


def test_who_is_kept_out_is_not_told_as_access(kept_out: dict[str, Peer], alice: User) -> None:
    """Each in the word of the peer's own page; the three questions agree."""
    caller = script(alice)
    ways = ("access?", "reach?network=192.0.2.1")
    for body in (caller.get(f"questions/{way}")[1] for way in ways):
        assert {row["person"]["text"]: row["state"] for row in table(body)} == {name: name for name in kept_out}
        assert body["is_now"] is True
    for name, peer in kept_out.items():
        said = caller.get(f"peers/{peer.pk}")[1]["state"]
        assert said == ("issued" if name == "has it" else name)
        body = caller.get(f"questions/person?person={peer.device.person_id}")[1]
        assert whose(body) == [(name, name, peer.server.name)]
    notes = {row["person"]["text"]: row["note"] for row in table(caller.get("questions/access")[1])}
    assert (notes["has it"], notes["outside its hours"]) == ("", "")
    assert notes["suspending"].startswith("by Console since ")
    assert notes["suspending"].endswith(": on leave; vpn-a has not confirmed yet that it is out")
    assert notes["suspended"].endswith(": on leave")
    assert notes["letting in"] == "vpn-a has not confirmed yet that it is in again"
    assert notes["shut at its machine"] == "somebody at vpn-a did it: a review item waits for a decision"
    assert notes["not set up there yet"] == "vpn-new never was set up: nothing passes there"
    page = browser(alice).get(reverse("questions:access")).content.decode()
    assert [page.count(f">{name}</span>") for name in kept_out] == [1] * len(kept_out)


def test_of_the_past_only_what_was_written_is_told_and_the_page_says_so(kept_out: dict[str, Peer], alice: User) -> None:
    caller, then = script(alice), moment()
    Person.objects.filter(name="has it").update(name="Ann Jones")
    body = caller.get(f"questions/access?at={then}")[1]
    told = {row["person"]["text"]: row["state"] for row in table(body)}
    kept = {name: name for name in ("suspended", "outside its hours", "not set up there yet")}
    written = {**kept, "suspending": "suspended"}
    assert told == {name: written.get(name, "has it") for name in told}
    assert told.keys() == kept_out.keys() - {"has it"} | {"Ann Jones"}
    assert (body["is_now"], "What the machines held then is not known" in body["note"]) == (False, True)
    page = browser(alice).get(f"{reverse('questions:access')}?at={then}").content.decode()
    assert "names and kinds are those of today" in page
    assert "What the machines held then is not known" in page
    assert "is not known" not in browser(alice).get(reverse("questions:access")).content.decode()


def test_a_server_that_was_set_up_again_since_was_set_up_then(staging: Environment, alice: User) -> None:
    """Its row has the last enrolment alone; the ledger has each."""
    server = make_server(staging, "vpn-a", is_set_up=False)
    granted(server, "Ann")
    before, caller = moment(), script(alice)
    with act(Verb.SERVER_ENROLLED, actor=SYSTEM, reason="asked by alice") as this:
        this.on(server, changes={}, environment=staging.name)
    between = moment()
    Server.objects.update(enrolled_at=timezone.now())
    states = [whose(caller.get(f"questions/access?at={at}")[1])[0][1] for at in (before, between, moment())]
    assert states == ["not set up there yet", "has it", "has it"]


def test_a_peer_that_was_not_pushed_yet_is_issued_and_no_more(staging: Environment, alice: User) -> None:
    server = make_server(staging, "vpn-a")
    granted(server, "Ann")
    read_back()
    second, caller = granted(server, "Ben"), script(alice)
    body = caller.get("questions/access")[1]
    assert whose(body) == [("Ann", "has it", "vpn-a"), ("Ben", "issued", "vpn-a")]
    assert table(body)[1]["note"] == "vpn-a has not confirmed yet that it is there"
    read_back()
    assert whose(caller.get("questions/access")[1]) == [("Ann", "has it", "vpn-a"), ("Ben", "has it", "vpn-a")]
    missing = {"what": "missing", "detail": ""}
    for key, states in ((second.device.public_key, ["has it", "issued"]), (None, ["issued", "issued"])):
        ServerStatus.objects.update(drift=[{**missing, "public_key": key}])
        assert [state for _, state, _ in whose(caller.get("questions/access")[1])] == states
    route = {"public_key": second.device.public_key, "what": "route", "detail": ""}
    ServerStatus.objects.update(drift=[route])
    assert {state for _, state, _ in whose(caller.get("questions/access")[1])} == {"has it"}
    forget_machine(server.pk, is_another=True)
    assert {state for _, state, _ in whose(caller.get("questions/access")[1])} == {"issued"}


def test_a_peer_that_got_another_address_is_issued_anew(staging: Environment, alice: User) -> None:
    server = make_server(staging, "vpn-a")
    peer, caller = granted(server, "Ann"), script(alice)
    read_back()
    assert whose(caller.get("questions/access")[1]) == [("Ann", "has it", "vpn-a")]
    static: dict[str, Any] = {"device": peer.device, "server": server, "ipv4": str(server.pool4[77])}
    assign_address(actor=SYSTEM, reason="printer", **static)
    assert whose(caller.get("questions/access")[1]) == [("Ann", "issued", "vpn-a")]
    read_back()
    Peer.objects.filter(first_generation__gt=0).update(first_generation=0)  # as one that an older Console issued
    assert whose(caller.get("questions/access")[1]) == [("Ann", "has it", "vpn-a")]
    Server.objects.update(generation=99)
    assert whose(caller.get("questions/access")[1]) == [("Ann", "issued", "vpn-a")]


def test_where_the_console_only_looks_nobody_knows(staging: Environment, alice: User) -> None:
    granted(make_server(staging, "vpn-seen", is_observe_only=True), "Ann")
    (row,) = table(script(alice).get("questions/access")[1])
    assert (row["state"], row["note"]) == ("issued", "the Console only looks at vpn-seen and puts nothing there")


def test_who_was_let_in_after_a_move_waits_no_more_now_and_then(staging: Environment, alice: User) -> None:
    old, new = make_server(staging, "vpn-old"), make_server(staging, "vpn-new")
    peer = granted(old, "Ann")
    grant = peer.device.person.grants.get()
    move_grant(actor=SYSTEM, grant=grant, server=new, reason="nearer")
    caller, waiting = script(alice), moment()
    assert whose(caller.get("questions/access")[1])[0] == ("Ann", "waiting", "vpn-new")
    let_in(actor=SYSTEM, peer=Peer.objects.get(server=new), reason="it is dead")
    read_back(new)
    expected = ("Ann", "has it", "vpn-new")
    assert whose(caller.get("questions/access")[1])[0] == expected
    assert whose(caller.get(f"questions/access?at={moment()}")[1])[0] == expected
    body = caller.get(f"questions/access?at={waiting}")[1]
    assert (whose(body)[0], table(body)[0]["note"]) == (
        ("Ann", "waiting", "vpn-new"),
        "until it is gone from vpn-old, where it was before",
    )


def test_networks_at_a_time_are_those_of_the_grants_then(staging: Environment, alice: User) -> None:
    server = make_server(staging, "vpn-a")
    peer = granted(server, "Ann", networks=["10.1.0.0/16"])
    early = moment()
    grant_access(actor=SYSTEM, person=peer.device.person, server=server, networks=["192.0.2.0/24"], reason="also")
    both = moment()
    end_grants(actor=SYSTEM, grants=[peer.device.person.grants.order_by("pk")[0]], reason="over")
    read_back()
    caller = script(alice)
    carried = {"": ["192.0.2.0/24"], f"&at={both}": ["10.1.0.0/16", "192.0.2.0/24"], f"&at={early}": ["10.1.0.0/16"]}
    for at, networks in carried.items():
        assert table(caller.get(f"questions/access?limit=9{at}")[1])[0]["networks"] == networks
        for asked in ("10.1.2.3", "192.0.2.9"):
            found = table(caller.get(f"questions/reach?network={asked}{at}")[1])
            assert bool(found) is any(asked.startswith(one.split(".0")[0]) for one in networks), (asked, at)


def test_a_trace_says_what_keeps_a_peer_out(kept_out: dict[str, Peer], alice: User) -> None:
    caller = script(alice)
    for name, peer in kept_out.items():
        (row,) = seen(caller, "key", peer.device.public_key)["peer"]
        assert row["note"] == "issued by Console" + ("" if name == "has it" else f", {name}")


def test_it_costs_the_same_however_many_are_kept_out(staging: Environment, alice: User) -> None:
    """L4."""
    caller = script(alice)
    few = costs_of(caller, keep_out(staging, 1))
    assert costs_of(caller, keep_out(staging, 6)) == few


def keep_out(staging: Environment, count: int) -> Device:
    """So many more on a server of their own, suspended there or shut at the machine."""
    server = make_server(staging)
    for number in range(count):
        person = make_person(f"Person {number}")
        make_grant(person, staging)
        device = make_device(person)
        make_review(Peer.objects.get(device=device, server=server))
        suspend(actor=SYSTEM, targets=[make_device(person, "phone")], reason="on leave")
    return device


def costs_of(caller: Script, device: Device) -> list[int]:
    found = []
    for asked in ("access", "reach?network=10.0.0.0/8", f"person?person={device.person_id}"):
        with CaptureQueriesContext(connection) as queries:
            code, body = caller.get(f"questions/{asked}")
        assert (code, {"suspending", "shut at its machine"} - {state for _, state, _ in whose(body)}) == (200, set())
        found.append(len(queries))
    return found
