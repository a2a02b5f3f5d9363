"""Servers, enrolments, plans and held pushes in the admin."""

import uuid
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from audit.models import Event
from fleet.admin import state_of
from fleet.conditions import Type, update
from fleet.models import Environment, Server, ServerStatus, User
from nodes.models import BootstrapLogin, Enrolment, HeldPush, Hold, PlanRequest, ReviewItem
from nodes.observe import DriftSeen, NodeState
from nodes.status import record_failure, record_observation
from peers.granting import end_grants
from peers.models import Grant, Person
from tests.build import make_peers, make_person, make_review, make_server
from tests.doors import browser, rows

FINGERPRINT = "SHA256:" + "x" * 43
LOGIN = {"_answered": "1", "host_key": FINGERPRINT, "user": "root", "password": "hunter2 hunter2", "private_key": ""}
SERVER = {
    **{"name": "vpn-fra", "host": "198.51.100.7", "ssh_port": "22", "ssh_user": "root", "interface": "wg0"},
    **{"endpoint_host": "vpn.example.com", "listen_port": "51820", "mtu": "1420", "forward": "masquerade"},
    **{"ipv4_pool": "10.1.0.0/16", "ipv6_pool": "fd00:1::/64", "dns": "10.1.0.1\nfd00:1::1"},
}


def at(page: str, *args: object) -> str:
    return reverse(f"admin:{page}", args=args)


def mark_unreachable(server: Server) -> None:
    record_failure(server.pk, reason="ConnectTimeout", message="198.51.100.7:22 did not answer within 10 s.")


def mark_out_of_sync(server: Server, reason: str, type: Type = Type.IN_SYNC) -> None:
    """A server that holds the generation that is wanted, and is not as it should be all the same."""
    Server.objects.filter(pk=server.pk).update(enrolled_at=timezone.now())
    message = "The node refuses 1 peer(s)."
    condition = update({}, type, status=False, reason=reason, message=message, now=timezone.now())
    now = Server.objects.get(pk=server.pk)
    seen = {"observed_epoch": now.epoch, "observed_generation": now.generation}
    ServerStatus.objects.filter(server=server).update(conditions=condition, **seen)


def test_a_server_is_added_and_changed_through_its_service(bob: User, staging: Environment) -> None:
    client = browser(bob)
    assert client.post(at("fleet_server_add"), {**SERVER, "environment": staging.pk}).status_code == 302
    server = Server.objects.get()
    assert server.dns == ["10.1.0.1", "fd00:1::1"]
    path, change = at("fleet_server_change", server.pk), {**SERVER, "mtu": "1400"}
    assert list(client.post(path, change).context["adminform"].form.errors) == ["reason"]
    assert client.post(path, {**change, "reason": "tunnel in tunnel"}).status_code == 302
    changed = Server.objects.get()
    assert (changed.mtu, changed.generation) == (1400, server.generation + 1)
    event = Event.objects.get(verb="server.change")
    assert (event.changes, event.reason) == ({"mtu": ["1420", "1400"]}, "tunnel in tunnel")
    assert client.post(path, {**change, "reason": "nothing else"}).status_code == 302
    assert Event.objects.filter(verb="server.change").count() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in ("", "UPPER", "a\n[Interface]\nPostUp = id", "x" * 64)),
        *(("interface", value) for value in ("../../etc/cron.d/x", "wg0;id", "-h", "x" * 16, "")),
        *(("host", value) for value in ("", "a b", "-oProxyCommand=id")),
        *(("ipv4_pool", value) for value in ("10.1.0.5/16", "010.1.0.0/16", "10.0.0.0/16;id")),
        *(("dns", value) for value in ("dns.example.com", "10.0.0.53/32", "10.0.0.53 PostUp=id")),
        *(("listen_port", value) for value in ("0", "65536", "x", "9" * 30)),
        ("environment", "999"),
    ],
)
def test_a_bad_field_of_a_server_stands_at_its_field(field: str, value: str, bob: User, staging: Environment) -> None:
    """A1, A3, A4."""
    client, good = browser(bob), {**SERVER, "environment": str(staging.pk)}
    before = rows()
    answer = client.post(at("fleet_server_add"), {**good, field: value})
    assert list(answer.context["adminform"].form.errors) == [field]
    assert rows() == before
    assert client.post(at("fleet_server_add"), good).status_code == 302


def test_an_enrolment_asks_for_the_host_key_and_never_shows_the_login(bob: User, staging: Environment) -> None:
    """B14, C1."""
    server, client = make_server(staging), browser(bob)
    path = at("fleet_server_enrol", server.pk)
    before = rows()
    for bad in ("", "yes", "SHA256:x"):
        answer = client.post(path, {**LOGIN, "host_key": bad, "private_key": "-----BEGIN hunter2"})
        assert list(answer.context["form"].errors) == ["host_key"]
        assert "hunter2" not in answer.content.decode()
    assert rows() == before
    assert client.post(path, LOGIN)["Location"] == at("fleet_server_change", server.pk)
    assert "hunter2" not in BootstrapLogin.objects.get().boxed
    for page in (at("fleet_server_change", server.pk), at("nodes_enrolment_change", Enrolment.objects.get().pk)):
        assert "hunter2" not in client.get(page).content.decode()


def test_a_plan_page_fills_itself_and_names_devices(bob: User, staging: Environment) -> None:
    server, client = make_server(staging), browser(bob)
    before = rows()
    assert client.get(at("fleet_server_plan", server.pk)).status_code == 200
    assert rows() == before
    answer = client.post(at("fleet_server_plan", server.pk), {"_answered": "1"})
    path = answer["Location"]
    assert 'http-equiv="refresh"' in client.get(path).content.decode()
    peer = {"public_key": "k" * 43 + "=", "device": "Carol's laptop"}
    plan: dict[str, Any] = {"add": [peer], "remove": [], "update": [], "brake": "12 of 50 peers would go"}
    PlanRequest.objects.update(plan=plan, finished_at=timezone.now())
    page = client.get(path).content.decode()
    assert ("Carol&#x27;s laptop" in page, "12 of 50 peers would go" in page) == (True, True)
    assert 'http-equiv="refresh"' not in page


def test_reconcile_is_not_done_by_a_link(bob: User, staging: Environment) -> None:
    """B18."""
    server, client = make_server(staging), browser(bob)
    path = at("fleet_server_reconcile", server.pk)
    assert client.get(path).status_code == 200
    assert client.post(path, {"_answered": "1"})["Location"] == at("fleet_server_change", server.pk)


def test_a_server_page_says_what_is_wrong_since_when(bob: User, staging: Environment) -> None:
    server, client = make_server(staging), browser(bob)
    mark_unreachable(server)
    ServerStatus.objects.update(drift=[{"public_key": "k", "what": "extra", "detail": "<b>in the kernel</b>"}])
    page = client.get(at("fleet_server_change", server.pk)).content.decode()
    assert ("ConnectTimeout" in page, "did not answer within 10 s." in page) == (True, True)
    assert "&lt;b&gt;in the kernel&lt;/b&gt;" in page


def test_a_hold_is_approved_with_a_reason(bob: User, staging: Environment) -> None:
    hold = Hold.objects.create(act=uuid.uuid4(), cause="grant.end by alice")
    HeldPush.objects.create(hold=hold, server=make_server(staging), removals=12, held=50)
    client, path = browser(bob), at("nodes_hold_approve", hold.pk)
    before = rows()
    assert list(client.post(path, {"_answered": "1", "reason": ""}).context["form"].errors) == ["reason"]
    assert rows() == before
    assert client.post(path, {"_answered": "1", "reason": "the project is over"}).status_code == 302
    assert Hold.objects.get().approved_by == "bob"


def test_the_page_of_a_hold_names_all_whose_peers_would_go(bob: User, staging: Environment) -> None:
    make_server(staging)
    peers = make_peers(staging, 6)
    end_grants(actor=bob, grants=list(Grant.objects.all()), reason="project is over")
    event = Event.objects.get(verb="grant.end")
    hold = Hold.objects.create(act=event.act, cause="grant.end")
    HeldPush.objects.create(hold=hold, server=peers[0].server, removals=6, held=6)
    client = browser(bob)
    page = client.get(at("nodes_hold_change", hold.pk)).content.decode()
    assert [peer.device.person.name in page for peer in peers] == [True] * 6
    assert at("audit_event_change", event.pk) in page
    for peer in peers:
        found = client.get(at("audit_event_changelist"), {"q": f"{peer.device.person.name} to"}).content.decode()
        assert at("audit_event_change", event.pk) in found


def test_the_menu_counts_what_waits_and_shows_nothing_where_nothing_does(alice: User, staging: Environment) -> None:
    """A hold that keeps nobody in any more is over, and waits for nobody."""
    client, badge = browser(alice), "min-w-[18px] bg-red-100"
    hold = Hold.objects.create(act=uuid.uuid4(), cause="grant.end by alice")
    assert badge not in client.get("/admin/").content.decode()
    assert ">over</" in client.get(at("nodes_hold_changelist")).content.decode().replace("\n", "").replace(" ", "")
    HeldPush.objects.create(hold=hold, server=make_server(staging), removals=12, held=50)
    [shown] = client.get("/admin/").content.decode().split(badge)[1:]
    assert ">1</span>" in shown[:100]


def test_the_first_page_names_what_needs_a_person(alice: User, staging: Environment) -> None:
    server, client = make_server(staging, "vpn-sgp"), browser(alice)
    assert "Nothing." in client.get("/admin/").content.decode()
    mark_unreachable(server)
    hold = Hold.objects.create(act=uuid.uuid4(), cause="grant.end of everybody")
    HeldPush.objects.create(hold=hold, server=server, removals=12, held=50)
    person = make_person("Dave")
    Person.objects.get(pk=person.pk)
    person.name = "Mallory"
    person.save()  # past every service: the ledger shows it as unexplained
    page = client.get("/admin/").content.decode()
    found = [text in page for text in ("did not answer within 10 s.", "grant.end of everybody", ">unexplained<")]
    assert (found, "Nothing." in page) == ([True, True, True], False)


def test_a_peer_that_was_shut_at_its_machine_waits_on_the_first_page_until_somebody_decides(
    bob: User, staging: Environment
) -> None:
    make_server(staging)
    item, client = make_review(make_peers(staging, 1)[0]), browser(bob)
    page = at("nodes_reviewitem_change", item.pk)
    assert f'<a href="{page}">' in client.get("/admin/").content.decode()
    path, answer = at("nodes_reviewitem_decide", item.pk), {"_answered": "1", "decision": "resume", "reason": "found"}
    before = rows()
    for field in ("decision", "reason"):
        assert list(client.post(path, {**answer, field: ""}).context["form"].errors) == [field]
    assert rows() == before
    assert client.post(path, answer)["Location"] == page
    assert (ReviewItem.objects.get().decided_by, page in client.get("/admin/").content.decode()) == ("bob", False)
    assert path not in client.get(page).content.decode()


@pytest.mark.parametrize(
    ("type", "reason", "word", "is_for_a_person"),
    [
        (Type.IN_SYNC, "Tombstoned", "tombstoned", True),
        (Type.IN_SYNC, "Nonsense", "failing", True),
        (Type.IN_SYNC, "Drifted", "drifted", False),
        (Type.INTACT, "JournalBroken", "journal broken", True),
        (Type.INTACT, "SetBack", "set back", True),
    ],
)
def test_list_overview_and_page_of_a_server_tell_one_story(
    type: Type, reason: str, word: str, is_for_a_person: bool, bob: User, staging: Environment
) -> None:
    server, client = make_server(staging), browser(bob)
    mark_out_of_sync(server, reason, type)
    for path in ("/admin/", at("fleet_server_changelist"), at("fleet_server_change", server.pk)):
        page = client.get(path).content.decode()
        assert (word in page, "in sync" in page) == (True, False), path
    assert ("The node refuses 1 peer(s)." in client.get("/admin/").content.decode()) == is_for_a_person


def test_the_first_page_names_a_changed_host_key_until_the_pinned_one_answers(bob: User, staging: Environment) -> None:
    server, client = make_server(staging), browser(bob)
    record_failure(server.pk, reason="HostKeyMismatch", message="the host key is SHA256:another")
    mark_unreachable(server)
    page = client.get("/admin/").content.decode()
    assert ("did not answer within 10 s." in page, "SHA256:another" in page) == (True, True)
    record_observation(server.pk, NodeState(1, 1, "0" * 64, ""), [], [], "1")
    assert "SHA256:another" not in client.get("/admin/").content.decode()
    mark_unreachable(server)
    assert "SHA256:another" not in client.get("/admin/").content.decode()


@pytest.mark.parametrize(
    ("reason", "state"),
    [("Nonsense", "in sync"), ("Tombstoned", "tombstoned"), ("Held", "failing"), ("PoolExhausted", "failing")],
)
def test_a_fault_that_was_of_the_moment_is_over_with_the_next_good_answer(
    reason: str, state: str, staging: Environment
) -> None:
    server = make_server(staging)
    mark_out_of_sync(server, reason)
    held = Server.objects.get()
    record_observation(server.pk, NodeState(held.epoch, held.generation, "0" * 64, ""), [], [], "1")
    assert state_of(Server.objects.get()) == state


def test_a_server_that_is_only_watched_drifts_no_longer_than_it_does(staging: Environment) -> None:
    server = make_server(staging, is_observe_only=True)
    Server.objects.update(enrolled_at=timezone.now())
    drift = [DriftSeen(public_key="k", what="extra", detail="")]
    for seen, state in ((drift, "drifted"), ([], "pending")):
        record_observation(server.pk, NodeState(1, 1, "", ""), [], seen, "1")
        assert state_of(Server.objects.get()) == state
