"""What the sweep does besides draining: ends what is over, forgets what must not stay, takes up lost hints."""

import datetime as dt
from concurrent.futures import Future
from functools import partial

from django.db.models import Exists, OuterRef
from django.utils import timezone

from fleet.addresses import has_confirmed, release_ranges
from fleet.attempts import do_all
from fleet.models import AddressRange
from nodes.crew import Crew
from nodes.enrol import fail, run_enrolment
from nodes.models import BootstrapLogin, Enrolment, PlanRequest, Run
from nodes.plans import fill_plan
from nodes.reviews import hand_on_reviews
from nodes.status import record_full
from nodes.targets import make_missing_keys
from peers.due import settle_due
from peers.expiry import mail_warnings, warn_of_ends
from peers.idle import suspend_idle
from peers.models import Peer
from peers.overdue import mail_overdue, tell_overdue

LOGIN_LIFE = dt.timedelta(minutes=10)
RUNS_KEPT = dt.timedelta(days=30)
# A running enrolment whose worker died never ends by itself.
ENROLMENT_LIFE = dt.timedelta(minutes=15)


def do_chores(crew: Crew) -> "list[Future[None]]":
    """Once for the whole fleet: a chore that fails holds up no other. Returns the jobs that were taken up."""
    jobs: list[Future[None]] = []
    chores = (settle_all, tell_overdue, suspend_idle, warn_of_ends, release_rested, hand_on_reviews)
    do_all((*chores, make_missing_keys, forget, lambda: jobs.extend(_taken_up(crew))))
    return jobs


def _taken_up(crew: Crew) -> "list[Future[None]]":
    waiting = Enrolment.objects.filter(state=Enrolment.State.WAITING).values_list("pk", flat=True)
    plans = PlanRequest.objects.filter(finished_at=None).values_list("pk", flat=True)
    jobs = [crew.open(partial(run_enrolment, str(pk), crew.pool)) for pk in waiting]
    jobs += [crew.open(partial(fill_plan, str(pk), crew.pool)) for pk in plans]
    return [*jobs, crew.mail(mail_all)]


def mail_all() -> None:
    """What is urgent first; a fault of the one mail holds up no other."""
    do_all((mail_overdue, mail_warnings))


def settle_all() -> None:
    for server_id, why in settle_due().items():
        record_full(server_id, why)


def release_rested() -> int:
    """Addresses whose rest is over, and whose peer or route was seen gone, may be given to another peer."""
    now = timezone.now()
    resting = AddressRange.objects.filter(released_at=None).exclude(freed_at=None)
    # By address: a device may have been given its own again, as another row, while its peer was still there.
    there = Peer.objects.filter(gone_at=None)
    held = [
        Exists(there.filter(**{f"{name}__server": OuterRef("server"), f"{name}__first": OuterRef("first")}))
        for name in ("ipv4", "ipv6")
    ]
    gone = resting.filter(~held[0], ~held[1])
    rested = [row.pk for row in gone.select_related("server__environment", "server__status") if _has_rested(row, now)]
    return release_ranges(rested, now)


def _has_rested(row: AddressRange, now: dt.datetime) -> bool:
    is_over = row.freed_at is not None and row.freed_at + row.server.environment.address_rest <= now
    return is_over and (row.kind != AddressRange.Kind.ROUTED or has_confirmed(row.server))


def forget() -> None:
    now = timezone.now()
    BootstrapLogin.objects.filter(created_at__lt=now - LOGIN_LIFE).delete()
    Run.objects.filter(started_at__lt=now - RUNS_KEPT).delete()
    stuck = Enrolment.objects.filter(state=Enrolment.State.RUNNING, created_at__lt=now - ENROLMENT_LIFE)
    for enrolment in stuck.select_related("server__environment"):
        fail(enrolment, "The worker ended midway: enrol again.")
