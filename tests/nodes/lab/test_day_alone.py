"""A day without any Console: a day for the nodes' clocks, the last seconds of it for those who watch the packets."""

import datetime as dt
import time
from collections.abc import Iterator, Sequence

import pytest
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, User
from nodes.crew import Crew
from nodes.models import ReviewItem, Run
from peers.granting import grant_access
from peers.models import Receipt, Revocation
from tests.build import make_person
from tests.lab.lab import Lab
from tests.lab.machines import Server
from tests.lab.waiting import wait_for
from tests.nodes.lab.acts import held_keys, logins, wait_for_ticks
from tests.nodes.lab.parts import parts
from tests.nodes.lab.scene import Scene, Seat, contractor, scene
from tests.nodes.node.clocks import LIBRARY

pytestmark = [pytest.mark.alone, pytest.mark.lab, pytest.mark.django_db(transaction=True)]

DAY, TICK, LAST_SECONDS = 86400, 10, 25
# Here libfaketime moves all clocks alike: a day goes by for everything that muster-node does.
FAKED = f"""\
#!/bin/sh
export LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE=/etc/wall FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1
exec /usr/bin/python3 -IS /usr/local/lib/muster-node "$@"
"""
READ = FAKED.replace('/usr/local/lib/muster-node "$@"', '-c "import time; print(time.time(), time.clock_gettime(7))"')


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    """Two servers whose nodes are a day behind."""
    with scene(lab, [staging, staging]) as found:
        found.console.crew.close()
        set_clocks(found.machines, -DAY)
        for machine in found.machines:
            machine.shell("mount -t tmpfs tmpfs /dev/shm; mv /usr/local/sbin/muster-node /usr/local/lib/")
            machine.put("/usr/local/sbin/muster-node", FAKED, 0o755)
            machine.shell("rm -f /var/lib/muster/clock /run/muster/clock; systemctl restart muster-node")
        found.console.crew = Crew()
        yield found


def set_clocks(machines: Sequence[Server], seconds: int) -> None:
    for machine in machines:
        machine.put("/etc/wall", f"{seconds:+d}\n")


def clocks(machine: Server) -> tuple[float, float]:
    """Wall clock and boot clock, as muster-node reads them."""
    wall, boot = map(float, machine.shell(READ).split())
    return wall, boot


def at_machine(fleet: Scene, number: int, command: str, seat: Seat) -> float:
    line = f"SUDO_USER=dora muster-node {command} wg0 {seat.pair.public_key} --reason 'laptop stolen'"
    fleet.machines[number].shell(line)
    return time.monotonic()


def test_after_a_day_alone_all_holds_that_was_done_and_the_console_takes_it_over(
    lab: Lab, fleet: Scene, staging: Environment, alice: User
) -> None:
    """F7, D10, D14, E11: two servers, by packets; then the whole Console comes back, with newer generations."""
    hosts = lab.add_clients(4)
    people = [contractor(staging, name=name) for name in ("Ben", "Carol", "Erin")] + [make_person("Frank")]
    end = timezone.now() + dt.timedelta(seconds=LAST_SECONDS)
    for row in fleet.rows:
        grant_access(actor=SYSTEM, person=people[3], server=row, reason="work", until=end)
    seats = [fleet.issue(person, host) for person, host in zip(people, hosts, strict=True)]
    fleet.console.push()
    for seat in seats:
        fleet.connect(seat, rate=50)
    ben, carol, erin, frank = seats
    fleet.console.crew.close()
    began, morning = time.monotonic(), [clocks(machine) for machine in fleet.machines]
    set_clocks(fleet.machines, -DAY // 2)
    wait_for_ticks(*fleet.machines)
    revoked, suspended = at_machine(fleet, 0, "revoke", carol), at_machine(fleet, 1, "suspend", erin)
    noon = time.monotonic()
    assert (carol.is_shut_out(revoked), erin.is_shut_out(suspended)) == ([True, False], [False, True])
    frank.wait_for_replies(after=noon)
    set_clocks(fleet.machines, 0)
    evening = [clocks(machine) for machine in fleet.machines]
    passed = [
        now - then for was, now_is in zip(morning, evening, strict=True) for then, now in zip(was, now_is, strict=True)
    ]
    assert [abs(seconds - DAY - (time.monotonic() - began)) < 5 for seconds in passed] == [True] * 4
    due = max(end, timezone.now())
    wait_for(lambda: not any(fleet.is_in_kernel(frank.pair.public_key)), LAST_SECONDS + TICK, "Frank's key to go")
    assert (timezone.now() - due).total_seconds() < TICK
    over = time.monotonic()
    assert frank.is_shut_out(over) == [True, True]
    assert (ben.lost(began, over), carol.is_shut_out(revoked, over - revoked)) == ([0, 0], [True, False])
    come_back(fleet, alice, staging, seats)
    done = time.monotonic()
    assert carol.is_shut_out(revoked, done - revoked) == [True, False]
    assert carol.is_shut_out(done) == frank.is_shut_out(done) == [True, True]
    assert (erin.is_shut_out(suspended, done - suspended), ben.lost(began, done)) == ([False, True], [0, 0])


def come_back(fleet: Scene, alice: User, staging: Environment, seats: Sequence[Seat]) -> None:
    """Everything starts at once; meanwhile somebody was given access, with Carol still in all that is wanted."""
    late = fleet.issue(contractor(staging, name="Late"), seats[0].client)
    before, last = [len(accepted(machine)) for machine in fleet.machines], Run.objects.latest("pk").pk
    with parts(alice) as console:
        console.start()
        fleet.wait_in_sync()
        wait_for(lambda: Receipt.objects.exclude(confirmed_at=None).count() == 2, 40, "both receipts")
        wait_for(lambda: ReviewItem.objects.exists(), 20, "the review item")
        fleet.wait_in_sync()
        wait_for(lambda: Run.objects.filter(server=fleet.rows[1]).count() > 1, 20, "the last push to be written down")
    assert [len(accepted(machine)) for machine in fleet.machines] == [number + 1 for number in before]
    event = Event.objects.get(verb="revocation.add")
    runs = Run.objects.filter(server=fleet.rows[0], pk__gt=last).order_by("pk")
    assert event.timestamp < runs[0].started_at
    assert {run.outcome for run in runs} <= {Run.Outcome.APPLIED, Run.Outcome.ALREADY}
    assert (event.origin, event.actor_label, event.reason) == ("node", "dora", "laptop stolen")
    assert Revocation.objects.get().revoked_by == f"dora at {fleet.rows[0].name}"
    ben, _, erin, _ = (seat.pair.public_key for seat in seats)
    new = late.pair.public_key
    assert [held_keys(machine) for machine in fleet.machines] == [{ben, erin, new}, {ben, new}]


def accepted(machine: Server) -> list[str]:
    return [line for line in logins(machine) if "Accepted " in line]
