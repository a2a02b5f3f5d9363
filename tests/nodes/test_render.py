"""What is pushed: the canonical text, its digest, and deltas that lead to it; no name of anything is ever in it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.models import Environment
from nodes import render
from nodes.desired import desired_state
from nodes.state import Content, InterfaceState, PeerState
from peers.models import Device, Peer, Person
from peers.selectors import config_of
from tests.build import make_device, make_grant, make_person, make_server, new_public_key

VECTORS = json.loads((Path(__file__).parent / "data" / "content.json").read_text())
SERVER_KEY = new_public_key()
PAYLOAD = "bob\n[Interface]\nPostUp = touch /run/pwned"


def content_of(vector: dict[str, object]) -> Content:
    interface = dict(vector["interface"])  # type: ignore[call-overload]
    interface["addresses"] = tuple(interface["addresses"])
    peers = [peer_of(peer) for peer in vector["peers"]]  # type: ignore[attr-defined]
    return Content(InterfaceState(**interface), {peer.public_key: peer for peer in peers})


def peer_of(fields: dict[str, Any]) -> PeerState:
    windows = tuple(map(tuple, fields["windows"])) if "windows" in fields else None
    return PeerState(**{**fields, "allowed_ips": tuple(fields["allowed_ips"]), "windows": windows})


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_digest_is_that_of_the_protocols_examples(vector: dict[str, str]) -> None:
    content = content_of(vector)  # type: ignore[arg-type]
    lines = [render.canonical(render.interface_fields(content.interface)), *render.peer_lines(content).values()]
    assert "".join(f"{line}\n" for line in lines) == vector["text"]
    assert render.digest(content) == vector["digest"]


def windows_of(moments: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(moments[::2], moments[1::2], strict=False))


numbers = st.integers(0, 255)
peers = st.builds(
    PeerState,
    numbers.map(lambda n: f"key {n}"),
    st.none() | numbers.map(str),
    numbers.map(lambda n: (f"10.0.0.{n}/32",)),
    st.none() | numbers,
    st.none(),
    st.none() | st.lists(numbers, max_size=4, unique=True).map(lambda found: windows_of(sorted(found))),
)
INTERFACE = InterfaceState(("10.0.0.1/24", "fd00::1/64"), 51820, 1420, "none")
contents = st.lists(peers, max_size=12, unique_by=lambda peer: peer.public_key)


def made(listed: list[PeerState]) -> Content:
    return Content(INTERFACE, {peer.public_key: peer for peer in listed})


def test_windows_are_in_the_text_of_those_who_have_them_alone() -> None:
    peer = PeerState("key", None, ("10.0.0.2/32",), None)
    assert "windows" not in render.peer_fields(peer)
    assert render.peer_fields(replace(peer, windows=()))["windows"] == []
    assert render.peer_fields(replace(peer, windows=((1, 2), (4, 8))))["windows"] == [[1, 2], [4, 8]]
    digests = {render.digest(made([replace(peer, windows=value)])) for value in (None, (), ((1, 2),), ((1, 3),))}
    assert len(digests) == 4


@given(contents, st.randoms())
def test_the_order_of_rows_changes_nothing(listed: list[PeerState], random: object) -> None:
    shuffled = list(listed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert render.digest(made(listed)) == render.digest(made(shuffled))
    assert json.dumps(render.whole(made(listed))) == json.dumps(render.whole(made(shuffled)))


@given(contents, contents)
def test_a_delta_on_its_base_is_the_whole(before: list[PeerState], after: list[PeerState]) -> None:
    old, new = made(before), made(after)
    delta = render.delta(new, render.digest(old), render.fingerprints(old))
    held = {key: render.peer_fields(peer) for key, peer in old.peers.items()}
    for key in delta["remove"]:  # type: ignore[attr-defined]
        del held[key]
    held |= {peer["public_key"]: peer for peer in delta["put"]}  # type: ignore[attr-defined]
    assert [held[key] for key in sorted(held)] == render.whole(new)["peers"]
    assert delta["base"] == render.digest(old)
    unchanged = {key for key in old.peers if new.peers.get(key) == old.peers[key]}
    assert not unchanged & {peer["public_key"] for peer in delta["put"]}  # type: ignore[attr-defined]
    assert (render.digest(old) == render.digest(new)) == (old.peers == new.peers)


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs", "Nd", "Lu", "Ll"], exclude_characters="\0"), min_size=4))
def test_no_name_reaches_what_is_pushed_or_handed_out(staging: Environment, name: str) -> None:
    """A2: not even one that is in the database since before it was checked"""
    server, person = make_server(staging), make_person()
    make_grant(person, staging)
    device = make_device(person)
    clean = rendered(server.pk, device)
    for text in (PAYLOAD, name):
        Person.objects.filter(pk=person.pk).update(name=text[:100], email=text[:100] + "@example.com")
        Device.objects.filter(pk=device.pk).update(name=text[:63])
        type(server).objects.filter(pk=server.pk).update(name=f"{text}{server.pk}"[-63:])
        Environment.objects.filter(pk=staging.pk).update(description=text[:200])
        assert rendered(server.pk, device) == clean
    assert device.public_key in clean


def rendered(server_id: int, device: Device) -> str:
    peer = Peer.objects.select_related("server", "ipv4", "ipv6").get(device=device, server=server_id)
    peer.server.public_key = SERVER_KEY
    return json.dumps(render.whole(desired_state(server_id).content)) + config_of(peer).text()
