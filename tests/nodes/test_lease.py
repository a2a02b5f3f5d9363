"""One reconcile per server at a time: of many that ask at once, one gets the lease."""

import datetime as dt
import threading
import uuid

import pytest
from django.db import connections
from django.utils import timezone

from fleet.models import Environment
from nodes.lease import lease
from nodes.models import Lease
from tests.build import make_server

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 8


@pytest.mark.parametrize("is_first", [True, False])
def test_of_threads_at_a_barrier_one_gets_it(staging: Environment, is_first: bool) -> None:
    server = make_server(staging)
    if not is_first:
        with lease(server.pk) as is_ours:
            assert is_ours
    start, done = threading.Barrier(THREADS), threading.Barrier(THREADS)
    won: list[bool] = []

    def ask() -> None:
        try:
            start.wait(20)
            with lease(server.pk) as is_ours:
                won.append(is_ours)
                done.wait(20)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(won) == [False] * (THREADS - 1) + [True]
    with lease(server.pk) as is_ours:
        assert is_ours


def test_a_lease_of_a_holder_that_died_runs_out(staging: Environment) -> None:
    server, other = make_server(staging), make_server(staging)
    row = Lease.objects.create(server=server, holder=uuid.uuid4(), until=timezone.now() + dt.timedelta(seconds=15))
    with lease(server.pk) as is_ours, lease(other.pk) as is_other_free:
        assert (is_ours, is_other_free) == (False, True)
    Lease.objects.filter(pk=row.pk).update(until=timezone.now())
    with lease(server.pk) as is_ours:
        assert is_ours


def test_a_holder_that_was_overtaken_does_not_give_away_what_is_anothers(staging: Environment) -> None:
    server, thief = make_server(staging), uuid.uuid4()
    with lease(server.pk):
        Lease.objects.filter(server=server).update(holder=thief, until=timezone.now() + dt.timedelta(seconds=15))
    assert Lease.objects.get(server=server).holder == thief
