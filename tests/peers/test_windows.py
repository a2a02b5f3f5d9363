"""Access windows as text, as intervals over days, over midnight and where the clock is put forward and back."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from peers.entitlement import WINDOWS_AHEAD, Right, merge_terms, monday
from peers.windows import BadHours, intervals, is_within, parse_hours

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)  # a Wednesday
HOUR = 3600
MONDAY = int(monday(NOW).timestamp())


def at(text: str, zone: str = "Europe/Berlin") -> int:
    """`2026-03-29 01:00` as the clock on that wall shows it."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def found(hours: str, first: str, days: int, zone: str = "Europe/Berlin") -> list[tuple[int, int]]:
    begin = dt.datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone))
    end = dt.datetime.fromtimestamp(begin.timestamp() + days * 24 * HOUR, dt.UTC)
    return intervals(hours, zone, begin, end)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "mon",
            "mon 8:00-18:00",
            "mon 08:00",
            "Mon 08:00-18:00",
            "mon-fri 08:00-18:00,sat 08:00-09:00",
            "xyz 08:00-09:00",
        ),
        *(
            "mon 24:30-25:00",
            "mon 08:60-09:00",
            "mon 08:00-08:00",
            "mon 24:00-08:00",
            "mon 00:00-00:00",
            " mon 08:00-09:00",
        ),
        *(
            "mon-xyz 08:00-09:00",
            "mon 08:00-09:00\n",
            "mon 08:00-09:00, ",
            "\u0660\u0661:00",
            "always",
            "mon  08:00-09:00",
        ),
        ", ".join(f"mon 0{n}:00-0{n}:30" for n in range(10)),
    ],
)
def test_text_that_says_no_windows_is_refused_with_the_mend(text: str) -> None:
    with pytest.raises(BadHours, match=r"write them as|give another end|use 00:00 to 24:00|at most"):
        parse_hours(text)


def test_days_and_hours_are_those_on_the_wall() -> None:
    assert found("mon-fri 08:00-18:00", "2026-11-23 00:00", 7) == [
        (at(f"2026-11-{day} 08:00"), at(f"2026-11-{day} 18:00")) for day in range(23, 28)
    ]
    assert found("", "2026-11-23 00:00", 7) == []
    assert found("mon-sun 00:00-24:00", "2026-11-23 00:00", 7) == [(at("2026-11-23 00:00"), at("2026-11-30 00:00"))]
    assert found("fri-mon 09:00-10:00", "2026-11-23 00:00", 7) == [
        (at(f"2026-11-{day} 09:00"), at(f"2026-11-{day} 10:00")) for day in (23, 27, 28, 29)
    ]


def test_a_window_over_midnight_is_one_and_is_cut_where_the_time_asked_for_is() -> None:
    assert found("sat 22:00-06:00", "2026-11-23 00:00", 7) == [(at("2026-11-28 22:00"), at("2026-11-29 06:00"))]
    assert found("sun 22:00-06:00", "2026-11-23 00:00", 7) == [
        (at("2026-11-23 00:00"), at("2026-11-23 06:00")),
        (at("2026-11-29 22:00"), at("2026-11-30 00:00")),
    ]
    assert found("mon 08:00-12:00, mon 11:00-13:00, mon 13:00-14:00", "2026-11-23 00:00", 1) == [
        (at("2026-11-23 08:00"), at("2026-11-23 14:00"))
    ]


def test_where_the_clock_is_put_forward_the_night_is_an_hour_shorter() -> None:
    (night,) = found("sat 22:00-06:00", "2026-03-28 12:00", 2)
    assert (night[1] - night[0], night) == (7 * HOUR, (at("2026-03-28 22:00"), at("2026-03-29 06:00")))
    leap = at("2026-03-29 03:00")
    assert found("sun 02:30-03:15", "2026-03-29 00:00", 1) == [(leap, leap + 900)]
    assert found("sun 01:30-02:30", "2026-03-29 00:00", 1) == [(leap - 1800, leap)]
    assert found("sun 02:10-02:50", "2026-03-29 00:00", 1) == []
    assert found("mon 08:00-09:00", "2026-03-30 00:00", 1) == [(at("2026-03-30 08:00"), at("2026-03-30 09:00"))]


def test_where_the_clock_is_put_back_the_night_is_an_hour_longer() -> None:
    (night,) = found("sat 22:00-06:00", "2026-10-24 12:00", 2)
    assert (night[1] - night[0], night) == (9 * HOUR, (at("2026-10-24 22:00"), at("2026-10-25 06:00")))
    (twice,) = found("sun 01:00-04:00", "2026-10-25 00:00", 1)
    assert twice[1] - twice[0] == 4 * HOUR


def test_a_peer_is_open_from_the_first_second_to_before_the_last() -> None:
    windows = [[100, 200], [300, 400]]
    moments = (99, 100, 199, 200, 300, 400)
    opens = [is_within(windows, dt.datetime.fromtimestamp(moment, dt.UTC)) for moment in moments]
    assert opens == [False, True, True, False, True, False]
    assert (is_within(None, NOW), is_within([], NOW)) == (True, False)


def test_a_right_without_hours_opens_at_all_times_but_only_to_its_own_end() -> None:
    until = NOW + dt.timedelta(days=1)
    hours = Right(hours="thu-sun 08:00-09:00")
    assert merge_terms([hours, Right()], NOW).windows is None
    assert merge_terms([Right(until=until), Right(hours="mon 08:00-09:00", until=until)], NOW).windows is None
    both = merge_terms([Right(until=until), hours], NOW)
    assert (both.expires_at, both.windows_from) == (None, monday(NOW))
    assert both.windows is not None
    # Thursday's window begins in what is open without hours, and the next one is Friday's.
    assert both.windows[:2] == (
        (MONDAY, int(until.timestamp())),
        (MONDAY + 4 * 24 * HOUR + 8 * HOUR, MONDAY + 4 * 24 * HOUR + 9 * HOUR),
    )


def test_windows_of_several_rights_are_all_open_each_in_its_zone_and_to_its_end() -> None:
    until = NOW + dt.timedelta(days=2)
    one, other = Right(hours="mon-sun 08:00-10:00", until=until), Right(hours="mon-sun 09:00-11:00")
    windows = merge_terms([one, other], NOW).windows
    assert windows is not None
    assert (windows[0], windows[5]) == (
        (MONDAY + 8 * HOUR, MONDAY + 11 * HOUR),
        (MONDAY + (5 * 24 + 9) * HOUR, MONDAY + (5 * 24 + 11) * HOUR),
    )
    assert len(windows) == 21
    assert max(end for _, end in windows) <= MONDAY + WINDOWS_AHEAD.total_seconds()
    berlin = merge_terms([Right(hours="mon 08:00-10:00", zone="Europe/Berlin")], NOW).windows
    assert berlin is not None
    assert berlin[0] == (MONDAY + 7 * HOUR, MONDAY + 9 * HOUR)
