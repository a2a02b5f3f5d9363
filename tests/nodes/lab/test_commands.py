"""manage.py enrol_server and reconcile, with good and with bad input."""

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from audit.models import Event
from fleet.models import Environment, Server
from nodes.models import Enrolment
from tests.build import make_device, make_grant, make_person, make_server
from tests.fleet_in_lab import console
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled, held_keys

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def said(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_enrol_server_enrols_with_a_key_file(lab: Lab, staging: Environment) -> None:
    machine = lab.add_server()
    row = make_server(staging, "vpn", is_set_up=False, host=machine.address, endpoint_host=machine.address)
    text = said("enrol_server", "vpn", "--host-key", machine.host_key_fingerprint, "--key", str(lab.ssh_key))
    row.refresh_from_db()
    progress = Enrolment.objects.get().progress
    assert text == (
        f"{progress}vpn is enrolled. Its public key is {row.public_key}, its endpoint {machine.address}:51820 (UDP).\n"
    )
    assert progress.startswith(f"connecting to {machine.address} port 22\n")
    event = Event.objects.get(verb="server.enrol")
    assert (event.origin, event.origin_detail, event.actor_label) == ("command", "enrol_server", "Console")


def test_enrol_server_reads_a_password_from_standard_input(
    lab: Lab, staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = lab.add_server()
    machine.set_password("root", "over the pipe")
    row = make_server(staging, "vpn", is_set_up=False, host=machine.address)
    monkeypatch.setattr("sys.stdin", io.StringIO("over the pipe\n"))
    said("enrol_server", "vpn", "--host-key", machine.host_key)
    row.refresh_from_db()
    assert row.host_key == machine.host_key


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nobody", "--host-key", "x", "--key", "KEY"], "No server is called nobody: add it first."),
        (
            ["vpn", "--host-key", "ssh-ed25519 nonsense", "--key", "KEY"],
            "The host key is damaged: its type and its content differ. Copy the whole line.",
        ),
        (
            ["vpn", "--host-key", "MD5:aa:bb", "--key", "KEY"],
            "Give the key (ssh-ed25519 AAAA...) or its fingerprint (SHA256:...) as read on the machine.",
        ),
        (
            ["vpn", "--host-key", "HOST", "--key", "/nowhere"],
            "/nowhere cannot be read: give the file of an unencrypted private key.",
        ),
        (
            ["vpn", "--host-key", "HOST", "--key", "KEY", "--user", ""],
            "Give the name of a login on the machine, such as root.",
        ),
        (
            ["vpn", "--host-key", "HOST", "--key", "BAD"],
            "ADDRESS port 22: login as root was refused; see its authorized_keys and the user's name "
            "(the private key cannot be read: give an unencrypted OpenSSH key)",
        ),
    ],
)
def test_enrol_server_says_what_is_wrong(
    lab: Lab, staging: Environment, tmp_path: Path, words: list[str], error: str
) -> None:
    machine = lab.add_server()
    make_server(staging, "vpn", is_set_up=False, host=machine.address)
    (tmp_path / "bad").write_text("no key")
    names = {"KEY": str(lab.ssh_key), "HOST": machine.host_key, "BAD": str(tmp_path / "bad")}
    with pytest.raises(CommandError) as refusal:
        said("enrol_server", *[names.get(word, word) for word in words])
    assert str(refusal.value) == error.replace("ADDRESS", machine.address)
    assert Server.objects.get(name="vpn").enrolled_at is None


def test_reconcile_brings_the_named_servers_to_what_is_desired(lab: Lab, staging: Environment) -> None:
    first, second = lab.add_servers(2)
    with console(lab) as muster:
        rows = [enrolled(muster, machine, staging, number) for number, machine in enumerate((first, second), 1)]
    person = make_person()
    make_grant(person, staging)
    device = make_device(person)
    assert said("reconcile", rows[0].name) == f"{rows[0].name}: applied added 1, removed 0, updated 0\n"
    assert (held_keys(first), held_keys(second)) == ({device.public_key}, set())
    assert said("reconcile").splitlines() == [
        f"{rows[0].name}: already added 0, removed 0, updated 0",
        f"{rows[1].name}: applied added 1, removed 0, updated 0",
    ]
    with pytest.raises(CommandError) as refusal:
        said("reconcile", "nobody", rows[0].name)
    assert str(refusal.value) == "No enrolled server is called nobody."
    second.partition("reject")
    with pytest.raises(CommandError) as refusal:
        said("reconcile")
    assert str(refusal.value) == "1 server(s) were not reconciled; see above."
