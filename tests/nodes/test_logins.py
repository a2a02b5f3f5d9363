"""The one-time login: boxed for the workers, gone when used or after ten minutes, and nowhere else."""

import datetime as dt
import json
import logging

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Server
from fleet.sealing import open_box
from nodes.chores import ENROLMENT_LIFE, LOGIN_LIFE, forget
from nodes.enrol import run_enrolment
from nodes.models import BootstrapLogin, Enrolment
from nodes.pool import SessionPool
from nodes.services import login_place, request_enrolment
from tests.acts import HOST_KEY
from tests.build import make_server
from tests.worlds import everything

pytestmark = pytest.mark.django_db
CANARY = "canary-password-6f1d"
GONE = "The login was kept for ten minutes and is gone: ask for the enrolment again."


def ask(server: Server, **values: str) -> Enrolment:
    fields = {"host_key": HOST_KEY, "user": "root", "password": CANARY, **values}
    return request_enrolment(actor=SYSTEM, server=server, **fields)


def unreachable(staging: Environment) -> Server:
    """On this machine, at a port where nothing listens."""
    return make_server(staging, is_set_up=False, host="127.0.0.1", ssh_port=9)


def test_a_login_is_readable_for_workers_alone_and_in_no_row(
    staging: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """C1"""
    caplog.set_level(logging.DEBUG)
    enrolment = ask(unreachable(staging))
    row = BootstrapLogin.objects.get()
    opened = json.loads(open_box(row.boxed, login_place(enrolment), settings.KEYRING_NODES))
    assert opened == {"user": "root", "password": CANARY, "private_key": None}
    run_enrolment(str(enrolment.pk), SessionPool())
    text = str(everything()) + caplog.text + str(connection.queries_log) + repr(row)
    assert [part for part in (CANARY, CANARY[:10], CANARY[10:]) if part in text] == []


def test_a_login_is_gone_once_it_was_used(staging: Environment) -> None:
    enrolment = ask(unreachable(staging))
    for _ in range(2):
        run_enrolment(str(enrolment.pk), SessionPool())
    enrolment.refresh_from_db()
    assert enrolment.state == Enrolment.State.FAILED
    assert enrolment.error.startswith("127.0.0.1 port 9: nothing listens there; see that sshd runs")
    assert not BootstrapLogin.objects.exists()
    assert list(Event.objects.filter(verb="server.enrol_failed").values_list("reason", flat=True)) == [enrolment.error]


def test_a_login_is_gone_after_ten_minutes(staging: Environment) -> None:
    server = unreachable(staging)
    enrolment = ask(server)
    forget()
    assert BootstrapLogin.objects.count() == 1
    BootstrapLogin.objects.update(created_at=timezone.now() - LOGIN_LIFE)
    forget()
    assert (BootstrapLogin.objects.count(), dt.timedelta(minutes=10)) == (0, LOGIN_LIFE)
    run_enrolment(str(enrolment.pk), SessionPool())
    enrolment.refresh_from_db()
    assert (enrolment.state, enrolment.error) == (Enrolment.State.FAILED, GONE)
    assert ask(server).state == Enrolment.State.WAITING


def test_an_enrolment_whose_worker_died_ends_and_may_be_asked_for_again(staging: Environment) -> None:
    server = unreachable(staging)
    enrolment = ask(server)
    Enrolment.objects.update(state=Enrolment.State.RUNNING)
    with pytest.raises(ValidationError) as refusal:
        ask(server)
    assert refusal.value.message_dict == {"server": [f"{server} is being enrolled just now: wait for that to end."]}
    Enrolment.objects.update(created_at=timezone.now() - ENROLMENT_LIFE)
    forget()
    enrolment.refresh_from_db()
    assert (enrolment.state, enrolment.error) == (Enrolment.State.FAILED, "The worker ended midway: enrol again.")
    assert Event.objects.filter(verb="server.enrol_failed").count() == 1
    ask(server)


def test_the_line_that_ssh_keygen_prints_is_taken_for_its_fingerprint(staging: Environment) -> None:
    fingerprint = "SHA256:" + "A" * 43
    enrolment = ask(unreachable(staging), host_key=f"256 {fingerprint} root@vpn-ams (ED25519)")
    assert enrolment.confirmed_host_key == fingerprint


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"host_key": ""}, "host_key"),
        ({"host_key": "ssh-ed25519 AAAA"}, "host_key"),
        ({"host_key": "SHA256:short"}, "host_key"),
        ({"host_key": "256 SHA256:short root@vpn-ams (ED25519)"}, "host_key"),
        ({"host_key": HOST_KEY + "\n"}, "host_key"),
        ({"host_key": HOST_KEY.replace("ed25519", "rsa")}, "host_key"),
        ({"user": ""}, "user"),
        ({"user": "root; id"}, "user"),
        ({"user": "ro\not"}, "user"),
        ({"password": ""}, "password"),
        ({"private_key": "both"}, "password"),
    ],
)
def test_a_request_with_a_wrong_field_names_it_and_keeps_nothing(
    staging: Environment, values: dict[str, str], field: str
) -> None:
    server = unreachable(staging)
    before = everything()
    with pytest.raises(ValidationError) as refusal:
        ask(server, **values)
    assert list(refusal.value.message_dict) == [field]
    assert everything() == before
    ask(server)
