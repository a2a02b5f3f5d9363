"""Suspending is reversible: out at once, by its cause, with key, addresses and grants kept."""

import datetime as dt

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from fleet.services import disable_user, enable_user
from nodes.desired import desired_state
from peers.granting import grant_access
from peers.leaving import offboard
from peers.models import Device, Peer, PeerStatus, Person, Suspension
from peers.revocation import revoke_devices
from peers.services import register_device
from peers.states import peer_state, with_causes
from peers.suspending import resume, suspend, suspend_disabled
from tests.build import make_device, make_grant, make_person, make_review, make_server, new_public_key
from tests.doors import rows

pytestmark = pytest.mark.django_db
WHY = "ill for a month"


@pytest.fixture
def device(staging: Environment) -> Device:
    """Carol's laptop, on two servers."""
    make_server(staging, "vpn-a"), make_server(staging, "vpn-b")
    person = make_person("Carol")
    make_grant(person, staging)
    return make_device(person)


def pushed() -> set[tuple[str, str]]:
    """(server, key) of what is wanted."""
    return {(server.name, key) for server in Server.objects.all() for key in desired_state(server.pk).content.peers}


def states() -> list[str]:
    return [peer_state(peer) for peer in with_causes(Peer.objects.order_by("server__name", "device"))]


def test_who_is_suspended_is_wanted_nowhere_and_comes_back_as_they_were(device: Device, staging: Environment) -> None:
    other = make_person("Dave")
    make_grant(other, staging)
    stays, before = make_device(other).public_key, set(Peer.objects.values_list("pk", "ipv4"))
    generations = list(Server.objects.values_list("generation", flat=True))
    (found,) = suspend(actor=SYSTEM, targets=[device.person], reason=WHY)
    assert pushed() == {("vpn-a", stays), ("vpn-b", stays)}
    assert [server.generation for server in Server.objects.all()] == [number + 1 for number in generations]
    (shut,) = desired_state(Server.objects.get(name="vpn-a").pk).shut
    assert (shut.public_key, shut.is_decided, shut.act) == (device.public_key, True, found.began_act)
    resume(actor=SYSTEM, suspension=found, reason="well again")
    assert len(pushed()) == 4
    assert set(Peer.objects.values_list("pk", "ipv4")) == before


def test_a_device_and_one_peer_are_suspended_alone(device: Device) -> None:
    phone = make_device(device.person, "phone")
    suspend(actor=SYSTEM, targets=[phone], reason=WHY)
    assert {key for _, key in pushed()} == {device.public_key}
    suspend(actor=SYSTEM, targets=[Peer.objects.get(device=device, server__name="vpn-a")], reason=WHY)
    assert pushed() == {("vpn-b", device.public_key)}


def test_who_is_kept_out_twice_stays_out_until_both_are_over(device: Device) -> None:
    (one,) = suspend(actor=SYSTEM, targets=[device.person], reason=WHY)
    (two,) = suspend(actor=SYSTEM, targets=[device], reason=WHY)
    resume(actor=SYSTEM, suspension=one, reason="x")
    assert pushed() == set()
    resume(actor=SYSTEM, suspension=two, reason="x")
    assert len(pushed()) == 2
    with pytest.raises(ValidationError, match="ended already"):
        resume(actor=SYSTEM, suspension=two, reason="x")


def test_a_peer_issued_to_somebody_suspended_is_not_let_in(device: Device, production: Environment) -> None:
    suspend(actor=SYSTEM, targets=[device.person], reason=WHY)
    make_server(production)
    make_grant(device.person, production)
    phone = make_device(device.person, "phone")
    assert Peer.objects.filter(device=phone, ended_at=None).count() == 3
    assert pushed() == set()


def test_what_is_over_or_suspended_already_is_refused(device: Device, staging: Environment) -> None:
    dead, gone = make_device(device.person, "old"), make_person("Gone")
    revoke_devices(actor=SYSTEM, devices=[dead], reason="lost")
    offboard(actor=SYSTEM, people=[gone], reason="left")
    suspend(actor=SYSTEM, targets=[device], reason=WHY)
    before = rows()
    for target, message in (
        (gone, "Over already: Gone"),
        (dead, "Over already: Carol's old"),
        (Peer.objects.filter(device=dead)[0], "Over already: Carol's old on"),
        (device, "Suspended already: Carol's laptop"),
    ):
        with pytest.raises(ValidationError, match=message):
            suspend(actor=SYSTEM, targets=[target, device.person], reason=WHY)
    for reason, targets in ((" ", [device.person]), (WHY, [])):
        with pytest.raises(ValidationError):
            suspend(actor=SYSTEM, targets=targets, reason=reason)
    assert rows() == before
    assert len(suspend(actor=SYSTEM, targets=[device.person, device.person], reason=WHY)) == 1


def test_only_who_operates_every_place_of_theirs_suspends_and_resumes(
    device: Device, bob: User, production: Environment
) -> None:
    """B3."""
    (mine,) = suspend(actor=bob, targets=[device], reason=WHY)
    make_server(production)
    make_grant(device.person, production)
    before = rows()
    with pytest.raises(PermissionDenied, match="ask an administrator"):
        suspend(actor=bob, targets=[device.person], reason=WHY)
    with pytest.raises(PermissionDenied, match="ask an administrator"):
        resume(actor=bob, suspension=mine, reason="x")
    assert rows() == before
    suspend(actor=bob, targets=[Peer.objects.get(device=device, server__name="vpn-a")], reason=WHY)
    assert Event.objects.latest("pk").environment_label == "staging"


def test_several_at_once_are_one_act_that_the_brake_weighs(device: Device) -> None:
    phone = make_device(device.person, "phone")
    suspend(actor=SYSTEM, targets=[device, phone], reason=WHY)
    shut = desired_state(Server.objects.get(name="vpn-a").pk).shut
    assert ({one.is_decided for one in shut}, len({one.act for one in shut})) == ({False}, 1)


def test_a_new_key_is_no_way_round_a_suspension(device: Device) -> None:
    new = register_device(actor=SYSTEM, person=device.person, name="new", public_key=new_public_key(), replaces=device)
    one, two = suspend(actor=SYSTEM, targets=[device], reason=WHY)
    assert (one.device, two.device, one.is_decided) == (device, new, True)
    assert pushed() == set()
    other = make_device(make_person("Dave"))
    (held,) = suspend(actor=SYSTEM, targets=[other], reason=WHY)
    with pytest.raises(ValidationError, match="resume it first"):
        register_device(actor=SYSTEM, person=other.person, name="x", public_key=new_public_key(), replaces=other)
    resume(actor=SYSTEM, suspension=held, reason="x")
    register_device(actor=SYSTEM, person=other.person, name="x", public_key=new_public_key(), replaces=other)


def test_whose_sign_in_was_disabled_is_out_until_enabled_and_resumed(device: Device, charlie: User) -> None:
    Person.objects.filter(pk=device.person_id).update(user=charlie)
    disable_user(actor=SYSTEM, user=charlie, reason="police")
    assert (suspend_disabled(), suspend_disabled()) == (1, 0)
    assert pushed() == set()
    suspension = Suspension.objects.get()
    with pytest.raises(ValidationError, match="enable it first"):
        resume(actor=SYSTEM, suspension=suspension, reason="x")
    enable_user(actor=SYSTEM, user=charlie, reason="cleared")
    assert (suspend_disabled(), pushed()) == (0, set())
    resume(actor=SYSTEM, suspension=suspension, reason="cleared")
    assert len(pushed()) == 2


def test_a_peer_s_word_says_what_keeps_it_out_and_whether_that_is_confirmed(device: Device) -> None:
    a, b = Peer.objects.order_by("server__name")
    assert states() == ["issued", "issued"]
    (held,) = suspend(actor=SYSTEM, targets=[a], reason=WHY)
    assert states() == ["suspending", "issued"]
    PeerStatus.objects.filter(peer=a).update(shut_at=held.began_at)
    assert states() == ["suspended", "issued"]
    resume(actor=SYSTEM, suspension=held, reason="x")
    assert states() == ["letting in", "issued"]
    PeerStatus.objects.update(shut_at=None, latest_handshake_at=held.began_at)
    item = make_review(b)
    assert states() == ["connected", "shut at its machine"]
    item.decided_at, item.decision = held.began_at, "resume"
    item.save()
    Peer.objects.filter(pk=b.pk).update(windows=[[0, 5]])
    assert states() == ["connected", "outside its hours"]
    revoke_devices(actor=SYSTEM, devices=[device], reason="lost")
    Peer.objects.filter(pk=b.pk).update(gone_at=held.began_at)
    assert states() == ["leaving", "gone"]


def test_a_person_who_has_access_later_is_resumed_by_its_operators_alone(
    staging: Environment, production: Environment, bob: User, alice: User
) -> None:
    make_server(production)
    person, later = make_person("Carol"), timezone.now() + dt.timedelta(hours=1)
    make_device(person)
    grant_access(actor=SYSTEM, person=person, environment=production, reason="work", begins_at=later)
    (suspension,) = suspend(actor=SYSTEM, targets=[person], reason="malware")
    with pytest.raises(PermissionDenied):
        resume(actor=bob, suspension=suspension, reason="x")
    assert resume(actor=alice, suspension=suspension, reason="clean").ended_by == "alice"
