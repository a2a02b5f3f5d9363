"""Mail has a lane of its own: a mail server that accepts and never speaks holds up nothing but mail."""

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from fleet.models import Environment, Server
from nodes.chores import do_chores
from nodes.crew import Crew
from nodes.drain import drain_revocations, finish
from peers.expiry import warn_of_ends
from peers.models import ExpiryWarning, Person
from tests.build import make_peers, make_server
from tests.lab.waiting import wait_for
from tests.postbox import line_server, mail_server, point_mail_to

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def crew() -> Iterator[Crew]:
    found = Crew()
    try:
        yield found
    finally:
        found.close()


def soon_to_end(environment: Environment, count: int = 1) -> None:
    make_server(environment)
    make_peers(environment, count)
    Environment.objects.update(warn_before=dt.timedelta(days=40))
    for person in Person.objects.all():
        Person.objects.filter(pk=person.pk).update(email=f"{person.pk}@example.com")
    warn_of_ends()


def test_a_mail_server_that_never_speaks_holds_up_neither_sweep_nor_revocation(
    staging: Environment, settings: Settings
) -> None:
    """E5, for mail: it is given up after its time, and tried again later."""
    settings.EMAIL_TIMEOUT = 2
    soon_to_end(staging)
    asked, may_end = threading.Event(), threading.Event()

    def keep_silent(line: object) -> None:
        asked.set()
        may_end.wait(30)

    with line_server(keep_silent) as port, crew() as hands:
        point_mail_to(settings, port)
        first = do_chores(hands)[-1]
        assert asked.wait(20)
        assert not first.done()
        begun = timezone.now()
        again = do_chores(hands)[-1]
        finish(drain_revocations(0, hands))
        finish([hands.work(lambda: Server.objects.count()), hands.open(lambda: Server.objects.count())])
        assert (timezone.now() - begun).total_seconds() < 2
        assert again is first
        finish([first])
        may_end.set()
    warning = ExpiryWarning.objects.get()
    assert (warning.mailed_at, warning.failures) == (None, 1)
    assert warning.next_try_at is not None


def test_the_sweep_s_chores_mail_what_ends_soon(staging: Environment, settings: Settings) -> None:
    soon_to_end(staging, 3)
    with mail_server() as server, crew() as hands:
        point_mail_to(settings, server.port)
        finish(do_chores(hands))
        assert server.box.addresses == sorted(Person.objects.values_list("email", flat=True))
        finish(do_chores(hands))
        assert len(server.box.taken) == 3


def test_two_workers_mail_nobody_twice(staging: Environment, settings: Settings) -> None:
    soon_to_end(staging, 6)
    with mail_server() as server, crew() as one, crew() as other:
        point_mail_to(settings, server.port)
        finish([do_chores(one)[-1], do_chores(other)[-1]])
        wait_for(lambda: ExpiryWarning.objects.exclude(mailed_at=None).count() == 6, 20, "the mails")
        assert server.box.addresses == sorted(Person.objects.values_list("email", flat=True))
