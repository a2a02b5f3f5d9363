"""The benchmark of a big fleet, with few people: it still runs on both databases, and every figure is there."""

import argparse

import pytest

from tests.bench import access
from tests.bench.measure import Figures
from tests.databases import DATABASES

TIMED = {"sweep_ms", "desired_ms", "suspend_ms", "join_team_ms", "end_team_grant_s", "add_server_s", "offboard_ms"}
PEOPLE, SERVERS = 40, 20


@pytest.fixture(scope="module")
def figures() -> Figures:
    return {name: value for on in DATABASES for name, value in access.trial(on, PEOPLE, SERVERS, rounds=1).items()}


def test_a_trial_gives_every_figure_of_both_databases(figures: Figures) -> None:
    cold = {"{}_cold_{}".format(*name.rsplit("_", 1)) for name in TIMED}
    names = {"build_s", "peers", *TIMED, *cold}
    assert set(figures) == {f"access_{database}_{name}" for database in DATABASES for name in names}
    assert min(figures.values()) > 0
    assert {figures[f"access_{database}_peers"] for database in DATABASES} == {PEOPLE * SERVERS / 4}


def test_each_target_is_shown_as_met_or_missed(figures: Figures, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {**figures, **dict.fromkeys(access.TARGETS, 0.0), "access_postgresql_suspend_ms": 50.1}
    access.show(figures, argparse.Namespace(people=PEOPLE, fleet=SERVERS, rounds=1))
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  access_")]
    assert {words[0] for words in shown} == set(figures)
    verdicts = {words[0]: words[-1] for words in shown if words[0] in access.TARGETS}
    assert verdicts == {**dict.fromkeys(access.TARGETS, "met"), "access_postgresql_suspend_ms": "MISSED"}
    assert access.missed(figures) == ["access_postgresql_suspend_ms"]
