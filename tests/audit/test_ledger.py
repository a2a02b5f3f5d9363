"""The ledger takes Events and gives none of them up; each service writes exactly one, or changes nothing."""

from collections.abc import Callable

import pytest
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from audit import append_only
from audit.models import Event
from audit.services import SYSTEM, Unrecorded, act
from audit.verbs import Verb
from fleet.models import Environment, User
from peers.models import Person
from tests.build import make_person

pytestmark = pytest.mark.django_db


def change_by_orm(event: Event) -> None:
    event.reason = "another"
    event.save()


def delete_by_orm(event: Event) -> None:
    event.delete()


def raw(sql: str) -> Callable[[Event], None]:
    def run(event: Event) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    return run


@pytest.mark.parametrize(
    "attempt",
    [
        change_by_orm,
        delete_by_orm,
        lambda event: Event.objects.update(verb=""),
        lambda event: Event.objects.all().delete(),
        raw("UPDATE audit_event SET reason = 'x'"),
        raw("DELETE FROM audit_event"),
        raw("INSERT INTO audit_event SELECT * FROM audit_event"),
    ],
)
def test_no_event_can_be_changed_or_deleted(staging: Environment, attempt: Callable[[Event], None]) -> None:
    before = list(Event.objects.values())
    with pytest.raises(DatabaseError), transaction.atomic():
        attempt(Event.objects.get())
    assert list(Event.objects.values()) == before
    make_person()
    assert Event.objects.count() == len(before) + 1


def test_what_does_not_fit_is_seen_to_be_cut(staging: Environment) -> None:
    with act(Verb.ENVIRONMENT_CHANGE, actor=SYSTEM, reason="r" * 501) as this:
        this.on(staging, changes={}, label="t" * 255)
    event = Event.objects.latest("pk")
    assert (event.reason, event.target_label) == (f"{'r' * 499}…", f"{'t' * 253}…")


def test_an_event_cannot_be_replaced_in_place(staging: Environment) -> None:
    event = Event.objects.get()
    statement = "INSERT OR REPLACE INTO audit_event SELECT * FROM audit_event"
    if connection.vendor == "postgresql":
        statement = "TRUNCATE audit_event"
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert Event.objects.get() == event


@pytest.mark.django_db(transaction=True)
def test_the_system_check_tells_when_the_triggers_are_gone() -> None:
    assert append_only.check_append_only(None, ["default"]) == []
    append_only.lift(connection)
    try:
        assert [message.id for message in append_only.check_append_only(None, ["default"])] == ["audit.E001"]
    finally:
        call_command("migrate", verbosity=0)
    assert append_only.check_append_only(None, ["default"]) == []


BLUNTED = {
    "sqlite": [
        "DROP TRIGGER audit_event_no_update",
        "CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON peers_person BEGIN SELECT 1; END",
    ],
    "postgresql": ["ALTER TABLE audit_event ENABLE REPLICA TRIGGER audit_event_no_update"],
}


@pytest.mark.django_db(transaction=True)
def test_a_trigger_that_would_not_fire_does_not_count() -> None:
    with connection.cursor() as cursor:
        for statement in BLUNTED[connection.vendor]:
            cursor.execute(statement)
    assert not append_only.is_in_place(connection)
    append_only.lift(connection)
    append_only.put_in_place(connection)
    assert append_only.is_in_place(connection)


def test_a_save_outside_a_service_leaves_an_event_without_a_verb(staging: Environment) -> None:
    Person.objects.create(name="Smuggled")
    event = Event.objects.first()
    assert event is not None
    assert (event.verb, event.object_repr, str(event)) == ("", "Smuggled", "unexplained change Smuggled")


def test_an_act_that_names_no_target_is_taken_back(staging: Environment) -> None:
    count = Event.objects.count()
    with pytest.raises(Unrecorded), act(Verb.PERSON_ADD, actor=SYSTEM):
        Person(name="Nobody").save()
    assert (Person.objects.count(), Event.objects.count()) == (0, count)


def test_an_event_outlives_whom_it_names(staging: Environment, bob: User) -> None:
    with act(Verb.PERSON_ADD, actor=bob, reason="because") as this:
        person = Person.objects.create(name="Carol")
        this.on(person, environment="staging")
    person.delete()
    event = Event.objects.get(verb="person.add")
    assert (event.actor_label, event.target_label, event.environment_label) == ("bob", "Carol", "staging")


def test_a_refused_act_leaves_no_event(staging: Environment) -> None:
    count = Event.objects.count()
    with pytest.raises(PermissionDenied), act(Verb.PERSON_ADD, actor=SYSTEM) as this:
        this.on(Person.objects.create(name="Carol"))
        raise PermissionDenied
    assert (Person.objects.count(), Event.objects.count()) == (0, count)
