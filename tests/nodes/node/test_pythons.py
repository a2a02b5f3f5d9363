"""The node's own tests again, under each other Python that the machine has: requests, ticks, boots, the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes.node.machine import INSTALLER, SCRIPT
from tests.nodes.node.test_script_rules import PYTHONS

ROOT = Path(__file__).resolve().parents[3]
HERE = "tests/nodes/node/"
# Real and quick: something of every request, of the tick, of boots, of the journal, of install and of the daemon.
SELECTION = [
    "test_every_op.py",
    "test_apply.py::test_a_delta_changes_only_what_differs",
    "test_apply.py::test_the_brake_holds_twelve_of_fifty_until_it_is_approved",
    "test_apply.py::test_networks_beyond_the_interface_get_routes_and_lose_them",
    "test_revoke.py::test_exactly_the_revoked_peer_is_gone",
    "test_tick.py::test_what_was_put_in_by_hand_goes_and_a_tombstoned_key_most_of_all",
    "test_tick.py::test_a_peer_taken_out_by_hand_stays_out_until_the_console_has_read_of_it",
    "test_journal.py::test_a_full_disk_loses_no_entry",
    "test_journal.py::test_a_local_revoke_is_a_revoke_and_is_written_down",
    "test_observe_and_boot.py::test_observe_names_each_kind_of_drift",
    "test_observe_and_boot.py::test_a_boot_takes_out_what_somebody_saved_into_the_conf",
    "test_observe_and_boot.py::test_a_damaged_state_falls_to_the_one_before_minus_tombstones",
    "test_install.py::test_it_opens_an_interface_and_answers_its_public_key",
    "test_daemon.py::test_it_ends_within_a_second_and_says_nothing_about_it",
]


def minor(python: Path) -> str:
    """As 3.9; of the Python that the file really is."""
    done = subprocess.run([str(python), "-V"], capture_output=True, text=True, check=True)
    return done.stdout.removeprefix("Python ").rpartition(".")[0]


OTHERS = {minor(python): python for python in PYTHONS if minor(python) != minor(Path(sys.executable))}


@pytest.mark.parametrize("version", OTHERS)
def test_the_node_does_its_work_under_each_python(version: str) -> None:
    """Of each minor version one; the ordinary suite runs under its own."""
    # No settings, no plugin and no fixture of the Console: it is not what is tested here.
    words = "-q -c /dev/null -p no:django -p no:cacheprovider --import-mode=importlib --confcutdir=tests/nodes/node"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words.split(), f"--rootdir={ROOT}", *(HERE + name for name in SELECTION)],
        cwd=ROOT,
        env={**os.environ, "MUSTER_TEST_PYTHON": str(OTHERS[version]), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(done.stdout.rsplit("\n", 2)[-2].split()[0])
    assert passed >= len(SELECTION)


def test_vermin_finds_nothing_newer_than_3_9(tmp_path: Path) -> None:
    """With a control that it would."""
    newer = tmp_path / "newer.py"
    newer.write_text("match 1:\n    case 1:\n        pass\n")
    vermin = [str(Path(sys.executable).with_name("vermin")), "-t=3.9-", "--no-tips"]
    codes = [
        subprocess.run([*vermin, str(path)], capture_output=True, timeout=60, check=False).returncode
        for path in (SCRIPT, INSTALLER, newer)
    ]
    assert codes == [0, 0, 1]
