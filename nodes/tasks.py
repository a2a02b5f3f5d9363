"""Celery's doors to the workers' functions. A task carries ids and is only a hint."""

from functools import partial

from celery import shared_task

from nodes import chores
from nodes import drain as draining
from nodes.crew import the_crew
from nodes.enrol import run_enrolment
from nodes.plans import fill_plan as fill
from nodes.reconcile import reconcile
from peers.due import settle_placements


@shared_task
def drain(shard: int) -> None:
    draining.drain(shard, the_crew())


@shared_task
def drain_revocations(shard: int) -> None:
    """The revocations, and then the pushes that follow from them."""
    draining.drain(shard, the_crew())


@shared_task
def sweep(shard: int) -> None:
    # First, so that no chore that fails (a full pool, a broken seal) holds up a revocation.
    draining.drain_revocations(shard, the_crew())
    try:
        if shard == 0:
            chores.do_chores(the_crew())
    finally:
        draining.drain(shard, the_crew())


@shared_task
def poll(shard: int) -> None:
    draining.poll(shard, the_crew())


@shared_task
def settle(shard: int) -> None:
    settle_placements()


@shared_task
def enrol(enrolment_id: str) -> None:
    the_crew().open(partial(run_enrolment, enrolment_id, the_crew().pool))


@shared_task
def fill_plan(request_id: str) -> None:
    the_crew().open(partial(fill, request_id, the_crew().pool))


@shared_task
def reconcile_server(server_id: int) -> None:
    the_crew().open(partial(reconcile, server_id, the_crew().pool))
