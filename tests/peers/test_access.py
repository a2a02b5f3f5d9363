"""Grants make peers and end them; what is asked wrongly is refused with the mend."""

import datetime as dt

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server, User
from peers.due import expire_peers, settle_placements
from peers.granting import end_grants, grant_access
from peers.models import Grant, Peer, Person, Receipt
from peers.revocation import revoke_devices, revoke_person
from peers.services import change_person, register_device
from tests.build import make_device, make_grant, make_person, make_server, new_public_key

pytestmark = pytest.mark.django_db


def live() -> set[tuple[int, int]]:
    return set(Peer.objects.filter(ended_at=None).values_list("device", "server"))


def generations() -> list[int]:
    return list(Server.objects.order_by("pk").values_list("generation", flat=True))


@pytest.mark.parametrize(
    ("kind", "days", "message"),
    [
        (Person.Kind.CONTRACTOR, None, "A contractor's access needs an end date."),
        (Person.Kind.CONTRACTOR, -1, "Give an end in the future."),
        (Person.Kind.EMPLOYEE, -1, "Give an end in the future."),
    ],
)
def test_a_grant_without_a_proper_end_is_refused(
    staging: Environment, kind: str, days: int | None, message: str
) -> None:
    make_server(staging)
    person = make_person(kind=kind)
    make_device(person)
    until = timezone.now() + dt.timedelta(days=days) if days else None
    with pytest.raises(ValidationError) as refusal:
        grant_access(actor=SYSTEM, person=person, environment=staging, reason="work", until=until)
    assert refusal.value.message_dict == {"until": [message]}
    assert (Grant.objects.count(), Peer.objects.count()) == (0, 0)
    make_grant(person, staging)
    assert Peer.objects.count() == 1


def test_nobody_with_an_endless_grant_becomes_a_contractor(staging: Environment) -> None:
    person = make_person()
    grant_access(actor=SYSTEM, person=person, environment=staging, reason="work")
    with pytest.raises(ValidationError, match="end the grants that have none first"):
        change_person(actor=SYSTEM, person=person, kind=Person.Kind.CONTRACTOR)
    end_grants(actor=SYSTEM, grants=list(Grant.objects.all()), reason="contract")
    change_person(actor=SYSTEM, person=person, kind=Person.Kind.CONTRACTOR)
    assert Person.objects.get().kind == Person.Kind.CONTRACTOR


def test_a_grant_is_to_one_place(staging: Environment) -> None:
    server, person = make_server(staging), make_person()
    for places in ({}, {"environment": staging, "server": server}):
        with pytest.raises(ValidationError) as refusal:
            grant_access(actor=SYSTEM, person=person, reason="work", **places)  # type: ignore[arg-type]
        assert refusal.value.messages == ["Grant access to an environment or to a server: one of them."]
    assert not Grant.objects.exists()


@pytest.mark.parametrize(
    "networks",
    ["10.0.0.2/32;id", "$(id)", "${IFS}", "10.0.0.2/32\t0.0.0.0/0", "10.0.0.2/33", "010.0.0.2", "::ffff:10.0.0.2"],
)
def test_a_network_that_is_none_is_refused(staging: Environment, networks: str) -> None:
    """A3"""
    person, server = make_person(), make_server(staging)
    with pytest.raises(ValidationError) as refusal:
        grant_access(actor=SYSTEM, person=person, server=server, reason="work", networks=[networks])
    assert list(refusal.value.message_dict) == ["networks"]
    grant = grant_access(actor=SYSTEM, person=person, server=server, reason="work", networks=["10.0.0.2/32"])
    assert grant.networks == ["10.0.0.2/32"]


def test_peers_follow_from_grants_and_only_touched_servers_change(
    staging: Environment, production: Environment
) -> None:
    one, two, far = make_server(staging), make_server(staging), make_server(production)
    person = make_person()
    laptop = make_device(person)
    before = generations()
    first = make_grant(person, staging)
    assert live() == {(laptop.pk, one.pk), (laptop.pk, two.pk)}
    assert [now - then for now, then in zip(generations(), before, strict=True)] == [1, 1, 0]
    second = grant_access(actor=SYSTEM, person=person, server=one, reason="also", until=first.until)
    phone = make_device(person, "phone")
    end_grants(actor=SYSTEM, grants=[first], reason="narrower")
    assert live() == {(laptop.pk, one.pk), (phone.pk, one.pk)}
    end_grants(actor=SYSTEM, grants=[second], reason="over")
    ended = Peer.objects.get(device=laptop, server=one)
    event = Event.objects.filter(verb="grant.end").latest("pk")
    assert (live(), ended.end, ended.is_decided, ended.ended_act) == (set(), Peer.End.WITHDRAWN, True, event.act)
    assert not Peer.objects.filter(server=far).exists()
    with pytest.raises(ValidationError, match="ended already"):
        end_grants(actor=SYSTEM, grants=[second], reason="again")


def test_several_people_at_once_are_no_decision_about_one(staging: Environment) -> None:
    make_server(staging)
    grants = []
    for name in ("Ann", "Ben"):
        person = make_person(name)
        make_device(person)
        grants.append(make_grant(person, staging))
    end_grants(actor=SYSTEM, grants=grants, reason="project is over")
    assert list(Peer.objects.values_list("end", "is_decided")) == [(Peer.End.WITHDRAWN, False)] * 2


def test_the_last_end_of_several_grants_is_the_peers(staging: Environment) -> None:
    make_server(staging)
    person = make_person()
    make_device(person)
    short, long = make_grant(person, staging, days=1), make_grant(person, staging, days=9)
    assert Peer.objects.get().expires_at == long.until
    end_grants(actor=SYSTEM, grants=[long], reason="shorter")
    assert Peer.objects.get().expires_at == short.until


def test_a_peer_whose_time_is_over_ends_and_its_neighbour_stays(staging: Environment) -> None:
    make_server(staging)
    gone, stays = make_person("Ann"), make_person("Ben")
    for person in (gone, stays):
        make_device(person)
        make_grant(person, staging)
    past = timezone.now() - dt.timedelta(seconds=1)
    Grant.objects.filter(person=gone).update(until=past)
    Peer.objects.filter(device__person=gone).update(expires_at=past)
    assert (expire_peers(), expire_peers()) == (1, 0)
    assert Peer.objects.get(ended_at=None).device.person == stays
    ended = Peer.objects.exclude(ended_at=None).get()
    assert (ended.end, ended.is_decided) == (Peer.End.EXPIRED, True)
    assert list(Event.objects.filter(verb="peer.expire").values_list("target_label", flat=True)) == ["Ann"]


def test_revoking_a_person_kills_every_key_once(staging: Environment) -> None:
    make_server(staging)
    person, other = make_person("Ann"), make_person("Ben")
    for name in ("laptop", "phone"):
        make_device(person, name)
    make_grant(person, staging)
    make_grant(other, staging)
    kept = make_device(other)
    revocation = revoke_person(actor=SYSTEM, person=person, reason="left")
    assert Receipt.objects.filter(revocation=revocation).count() == 2
    assert set(Peer.objects.exclude(ended_at=None).values_list("end", flat=True)) == {Peer.End.REVOKED}
    assert Peer.objects.get(ended_at=None).device == kept
    with pytest.raises(ValidationError) as refusal:
        revoke_person(actor=SYSTEM, person=person, reason="left")
    assert refusal.value.message_dict == {"person": ["Ann has no device that is not revoked already."]}


def test_a_device_named_twice_is_revoked_once(staging: Environment) -> None:
    make_server(staging)
    person = make_person()
    make_grant(person, staging)
    device = make_device(person)
    revoke_devices(actor=SYSTEM, devices=[device, device], reason="lost")
    assert Receipt.objects.count() == 1
    with pytest.raises(ValidationError, match="at least one"):
        revoke_devices(actor=SYSTEM, devices=[], reason="lost")


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501])
def test_an_act_needs_a_reason_that_is_one(staging: Environment, reason: str) -> None:
    make_server(staging)
    device = make_device(make_person())
    with pytest.raises(ValidationError) as refusal:
        revoke_devices(actor=SYSTEM, devices=[device], reason=reason)
    assert list(refusal.value.message_dict) == ["reason"]
    device.refresh_from_db()
    assert device.revoked_at is None


@pytest.mark.parametrize("name", ["bob\n[Interface]\nPostUp = touch /run/pwned", "a\x0bb", "a\u2028b", "a\rb", "\x00"])
def test_a_name_of_several_lines_is_refused(staging: Environment, name: str) -> None:
    """A1"""
    with pytest.raises(ValidationError) as person:
        make_person(name)
    with pytest.raises(ValidationError) as device:
        register_device(actor=SYSTEM, person=make_person("Bob"), name=name, public_key=new_public_key())
    assert (list(person.value.message_dict), list(device.value.message_dict)) == (["name"], ["name"])


def test_peers_whose_time_is_over_are_no_withdrawals_whoever_settles_them_first(staging: Environment) -> None:
    make_server(staging)
    person = make_person()
    grant = make_grant(person, staging)
    make_device(person)
    over = timezone.now() - dt.timedelta(seconds=1)
    Grant.objects.filter(pk=grant.pk).update(until=over)
    Peer.objects.update(expires_at=over)
    make_device(person, "phone")
    assert list(Peer.objects.values_list("end", "is_decided")) == [(Peer.End.EXPIRED, True)]


def test_a_device_is_registered_by_who_operates_all_that_its_person_may_reach(
    staging: Environment, production: Environment, bob: User
) -> None:
    person = make_person()
    grant = make_grant(person, production)
    with pytest.raises(PermissionDenied):
        register_device(actor=bob, person=person, name="laptop", public_key=new_public_key())
    assert person.devices.count() == 0
    end_grants(actor=SYSTEM, grants=[grant], reason="project over")
    make_grant(person, staging)
    assert register_device(actor=bob, person=person, name="laptop", public_key=new_public_key()).pk


def test_the_end_of_many_grants_is_named_after_all_of_them(staging: Environment) -> None:
    names = [f"Temp {number} {'x' * 80}" for number in range(60)]
    grants = [make_grant(make_person(name), staging) for name in [*names, names[0]]]
    end_grants(actor=SYSTEM, grants=grants, reason="project is over")
    event = Event.objects.get(verb="grant.end")
    assert event.target_label == "61 grants of 61 people"
    assert {old for old, new in event.changes.values()} == {f"{name} to staging" for name in names}
    assert len(event.changes) == 61
    carol = make_person("Carol")
    end_grants(actor=SYSTEM, grants=[make_grant(carol, staging) for _ in range(2)], reason="left")
    assert Event.objects.latest("pk").target_label == "2 grants of Carol"


def test_the_revocation_of_many_devices_is_named_after_all_of_them(staging: Environment) -> None:
    carol = make_person("Carol")
    revoke_devices(actor=SYSTEM, devices=[make_device(carol, name) for name in ("laptop", "phone")], reason="left")
    assert Event.objects.latest("pk").target_label == "2 devices of Carol"
    several = [make_device(make_person(name)) for name in ("Ann", "Ben")]
    revoke_devices(actor=SYSTEM, devices=several, reason="left")
    assert Event.objects.latest("pk").target_label == "2 devices of 2 people"


def test_a_full_pool_does_not_stand_against_the_end_of_one_of_two_grants(staging: Environment) -> None:
    people = [make_person(name) for name in ("Ann", "Ben")]
    grants = [make_grant(person, staging) for person in people for _ in range(2)]
    for person in people:
        make_device(person)
    full = make_server(staging, ipv4_pool="10.9.0.0/30")
    assert list(settle_placements()) == [full.pk]
    end_grants(actor=SYSTEM, grants=grants[:1], reason="over")
    grants[0].refresh_from_db()
    assert grants[0].ended_at is not None
    assert not Peer.objects.exists()
