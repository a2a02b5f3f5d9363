"""The benchmark of one server, with few peers: it still runs, and every figure is there."""

import argparse

import pytest

from tests.bench import one_server
from tests.bench.measure import Figures

FIGURES = {
    *("apply_s", "delta_s", "revoke_s", "revoke_cli_s", "observe_full_s", "observe_delta_s", "load_s"),
    *("tick_cpu_ms", "tick_wireguard_go_ms", "session_peak_mb", "daemon_peak_mb"),
}


@pytest.fixture(scope="module")
def figures() -> Figures:
    return one_server.trial(50, lambda: None, ticks=1)


def test_a_trial_gives_every_figure(figures: Figures) -> None:
    assert set(figures) == {f"one_server_{name}" for name in FIGURES}
    assert set(one_server.TARGETS) < set(figures)
    assert min(value for name, value in figures.items() if "tick" not in name) > 0
    assert figures["one_server_tick_cpu_ms"] < 1000
    assert 5 < figures["one_server_daemon_peak_mb"] < 500


def test_each_target_is_shown_as_met_or_missed(figures: Figures, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {**figures, **dict.fromkeys(one_server.TARGETS, 0.0), "one_server_apply_s": 5.1}
    one_server.show(figures, argparse.Namespace(crowd=50, rounds=1))
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  one_server_")]
    assert {words[0] for words in shown} == set(figures)
    verdicts = {words[0]: words[-1] for words in shown if words[0] in one_server.TARGETS}
    assert verdicts == {**dict.fromkeys(one_server.TARGETS, "met"), "one_server_apply_s": "MISSED"}
    assert one_server.missed(figures) == ["one_server_apply_s"]
