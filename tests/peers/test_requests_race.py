"""Two decisions at the same moment: exactly one outcome, whoever comes first."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connection, connections, transaction

from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.services import add_user, change_environment, give_role
from peers.leaving import offboard
from peers.models import AccessRequest, Grant, Peer
from peers.requests import approve_request, cancel_request, deny_request
from tests.build import make_device, make_person, make_request, make_server
from tests.lab.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
ROUNDS = 5


def at_once(acts: Sequence[Callable[[], object]]) -> list[bool]:
    """Which of these went through; the others were refused with a clear word."""
    start, went = threading.Barrier(len(acts)), [False] * len(acts)
    broken: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait(20)
            acts[number]()
            went[number] = True
        except (ValidationError, PermissionDenied):
            pass
        except BaseException as error:
            broken.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert broken == []
    return went


@pytest.fixture
def operators(staging: Environment) -> list[User]:
    found = []
    for name in ("bob", "dora", "eve"):
        user = add_user(actor=SYSTEM, username=name, email="", password=None, is_superuser=False)
        give_role(actor=SYSTEM, user=user, name=Role.Name.OPERATOR, environment=staging)
        found.append(user)
    return found


def approve(user: User, asked: AccessRequest) -> Callable[[], object]:
    return partial(approve_request, actor=user, request=asked)


def test_of_three_approvals_at_once_one_grants(staging: Environment, operators: list[User]) -> None:
    make_server(staging)
    for number in range(ROUNDS):
        person = make_person(f"Person {number}")
        make_device(person)
        asked = make_request(person, staging)
        assert sorted(at_once([approve(user, asked) for user in operators])) == [False, False, True]
        assert Grant.objects.get(person=person).request == asked
        assert Peer.objects.filter(device__person=person).count() == 1


def test_of_three_approvals_at_once_two_agree_where_two_have_to(staging: Environment, operators: list[User]) -> None:
    Environment.objects.update(needs_second=True)
    for number in range(ROUNDS):
        person = make_person(f"Person {number}")
        asked = make_request(person, staging)
        assert sorted(at_once([approve(user, asked) for user in operators])) == [False, True, True]
        row = AccessRequest.objects.get(pk=asked.pk)
        assert row.first_approved_by != row.decided_by
        assert Grant.objects.get(person=person).granted_by == f"{row.first_approved_by} and {row.decided_by}"


def test_one_operator_twice_at_once_is_one(staging: Environment, operators: list[User]) -> None:
    Environment.objects.update(needs_second=True)
    for number in range(ROUNDS):
        asked = make_request(make_person(f"Person {number}"), staging)
        assert sorted(at_once([approve(operators[0], asked)] * 3)) == [False, False, True]
    assert not Grant.objects.exists()


def test_an_approval_and_a_denial_and_a_cancellation_at_once_are_one_of_them(
    staging: Environment, operators: list[User]
) -> None:
    one, two, three = operators
    for number in range(ROUNDS):
        person = make_person(f"Person {number}")
        asked = make_request(person, staging)
        went = at_once(
            [
                approve(one, asked),
                partial(deny_request, actor=two, request=asked, reason="no"),
                partial(cancel_request, actor=three, request=asked),
            ]
        )
        assert sorted(went) == [False, False, True]
        assert Grant.objects.filter(person=person).exists() == went[0]
        assert AccessRequest.objects.get(pk=asked.pk).decision == ["approved", "denied", "cancelled"][went.index(True)]


def test_the_same_asked_twice_at_once_is_asked_once(staging: Environment) -> None:
    for number in range(ROUNDS):
        person = make_person(f"Person {number}")
        assert sorted(at_once([partial(make_request, person, staging)] * 3)) == [False, False, True]
        assert AccessRequest.objects.filter(person=person).count() == 1


def test_who_leaves_at_the_moment_of_an_approval_keeps_nothing(staging: Environment, operators: list[User]) -> None:
    """D3, D18."""
    make_server(staging)
    for number in range(ROUNDS):
        person = make_person(f"Person {number}")
        make_device(person)
        asked = make_request(person, staging)
        leave = partial(offboard, actor=SYSTEM, people=[person], reason="left")
        assert at_once([leave, approve(operators[0], asked)])[0]
        assert not Grant.objects.filter(person=person, ended_at=None).exists()
        assert not Peer.objects.filter(device__person=person, ended_at=None).exists()


def test_a_second_approval_is_asked_for_from_the_moment_it_is_decided(
    staging: Environment, operators: list[User]
) -> None:
    """An approval waits for a change that is being made, and goes by it."""
    asked, done = make_request(make_person(), staging), threading.Event()

    def decide() -> None:
        at_once([approve(operators[0], asked)])
        done.set()

    thread = threading.Thread(target=decide)
    with transaction.atomic():
        change_environment(actor=SYSTEM, environment=staging, needs_second=True, reason="careful")
        thread.start()
        wait_for(lambda: done.is_set() or is_somebody_waiting(), 20, "the approval to wait")
    thread.join(60)
    assert AccessRequest.objects.get().state == "half approved"


def is_somebody_waiting() -> bool:
    if connection.vendor == "sqlite":
        return True  # there is no second writer at all
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])
