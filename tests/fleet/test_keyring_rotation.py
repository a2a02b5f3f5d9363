"""A keyring gets a new key while everybody works on, and is killed at every step: each row opens at each moment."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction

from audit.models import Event
from audit.services import SYSTEM
from fleet import rotation
from fleet.keyrings import COLUMNS, PRESHARED_KEYS, check_keyring, file_of, names_in_use, sealer
from fleet.models import Environment, RetiredKey, Server
from fleet.rotation import RotationStopped, rotate_keyring
from fleet.sealing import Keyring, SealBroken, open_box
from fleet.whole_files import alone_with
from nodes.desired import desired_state
from nodes.models import BootstrapLogin
from nodes.services import login_place, request_enrolment
from nodes.targets import keep, new_key_for
from peers.models import Peer
from tests.acts import HOST_KEY
from tests.build import make_peers, make_server
from tests.fleet.cut_short import LASTED, in_fork
from tests.nodes.lab.parts import console_environment

ROOT = Path(__file__).resolve().parents[2]
STEPS_ARE_IN = ("fleet/rotation.py", "fleet/whole_files.py")


def rotate(keyring: str = "peers", **options: Any) -> None:
    rotate_keyring(actor=SYSTEM, keyring=keyring, say=lambda line: None, **options)


def secrets(keyring: str) -> dict[str, str]:
    """What each sealed row holds, opened with the keyring's file as it stands."""
    found = Keyring.read(file_of(keyring))
    columns = [column for column in COLUMNS if column.keyring == keyring]
    rows = [(column, *row) for column in columns for row in column.rows.values_list("pk", column.name)]
    return {f"{column} {pk}": found.open(sealed, column.place(pk)) for column, pk, sealed in rows}


def key_names(keyring: str = "peers") -> list[str]:
    return list(Keyring.read(file_of(keyring)).keys)


def rotations() -> list[dict[str, list[str]]]:
    return [event.changes for event in Event.objects.filter(verb="keyring.rotate").order_by("pk")]


@pytest.fixture
def server(own_keyrings: Path, staging: Environment) -> Server:
    """With four peers and a key of the Console's."""
    row = make_server(staging)
    make_peers(staging, 4)
    keep(new_key_for(row), server=row)
    row.refresh_from_db()
    return row


@pytest.mark.django_db
@pytest.mark.parametrize(("keyring", "rows"), [("peers", 4), ("nodes", 1)])
def test_after_a_rotation_everything_is_sealed_with_the_new_key_alone(server: Server, keyring: str, rows: int) -> None:
    """C7: and nothing else has changed: not what is desired, not a generation, not the rights of the file."""
    path = file_of(keyring)
    path.chmod(0o640)
    os.chown(path, 12345, 23456)
    before, [old] = secrets(keyring), key_names(keyring)
    desired, box = desired_state(server.pk), Keyring.read(path).box
    rotate(keyring)
    [new] = key_names(keyring)
    assert new != old
    assert secrets(keyring) == before
    assert (desired_state(server.pk), Keyring.read(path).box) == (desired, box)
    assert rotations() == [{"key": [old, new], "rows": ["", str(rows)]}]
    event = Event.objects.get(verb="keyring.rotate")
    assert (event.target_label, event.actor_label) == (f"keyring {keyring}", "Console")
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 12345, 23456)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["nodes", "nodes.pub", "peers"]
    assert json.loads(path.read_text())["keys"][new] not in json.dumps(rotations())


@pytest.mark.django_db
def test_a_login_that_waits_for_the_workers_opens_after_a_rotation(server: Server) -> None:
    asked = request_enrolment(actor=SYSTEM, server=server, host_key=HOST_KEY, user="root", password="a word")
    rotate("nodes")
    boxed = BootstrapLogin.objects.get().boxed
    assert json.loads(open_box(boxed, login_place(asked), file_of("nodes")))["password"] == "a word"


@pytest.mark.django_db
def test_each_step_alone_can_be_done_twice_and_none_is_left_out(server: Server, staging: Environment) -> None:
    """C7: so that the file can be copied to other machines after each."""
    before, [old] = secrets("peers"), key_names()
    for step in ("seal", "drop"):
        with pytest.raises(RotationStopped, match="begin with --step add"):
            rotate(step=step)
    rotate(step="add")
    rotate(step="add")
    assert key_names()[0] == old
    [_, new] = key_names()
    make_peers(staging, 1)
    assert names_in_use(PRESHARED_KEYS) == {old: 5}
    with pytest.raises(RotationStopped, match="the new key does not seal yet"):
        rotate(step="drop")
    rotate(step="seal")
    rotate(step="seal")
    assert key_names() == [new, old]
    make_peers(staging, 1)
    assert names_in_use(PRESHARED_KEYS) == {old: 5, new: 1}
    assert (rotations(), RetiredKey.objects.count()) == ([], 0)
    rotate(step="drop")
    assert (key_names(), names_in_use(PRESHARED_KEYS)) == ([new], {new: 6})
    assert before.items() <= secrets("peers").items()
    assert len(rotations()) == 1


@pytest.mark.django_db
def test_a_key_that_was_put_in_by_hand_goes_out_with_the_others(server: Server) -> None:
    path, before = file_of("peers"), secrets("peers")
    path.write_text(Keyring({"k1": b"1" * 32, **Keyring.read(path).keys}).text())
    names = key_names()
    rotate()
    assert len(key_names()) == 1
    assert secrets("peers") == before
    assert set(RetiredKey.objects.values_list("name", flat=True)) == set(names)


@pytest.mark.django_db
def test_a_row_that_no_key_opens_keeps_the_old_keys_until_it_is_given_up(server: Server) -> None:
    """C9: what is lost is lost with an Event, and a push that needs it stops on."""
    broken, other = Peer.objects.order_by("pk")[:2]
    Peer.objects.filter(pk=broken.pk).update(preshared_key=other.preshared_key)
    with pytest.raises(RotationStopped) as stopped:
        rotate()
    assert f"no key opens peers_peer.preshared_key of {broken.pk}, so the old keys stay" in str(stopped.value)
    assert (len(key_names()), rotations()) == (2, [])
    rotate(clears_broken=True)
    assert (len(key_names()), len(rotations())) == (1, 1)
    event = Event.objects.get(verb="keyring.clear")
    assert (event.object_pk, event.changes) == (str(broken.pk), {"preshared_key": ["sealed", "lost"]})
    with pytest.raises(SealBroken, match="not sealed at all"):
        desired_state(server.pk)
    rotate()
    assert len(rotations()) == 2


@pytest.mark.django_db
def test_rows_of_a_keyring_that_was_rotated_elsewhere_stop_it(server: Server) -> None:
    """Another machine's copy has made a key of its own: this one would take away what nobody else has."""
    rotate(step="add")
    rotate(step="seal")
    stranger = Keyring({"k9": b"9" * 32})
    peer = Peer.objects.all()[0]
    sealed = stranger.seal("other", PRESHARED_KEYS.place(peer.pk))
    Peer.objects.filter(pk=peer.pk).update(preshared_key=sealed)
    names = key_names()
    with pytest.raises(SealBroken, match="lacks the key k9, which 1 rows of"):
        rotate()
    with pytest.raises(rotation.StillNeeded, match=r"peers_peer\.preshared_key: 4 rows to go"):
        rotation.retire_keys(actor=SYSTEM, keyring="peers", old=(names[1],), new=names[0])
    assert (key_names(), RetiredKey.objects.count()) == (names, 0)


@pytest.mark.django_db
def test_a_row_that_changed_meanwhile_is_left_as_it_is(server: Server) -> None:
    """C7: it is seen again in the next round; its neighbour is sealed anew."""
    one, two = Peer.objects.order_by("pk")[:2]
    fresh: list[tuple[object, str, str]] = [
        (one.pk, "what was there before", "new one"),
        (two.pk, two.preshared_key, "new two"),
    ]
    assert rotation._swap(PRESHARED_KEYS, fresh) == 1
    assert [PRESHARED_KEYS.text_of(peer.pk) for peer in (one, two)] == [one.preshared_key, "new two"]


@pytest.mark.django_db
def test_two_rotations_at_once_are_refused_and_one_goes_on(server: Server) -> None:
    with alone_with(file_of("peers")), pytest.raises(CommandError, match="is being rotated just now"):
        call_command("rotate_keyring", "peers")
    call_command("rotate_keyring", "peers")
    assert len(rotations()) == 1


@pytest.mark.django_db
def test_a_folder_that_takes_no_file_is_told_and_nothing_is_half_done(server: Server, own_keyrings: Path) -> None:
    (own_keyrings / ".peers.new").mkdir()
    names = key_names()
    with pytest.raises(CommandError, match=r"run it again once that is mended"):
        call_command("rotate_keyring", "peers")
    assert key_names() == names
    (own_keyrings / ".peers.new").rmdir()
    call_command("rotate_keyring", "peers")
    assert len(rotations()) == 1


@pytest.mark.django_db(transaction=True)
def test_a_writer_under_way_keeps_the_key_it_seals_with(server: Server) -> None:
    """C7: on PostgreSQL a transaction that has sealed a row and not committed; SQLite has no second writer."""
    old = key_names()[0]
    rotate(step="add")
    sealed, may_commit, ended = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                text = sealer(PRESHARED_KEYS).seal("late", peer.pk)
                sealed.set()
                may_commit.wait(30)
                Peer.objects.filter(pk=peer.pk).update(preshared_key=text)
        finally:
            connections.close_all()
            ended.set()

    peer = Peer.objects.all()[0]
    writer = threading.Thread(target=write)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "still open" in line or connection.vendor == "sqlite":
            may_commit.set()

    writer.start()
    assert sealed.wait(10)
    if connection.vendor == "sqlite":
        may_commit.set()
    rotate_keyring(actor=SYSTEM, keyring="peers", say=say)
    writer.join(30)
    assert ended.is_set()
    assert secrets("peers")[f"peers_peer.preshared_key {peer.pk}"] == "late"
    assert old not in key_names()
    assert ("keyring peers: a transaction that seals rows is still open" in said) == (connection.vendor != "sqlite")


@pytest.mark.django_db(transaction=True)
def test_killed_at_each_step_every_row_opens_and_a_second_run_ends_it(server: Server) -> None:
    """C7: between the calls and returns of what a rotation does, by SIGKILL; each rotation is recorded once."""
    before, generation = secrets("peers"), server.generation
    kills, over, first = 0, 0, random.randint(1, 5)  # noqa: S311
    while in_fork(rotate, at=kills * 5 + first, of=STEPS_ARE_IN) == -signal.SIGKILL:
        kills += 1
        assert secrets("peers") == before
        check_keyring("peers")
        over += len(rotations()) == kills + over and not Keyring.read(file_of("peers")).retiring
        assert in_fork(rotate) == LASTED
        assert len(key_names()) == 1
        assert secrets("peers") == before
        assert len(rotations()) == kills + over
    assert kills > 30
    assert over < 10  # killed when all was done but the return
    server.refresh_from_db()
    assert server.generation == generation


@contextmanager
def working(what: str, *servers: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that writes or reads all the time: at least once before the block, and again inside it."""
    command = [sys.executable, "-m", "tests.fleet.keyring_load", what, *map(str, servers)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=console_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        assert int(process.stdout.readline()) > 1
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@pytest.mark.django_db(transaction=True)
def test_under_load_and_killed_ten_times_no_row_is_lost(server: Server, staging: Environment) -> None:
    """C7: writers and readers in processes of their own, on their own connections, do not notice."""
    other = make_server(staging)
    began = time.monotonic()
    assert in_fork(rotate) == LASTED
    length = time.monotonic() - began
    before, killed = secrets("peers"), 0
    with ExitStack() as stack:
        for what in ("write", "write", "read"):
            stack.enter_context(working(what, server.pk, other.pk))
        while killed < 10:
            end = in_fork(rotate, after=random.uniform(0.001, length))  # noqa: S311
            assert end in {LASTED, -signal.SIGKILL}
            killed += end == -signal.SIGKILL
            assert before.items() <= secrets("peers").items()
        command = [sys.executable, "manage.py", "rotate_keyring", "peers"]
        done = subprocess.run(command, cwd=ROOT, env=console_environment(), check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert len(key_names()) == 1
    after = secrets("peers")
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert set(names_in_use(PRESHARED_KEYS)) == set(key_names())
    assert [changes["key"][1] for changes in rotations()][-1:] == key_names()
