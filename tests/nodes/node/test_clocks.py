"""The script under clocks that are wrong: who is let in then is judged by the kernel's peers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.waiting import wait_for
from tests.nodes.node.build import Json, make_key, make_peer, make_whole
from tests.nodes.node.clocks import Clocks
from tests.nodes.node.machine import Machine

DAY, YEAR = 86400, 365 * 86400
# By the seconds until a peer's end; None for one without.
GONE, SOON, LATER, TOMORROW, NEXT_YEAR, FOR_EVER = -1, 55, 1800, DAY, 400 * DAY, None
ENDS = (GONE, SOON, LATER, TOMORROW, NEXT_YEAR, FOR_EVER)


@pytest.fixture
def clocks(machine: Machine) -> Iterator[Clocks]:
    """A machine that holds a peer for each of ENDS, since now."""
    machine.make_interface()
    found = Clocks(machine)
    try:
        push(found, ENDS)
        yield found
    finally:
        found.close()


def push(clocks: Clocks, ends: tuple[int | None, ...], generation: int = 1) -> None:
    now = clocks.now()
    peers = [make_peer(n, expires_at=None if end is None else now + end) for n, end in enumerate(ends)]
    reply = clocks.machine.session("wg0").ask("apply", **make_whole(generation, peers, journal_seen=9999))
    assert reply["ok"], reply


def running(clocks: Clocks) -> list[int | None]:
    """The ends of the peers that run once a daemon has looked."""
    return named(clocks.turn())


def named(keys: set[str]) -> list[int | None]:
    return [end for number, end in enumerate(ENDS) if make_key(number) in keys]


def alive_from(end: int | None) -> list[int | None]:
    """Those that end then, or later."""
    return list(ENDS[ENDS.index(end) :])


def confirm(clocks: Clocks, moment: int) -> None:
    """By the Console."""
    assert abs(ask(clocks, "time", now=moment)["now"] - moment) < 10


def ask(clocks: Clocks, op: str, **fields: int) -> Json:
    state: Json = clocks.machine.session("wg0").ask(op, **fields)["state"]
    return state


def test_a_step_back_revives_nobody_and_time_goes_on_by_the_boot_clock(clocks: Clocks) -> None:
    """F12: by a year; over restarts of the daemon, and over a boot with the clock at 1970."""
    clocks.step(-YEAR)
    assert running(clocks) == alive_from(SOON)
    clocks.go_by(SOON)
    assert running(clocks) == alive_from(LATER)
    clocks.reboot(step=-clocks.now())
    assert running(clocks) == alive_from(LATER)
    clocks.go_by(LATER)
    assert running(clocks) == alive_from(TOMORROW)
    assert not clocks.is_held()


def test_a_jump_by_a_year_is_held_for_an_hour_and_then_believed(clocks: Clocks) -> None:
    """F12: meanwhile time goes on by the boot clock; nobody's key is tombstoned."""
    clocks.step(YEAR)
    assert (running(clocks), clocks.is_held()) == (alive_from(SOON), True)
    clocks.go_by(LATER)
    assert (running(clocks), clocks.is_held()) == (alive_from(TOMORROW), True)
    clocks.go_by(3600 - LATER - 60)
    assert (running(clocks), clocks.is_held()) == (alive_from(TOMORROW), True)
    clocks.go_by(60)
    assert (running(clocks), clocks.is_held()) == (alive_from(NEXT_YEAR), False)
    clocks.step(-YEAR)
    assert running(clocks) == alive_from(NEXT_YEAR)
    assert ask(clocks, "hello")["tombstones"] == 0


def test_a_minute_forward_is_believed_and_a_second_more_is_held(clocks: Clocks) -> None:
    """F12: what was believed for a moment and ended somebody stays believed."""
    clocks.step(61)
    assert (running(clocks), clocks.is_held()) == (alive_from(SOON), True)
    clocks.step(-2)
    assert (running(clocks), clocks.is_held()) == (alive_from(LATER), False)
    clocks.step(-59)
    assert running(clocks) == alive_from(LATER)


def test_small_steps_come_to_no_more_than_a_minute(clocks: Clocks) -> None:
    """F12: thirty-one of 59 s would pass half an hour."""
    for _ in range(3):
        clocks.step(59)
        found = running(clocks)
    assert (found, clocks.is_held()) == (alive_from(LATER), True)
    clocks.step(28 * 59)
    assert (running(clocks), clocks.is_held()) == (alive_from(LATER), True)


def test_a_running_daemon_and_a_running_session_see_the_steps_too(clocks: Clocks) -> None:
    """F12: the Console confirms a jump, then corrects what it confirmed; who was let go by it comes back."""
    with clocks.daemon():
        session = clocks.machine.session("wg0")
        clocks.step(-YEAR)
        assert named(clocks.look()) == alive_from(SOON)
        clocks.step(2 * YEAR)
        assert (named(clocks.look()), clocks.is_held()) == (alive_from(SOON), True)
        wait_for(lambda: "a jump forward is held until the Console confirms it" in clocks.alarms(), 10, "the alarm")
        right = clocks.now() - YEAR
        assert session.ask("time", now=clocks.now())["ok"]
        assert (named(clocks.look()), clocks.is_held()) == (alive_from(NEXT_YEAR), False)
        clocks.rest()
        assert abs(session.ask("time", now=right)["state"]["now"] - right) < 10
        wait_for(lambda: named(set(clocks.machine.peers())) == alive_from(SOON), 10, "those that have not ended")
        assert (named(clocks.look()), clocks.is_held()) == (alive_from(SOON), True)


def test_a_machine_that_was_off_for_a_day_waits_for_the_consoles_word(clocks: Clocks) -> None:
    """F12: held as any jump is, also where its clock began at 1970 and was set right later."""
    clocks.reboot(off=40)
    assert (running(clocks), clocks.is_held()) == (alive_from(SOON), False)
    clocks.go_by(SOON - 40)
    assert running(clocks) == alive_from(LATER)
    wrong = clocks.now() + DAY
    clocks.reboot(off=DAY, step=-wrong)
    assert (running(clocks), clocks.is_held()) == (alive_from(LATER), False)
    clocks.step(wrong)
    assert (running(clocks), clocks.is_held()) == (alive_from(LATER), True)
    clocks.reboot(off=DAY)
    assert (running(clocks), clocks.is_held()) == (alive_from(LATER), True)
    confirm(clocks, clocks.now())
    assert (running(clocks), clocks.is_held()) == (alive_from(NEXT_YEAR), False)


DAMAGES = ("rm -f {0}", "echo '[1e999,0,0,0,0]' > {0}", "printf '\\377\\000' > {0}")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_clock_lets_nobody_in(clocks: Clocks, damage: str) -> None:
    """F12, D19: the other file has the time; without both the wall clock is believed."""
    clocks.go_by(SOON)
    assert running(clocks) == alive_from(LATER)
    clocks.machine.sh(damage.format("/var/lib/muster/clock"))
    clocks.step(-YEAR)
    assert running(clocks) == alive_from(LATER)
    clocks.go_by(60)
    assert running(clocks) == alive_from(LATER)
    clocks.machine.sh(damage.format("/run/muster/clock"))
    assert running(clocks) == alive_from(LATER)
    clocks.step(YEAR)
    clocks.machine.sh(" && ".join(damage.format(f"{folder}/muster/clock") for folder in ("/run", "/var/lib")))
    assert running(clocks) == alive_from(LATER)


def test_on_a_full_disk_a_jump_is_held_no_longer_and_the_consoles_word_counts(clocks: Clocks) -> None:
    """F12, F3."""
    folder = "/var/lib/muster"
    clocks.machine.sh(
        f"cp -a {folder} /run/kept; mount -t tmpfs -o size=64k tmpfs {folder}; cp -a /run/kept/. {folder}"
    )
    clocks.machine.sh(f"dd if=/dev/zero of={folder}/fill 2>/dev/null || true")
    clocks.step(DAY)
    assert (running(clocks), clocks.is_held()) == (alive_from(SOON), True)
    confirm(clocks, clocks.now() - DAY + LATER)
    assert (running(clocks), clocks.is_held()) == (alive_from(TOMORROW), True)
    clocks.go_by(3601)
    assert (running(clocks), clocks.is_held()) == (alive_from(NEXT_YEAR), False)


def test_a_renewal_in_the_last_second_is_an_end_and_never_none(clocks: Clocks) -> None:
    """D10: five times; then nobody renews."""
    for generation in range(2, 7):
        clocks.go_by(SOON - 1)
        push(clocks, ENDS, generation)
        assert running(clocks) == alive_from(SOON)
    clocks.go_by(SOON)
    assert running(clocks) == alive_from(LATER)
