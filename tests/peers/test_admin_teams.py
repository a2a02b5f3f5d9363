"""Teams, suspensions, moves and replaced keys in the admin: pages say the truth, each act is asked for first."""

import datetime as dt
import re

import pytest
from django.urls import reverse
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Role, Server, User
from fleet.services import give_role
from peers.granting import grant_access
from peers.models import Device, Grant, Membership, Peer, PeerStatus, Suspension, Team
from peers.services import add_person
from peers.suspending import suspend
from peers.teams import add_team, join_team
from tests.build import make_device, make_grant, make_person, make_review, make_server, new_public_key
from tests.doors import browser, rows
from tests.fleet.test_admin_pages import queries_of
from tests.peers.test_admin_access import at, errors_of

YES = {"_answered": "1", "reason": "because"}


@pytest.fixture
def device(staging: Environment) -> Device:
    """Carol's laptop, on one server."""
    make_server(staging, "vpn-a")
    person = add_person(actor=SYSTEM, name="Carol", email="carol@example.com")
    make_grant(person, staging)
    return make_device(person)


def test_a_team_is_added_filled_and_given_access(bob: User, staging: Environment, device: Device) -> None:
    client = browser(bob)
    assert client.post(at("peers_team_add"), {"name": "network", "description": ""}).status_code == 302
    team = Team.objects.get()
    page, path = at("peers_team_change", team.pk), at("peers_team_join", team.pk)
    before = rows()
    assert list(errors_of(client.post(path, {"_answered": "1", "people": "dave@example.com"}))) == ["people"]
    assert list(errors_of(client.post(path, {"_answered": "1", "people": ""}))) == ["people"]
    bad = {"_answered": "1", "people": "carol@example.com", "until_0": "2001-01-01", "until_1": "00:00:00"}
    assert list(errors_of(client.post(path, bad))) == ["until"]
    assert rows() == before
    other = make_person("Dave")
    make_device(other)
    joined = {"_answered": "1", "people": f"carol@example.com\n{other.pk}"}
    assert client.post(path, joined)["Location"] == page
    grant = client.get(at("peers_team_grant", team.pk))["Location"]
    assert f"team={team.pk}" in grant
    given = {"team": team.pk, "environment": staging.pk, "hours": "mon-sun 00:00-24:00", "reason": "on call"}
    assert list(errors_of(client.post(at("peers_grant_add"), {**given, "hours": "always"}))) == ["hours"]
    assert client.post(at("peers_grant_add"), given).status_code == 302
    shown = client.get(page).content.decode()
    for text in ("Carol", "Dave", "mon-sun 00:00-24:00", "on call", "vpn-a", ">open<"):
        assert text in shown, text
    assert Peer.objects.filter(device__person=other, ended_at=None).count() == 1
    grant_page = client.get(at("peers_grant_change", Grant.objects.get(team=team).pk)).content.decode()
    assert ("mon-sun 00:00-24:00" in grant_page, ">everything<" in re.sub(r"\s", "", grant_page)) == (True, True)


def test_a_name_or_address_that_is_taken_says_so_at_its_field(bob: User, device: Device) -> None:
    client = browser(bob)
    team, person = {"name": "network"}, {"name": "Carla", "kind": "employee"}
    assert client.post(at("peers_team_add"), team).status_code == 302
    before = rows()
    found = errors_of(client.post(at("peers_team_add"), team))
    assert (list(found), "There is a team of this name" in str(found)) == (["name"], True)
    found = errors_of(client.post(at("peers_person_add"), {**person, "email": "carol@example.com"}))
    assert (list(found), "Somebody else has this e-mail address" in str(found)) == (["email"], True)
    assert rows() == before
    assert client.post(at("peers_person_add"), {**person, "email": "carla@example.com"}).status_code == 302


def test_those_selected_leave_and_the_team_ends(bob: User, staging: Environment, device: Device) -> None:
    team = add_team(actor=SYSTEM, name="network")
    grant = grant_access(actor=SYSTEM, team=team, environment=staging, reason="on call")
    first, second, third = join_team(
        actor=SYSTEM, team=team, people=[device.person, make_person("Dave"), make_person("Erin")]
    )
    client, path = browser(bob), at("peers_membership_changelist")
    chosen = {"action": "leave_selected", "_selected_action": [first.pk, second.pk]}
    assert "Carol in network" in client.post(path, chosen).content.decode()
    assert list(errors_of(client.post(path, {**chosen, "_answered": "1", "reason": ""}))) == ["reason"]
    assert Membership.objects.filter(ended_at=None).count() == 3
    assert client.post(path, {**chosen, **YES}).status_code == 302
    assert list(Membership.objects.filter(ended_at=None)) == [third]
    assert client.post(at("peers_membership_leave", third.pk), YES)["Location"] == at("peers_team_change", team.pk)
    end = at("peers_team_end", team.pk)
    assert list(errors_of(client.post(end, YES))) == ["__all__"]
    client.post(at("peers_grant_end", grant.pk), YES)
    assert client.post(end, YES).status_code == 302
    page = client.get(at("peers_team_change", team.pk)).content.decode()
    assert (end in page, at("peers_team_join", team.pk) in page) == (False, False)


def test_a_person_s_page_says_what_they_have_by_which_team(bob: User, staging: Environment, device: Device) -> None:
    team = add_team(actor=SYSTEM, name="network")
    grant_access(actor=SYSTEM, team=team, environment=staging, reason="on call", hours="mon 08:00-09:00")
    join_team(actor=SYSTEM, team=team, people=[device.person])
    page = browser(bob).get(at("peers_person_change", device.person_id)).content.decode()
    assert page.count(at("peers_team_change", team.pk)) == 2
    assert ("themselves" in page, "mon 08:00-09:00" in page) == (True, True)


def test_grants_are_listed_with_holder_hours_and_state(bob: User, staging: Environment, device: Device) -> None:
    team, tomorrow = add_team(actor=SYSTEM, name="network"), timezone.now() + dt.timedelta(days=1)
    grant_access(actor=SYSTEM, team=team, environment=staging, reason="x", hours="mon 08:00-09:00", begins_at=tomorrow)
    over = make_grant(device.person, staging)
    Grant.objects.filter(pk=over.pk).update(until=timezone.now())
    client, path = browser(bob), at("peers_grant_changelist")
    page = client.get(path).content.decode()
    for text in ("network", "Carol", "mon 08:00-09:00", "always"):
        assert text in page, text
    states = re.findall(r">\s*(open|begins later|over)\s*<", page.split("result_list")[-1])
    assert sorted(states) == sorted(["begins later", "open", "over"] * 2)  # as a row, and as a filter
    later = client.get(path + "?state=begins+later").content.decode().split("result_list")[-1]
    assert ("network" in later, "Carol" in later) == (True, False)


def test_people_devices_and_peers_are_suspended_and_resumed_on_their_pages(bob: User, device: Device) -> None:
    client, peer = browser(bob), Peer.objects.get()
    for row, model in ((device.person, "person"), (device, "device"), (peer, "peer")):
        suspend_it, resume_it = at(f"peers_{model}_suspend", row.pk), at(f"peers_{model}_resume", row.pk)
        page = at(f"peers_{model}_change", row.pk)
        before = client.get(page).content.decode()
        assert (suspend_it in before, resume_it in before, ">suspending<" in before) == (True, False, False)
        assert list(errors_of(client.post(suspend_it, {"_answered": "1", "reason": " "}))) == ["reason"]
        assert client.post(suspend_it, YES)["Location"] == page
        after = client.get(page).content.decode()
        assert (suspend_it in after, resume_it in after) == (False, True)
        assert "suspending" in after
        assert list(errors_of(client.post(suspend_it, YES))) == ["__all__"]
        assert client.post(resume_it, YES)["Location"] == page
    assert [one.ended_at is None for one in Suspension.objects.all()] == [False] * 3
    assert client.post(at("peers_person_resume", device.person_id), YES).status_code == 404


def test_suspensions_are_listed_open_ones_first_and_resumed_there(bob: User, device: Device) -> None:
    client = browser(bob)
    chosen = {"action": "suspend_selected", "_selected_action": [device.pk, make_device(device.person, "phone").pk]}
    assert client.post(at("peers_device_changelist"), {**chosen, **YES}).status_code == 302
    first, second = Suspension.objects.order_by("pk")
    assert client.post(at("peers_suspension_resume", second.pk), YES).status_code == 302
    page = client.get(at("peers_suspension_changelist")).content.decode()
    assert page.index(at("peers_suspension_change", first.pk)) < page.index(at("peers_suspension_change", second.pk))
    assert ("because" in page, "bob" in page) == (True, True)
    resumed = client.get(at("peers_suspension_change", second.pk)).content.decode()
    assert at("peers_suspension_resume", second.pk) not in resumed
    shown = client.get(at("peers_person_change", device.person_id)).content.decode()
    assert at("peers_suspension_change", first.pk) in shown


@pytest.mark.parametrize("page", ["person", "device", "peer", "list"])
def test_every_page_says_what_keeps_a_peer_out(page: str, bob: User, device: Device) -> None:
    """Also what was done at its machine, and what its server has not confirmed yet."""
    peer, client = Peer.objects.get(), browser(bob)
    PeerStatus.objects.update(latest_handshake_at=timezone.now())
    path = {
        "person": at("peers_person_change", device.person_id),
        "device": at("peers_device_change", device.pk),
        "peer": at("peers_peer_change", peer.pk),
        "list": at("peers_peer_changelist"),
    }[page]

    def says(word: str) -> bool:
        text = client.get(path).content.decode().split("result_list")[-1]
        return word in text

    assert (says("connected"), says("suspending"), says("shut at its machine")) == (True, False, False)
    make_review(peer)
    assert (says("connected"), says("shut at its machine")) == (False, True)
    peer.reviews.update(decided_at=timezone.now(), decision="resume")
    suspend(actor=SYSTEM, targets=[peer], reason="ill")
    assert (says("connected"), says("suspending")) == (False, True)
    PeerStatus.objects.update(shut_at=timezone.now())
    assert (says("suspending"), says("suspended")) == (False, True)


def test_a_grant_moves_and_the_page_says_what_is_waited_for(bob: User, staging: Environment) -> None:
    old, new = make_server(staging, "vpn-old"), make_server(staging, "vpn-new")
    person = make_person()
    make_device(person)
    grant, client = grant_access(actor=SYSTEM, person=person, server=old, reason="x"), browser(bob)
    path = at("peers_grant_move", grant.pk)
    assert path in client.get(at("peers_grant_change", grant.pk)).content.decode()
    assert list(errors_of(client.post(path, {**YES, "server": ""}))) == ["server"]
    assert list(errors_of(client.post(path, {**YES, "server": old.pk}))) == ["server"]
    answer = client.post(path, {**YES, "server": new.pk})
    moved, peer = Grant.objects.get(ended_at=None), Peer.objects.get(ended_at=None)
    assert (answer["Location"], moved.server) == (at("peers_grant_change", moved.pk), new)
    assert "waits for vpn-old" in client.get(at("peers_person_change", person.pk)).content.decode()
    let_in = at("peers_peer_let_in", peer.pk)
    shown = client.get(at("peers_peer_change", peer.pk)).content.decode()
    assert (let_in in shown, "waits for vpn-old" in shown, "&#x27;waits" in shown) == (True, True, False)
    assert "vpn-old (pending) has not confirmed since" in client.get(let_in).content.decode()
    assert client.post(let_in, YES).status_code == 302
    assert let_in not in client.get(at("peers_peer_change", peer.pk)).content.decode()
    assert client.post(let_in, YES).status_code == 404


def test_who_replaces_a_key_lands_on_the_new_device_with_its_tunnel_files(bob: User, device: Device) -> None:
    Server.objects.update(public_key=new_public_key())
    client = browser(bob)
    form = client.get(at("peers_device_replace", device.pk), follow=True).content.decode()
    assert f"Carol&#x27;s laptop, key {device.public_key[:8]}…" in form
    values = {"person": device.person_id, "name": "laptop", "public_key": new_public_key(), "replaces": device.pk}
    answer = client.post(at("peers_device_add"), values)
    new = Device.objects.latest("pk")
    assert answer["Location"] == at("peers_device_change", new.pk)
    page = client.get(answer["Location"]).content.decode()
    config = at("peers_peer_config", Peer.objects.get(device=new).pk)
    assert config in page
    assert client.get(config).content.decode().startswith("[Interface]\n")
    found = client.get(at("peers_device_choices"), {**CHOICE, "term": "laptop"}).json()["results"]
    assert sorted(one["text"] for one in found) == sorted(
        f"Carol's laptop, key {one.public_key[:8]}…" for one in (device, new)
    )


CHOICE = {"app_label": "peers", "model_name": "device", "field_name": "replaces"}


def test_nobody_without_a_role_is_given_choices_or_files(charlie: User, bob: User, device: Device) -> None:
    """B2, B3."""
    assert browser(charlie).get(at("peers_device_choices"), CHOICE).status_code == 403
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.AUDITOR, environment=None)
    path, config = at("peers_device_change", device.pk), at("peers_peer_config", Peer.objects.get().pk)
    assert [config in browser(user).get(path).content.decode() for user in (bob, charlie)] == [True, False]


def test_pages_cost_the_same_however_much_they_show(bob: User, staging: Environment, device: Device) -> None:
    """L4."""
    client, team = browser(bob), add_team(actor=SYSTEM, name="network")
    grant_access(actor=SYSTEM, team=team, environment=staging, reason="x")
    pages = [at("peers_team_change", team.pk), at("peers_person_change", device.person_id)]
    counts = []
    for number in range(2):
        for _ in range(1 + 3 * number):
            person = make_person()
            make_device(person)
            join_team(actor=SYSTEM, team=team, people=[person])
            new = make_device(device.person, f"phone {number}")
            suspend(actor=SYSTEM, targets=[new], reason="x")
            own = add_team(actor=SYSTEM, name=f"own-{Team.objects.count()}")
            grant_access(actor=SYSTEM, team=own, environment=staging, reason="x")
            join_team(actor=SYSTEM, team=own, people=[device.person])
        counts.append([queries_of(client, page) for page in pages])
    assert counts[0] == counts[1]


def test_the_address_of_a_list_that_leaves_is_no_person(bob: User) -> None:
    """It stands beside the pages of single people."""
    assert reverse("admin:peers_person_offboard_list").endswith("/peers/person/offboard-list/")
    assert browser(bob).get(at("peers_person_offboard_list")).status_code == 200
