"""Mail before access ends, through real SMTP servers: one to each person, and never a second one."""

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
from django.conf import settings as real_settings
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from audit.models import Event
from audit.services import SYSTEM
from fleet import post
from fleet.models import Environment
from peers import expiry
from peers.expiry import mail_warnings, warn_of_ends, warnings_to_mail
from peers.models import Device, ExpiryWarning, Grant, Peer, Person
from peers.prolonging import prolong_grants
from tests.build import make_device, make_grant, make_person, make_server
from tests.lab.waiting import wait_for
from tests.postbox import MailServer, drip, line_server, mail_server, point_mail_to, say_nothing
from tests.running import ROOT

pytestmark = pytest.mark.django_db
DAY = dt.timedelta(days=1)
KEPT = "not mailed yet"


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    with mail_server() as found:
        point_mail_to(settings, found.port)
        yield found


def person_with(environment: Environment, email: str, *, days: int = 3) -> Person:
    person = make_person(email.split("@")[0].capitalize())
    Person.objects.filter(pk=person.pk).update(email=email)
    make_grant(person, environment, days=days)
    make_device(person)
    return person


def run() -> int:
    warn_of_ends()
    return mail_warnings()


def later(minutes: float) -> None:
    """As if that time had passed for what waits."""
    for row in ExpiryWarning.objects.exclude(next_try_at=None):
        assert row.next_try_at is not None
        ExpiryWarning.objects.filter(pk=row.pk).update(next_try_at=row.next_try_at - dt.timedelta(minutes=minutes))


def told() -> list[str]:
    return [warning.told for warning in ExpiryWarning.objects.order_by("pk")]


def test_a_person_gets_one_mail_of_all_that_ends(staging: Environment, server: MailServer) -> None:
    Environment.objects.update(time_zone="Europe/Berlin")
    make_server(staging, "vpn-fra"), make_server(staging, "vpn-sgp")
    carol = person_with(staging, "carol@example.com")
    end = dt.datetime(2030, 12, 3, 17, 0, tzinfo=dt.UTC)
    Grant.objects.update(until=end)
    Peer.objects.update(expires_at=end)
    Environment.objects.update(warn_before=end - timezone.now() + DAY)
    assert (run(), run()) == (1, 0)
    (addresses, message) = server.box.taken[0]
    assert (addresses, message["To"], message["From"]) == (
        ["carol@example.com"],
        "carol@example.com",
        "muster@example.com",
    )
    assert message["Subject"] == "Your VPN access ends soon"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    for name in ("vpn-fra", "vpn-sgp"):
        assert f"- {name} (staging), with laptop: until 2030-12-03 18:00 Europe/Berlin (17:00 UTC)\n" in text
    assert "ask for a renewal" in text
    assert "https://muster.example.com\n" in text
    assert told() == ["mailed to carol@example.com"] * 2
    event = Event.objects.get(verb="expiry.mail")
    assert (event.target_label, event.object_pk, event.environment_label) == ("Carol", str(carol.pk), "staging")


def test_a_mail_names_nobody_else_and_holds_no_key(staging: Environment, server: MailServer) -> None:
    make_server(staging)
    person_with(staging, "ann@example.com"), person_with(staging, "ben@example.com")
    assert run() == 2
    assert server.box.addresses == ["ann@example.com", "ben@example.com"]
    for addresses, message in server.box.taken:
        own, other = ("ann", "ben") if addresses == ["ann@example.com"] else ("ben", "ann")
        text = message.as_string().lower()
        assert own in text
        assert other not in text
        assert not [key for key in Device.objects.values_list("public_key", flat=True) if key.lower() in text]
        assert not [psk for psk in Peer.objects.values_list("preshared_key", flat=True) if psk.lower() in text]


def test_a_person_without_an_address_is_told_by_the_pages_alone(staging: Environment, server: MailServer) -> None:
    make_server(staging)
    quiet = person_with(staging, "dora@example.com")
    Person.objects.filter(pk=quiet.pk).update(email="")
    person_with(staging, "ann@example.com")
    assert run() == 1
    assert server.box.addresses == ["ann@example.com"]
    assert told() == [KEPT, "mailed to ann@example.com"]


def test_without_a_mail_server_pages_say_it_all(staging: Environment) -> None:
    make_server(staging)
    person_with(staging, "ann@example.com")
    assert real_settings.EMAIL_HOST == ""
    assert run() == 0
    assert told() == [KEPT]


def test_a_refused_mail_is_tried_again_ever_more_rarely(staging: Environment, server: MailServer) -> None:
    make_server(staging)
    person_with(staging, "ann@example.com"), person_with(staging, "ben@example.com")
    server.box.refuses["ann@example.com"] = "451 later, password hunter2"
    assert run() == 1
    assert server.box.addresses == ["ben@example.com"]
    row = ExpiryWarning.objects.get(mailed_at=None)
    assert row.told == "The mail server refused the address (451)."
    waits = []
    for _ in range(12):
        later(6 * 60)
        begun = timezone.now()
        assert run() == 0
        row.refresh_from_db()
        assert row.next_try_at is not None
        waits.append(round((row.next_try_at - begun).total_seconds() / 60))
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360, 360]
    server.box.refuses.clear()
    assert run() == 0
    later(6 * 60)
    assert (run(), run()) == (1, 0)
    assert server.box.addresses == ["ann@example.com", "ben@example.com"]


def test_content_that_was_refused_is_tried_again(staging: Environment, server: MailServer) -> None:
    make_server(staging)
    person_with(staging, "ann@example.com")
    server.box.refuses_content = "554 no"
    assert run() == 0
    assert told() == ["The mail server refused (554)."]
    server.box.refuses_content = ""
    later(1)
    assert run() == 1


def test_a_mail_server_that_is_down_loses_nothing(staging: Environment, settings: Settings) -> None:
    make_server(staging)
    person_with(staging, "ann@example.com"), person_with(staging, "ben@example.com")
    with mail_server() as gone:
        point_mail_to(settings, gone.port)
    assert run() == 0
    assert told() == ["No mail could be sent (ConnectionRefusedError)."] * 2
    with mail_server() as server:
        point_mail_to(settings, server.port)
        assert run() == 0
        later(1)
        assert run() == 2
        assert server.box.addresses == ["ann@example.com", "ben@example.com"]


def test_what_was_renewed_meanwhile_is_not_mailed(staging: Environment, server: MailServer) -> None:
    make_server(staging)
    ann = person_with(staging, "ann@example.com")
    person_with(staging, "ben@example.com")
    warn_of_ends()
    make_grant(ann, staging, days=90)
    assert mail_warnings() == 1
    assert server.box.addresses == ["ben@example.com"]


def test_an_answer_that_never_came_is_no_reason_to_mail_again(
    staging: Environment, server: MailServer, settings: Settings
) -> None:
    """Taken or not, nobody knows: rather lost than twice, and the page says so."""
    settings.EMAIL_TIMEOUT = 0.3
    make_server(staging)
    person_with(staging, "ann@example.com")
    server.box.may_answer.clear()
    assert run() == 0
    assert server.box.addresses == ["ann@example.com"]
    server.box.may_answer.set()
    later(6 * 60)
    assert run() == 0
    assert server.box.addresses == ["ann@example.com"]
    assert told() == ["The line broke while it was mailed: nobody knows whether it arrived."]


def database_url() -> str:
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    return f"postgresql://{found['USER']}:{found['PASSWORD']}@/{found['NAME']}?host={found['HOST']}"


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_before_it_wrote_down_the_answer_mails_nobody_twice(
    staging: Environment, server: MailServer, settings: Settings
) -> None:
    """Killed with SIGKILL between the server's taking and the row: it errs to lost, never to twice."""
    make_server(staging)
    person_with(staging, "ann@example.com")
    warn_of_ends()
    server.box.may_answer.clear()
    told_by_environment = {
        "MUSTER_DATABASE": database_url(),
        "MUSTER_SMTP": f"smtp://127.0.0.1:{server.port}",
        "MUSTER_MAIL_FROM": "muster@example.com",
        "MUSTER_DATA": str(real_settings.DATA_DIR),
    }
    work = "from peers.expiry import mail_warnings; mail_warnings()"
    command = [sys.executable, "manage.py", "shell", "-c", work]
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **told_by_environment})
    wait_for(lambda: server.box.taken, 30, "the mail")
    worker.send_signal(signal.SIGKILL)
    assert worker.wait(10) == -signal.SIGKILL
    server.box.may_answer.set()
    assert not warnings_to_mail(timezone.now() + 100 * DAY).exists()
    person_with(staging, "ben@example.com")
    assert run() == 1
    assert server.box.addresses == ["ann@example.com", "ben@example.com"]
    assert told() == [
        "perhaps mailed to ann@example.com: the worker ended meanwhile",
        "mailed to ben@example.com",
    ]


def test_names_forge_no_header_and_no_template(staging: Environment, server: MailServer) -> None:
    """A15: rows that no form lets in, as another program or an import may write them."""
    make_server(staging)
    person = person_with(staging, "ann@example.com")
    wild = "x\r\nBcc: eve@example.com\r\n\r\n{{ url }}{% debug %}<b>\x1b\u2028."
    Person.objects.filter(pk=person.pk).update(name=wild)
    Device.objects.update(name=wild)
    assert run() == 1
    assert server.box.addresses == ["ann@example.com"]
    message = server.box.taken[0][1]
    assert message["Bcc"] is None
    inert = "x Bcc: eve@example.com {{ url }}{% debug %}<b> ."
    assert message.get_content().splitlines()[0] == f"Hello {inert},"
    assert f"with {inert}: until" in message.get_content()


def test_an_address_that_is_none_holds_up_nobody_else(staging: Environment, server: MailServer) -> None:
    """A15."""
    make_server(staging)
    wild = person_with(staging, "ann@example.com")
    Person.objects.filter(pk=wild.pk).update(email="ann@example.com\r\nBcc: eve@example.com")
    person_with(staging, "ben@example.com")
    assert run() == 1
    assert server.box.addresses == ["ben@example.com"]
    assert sorted(told()) == ["No mail could be sent (ValueError).", "mailed to ben@example.com"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_mail_that_cannot_be_written_is_not_claimed_and_holds_up_nobody_else(
    is_first: bool, staging: Environment, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes out once it can be: nothing is lost between the claim and the text."""
    make_server(staging)
    first, second = person_with(staging, "ann@example.com"), person_with(staging, "ben@example.com")
    broken, other = (first, "ben@example.com") if is_first else (second, "ann@example.com")
    write = expiry.body_of

    def write_some(person: Person, warnings: Sequence[ExpiryWarning]) -> str:
        if person == broken:
            raise LookupError("no such template")
        return write(person, warnings)

    monkeypatch.setattr(expiry, "body_of", write_some)
    with pytest.raises(LookupError, match="no such template"):
        run()
    assert server.box.addresses == [other]
    waiting = ExpiryWarning.objects.get(mailed_at=None)
    assert (waiting.told, waiting.mailed_to) == ("No mail could be sent (LookupError).", "")
    monkeypatch.setattr(expiry, "body_of", write)
    later(1)
    assert (run(), run()) == (1, 0)
    assert server.box.addresses == ["ann@example.com", "ben@example.com"]


def test_who_is_given_another_end_is_mailed_of_that_one_once(staging: Environment, server: MailServer) -> None:
    """Whether the old one was mailed or not."""
    make_server(staging)
    _, ben = person_with(staging, "ann@example.com"), person_with(staging, "ben@example.com")
    warn_of_ends()
    Person.objects.filter(pk=ben.pk).update(email="")
    assert mail_warnings() == 1
    Person.objects.filter(pk=ben.pk).update(email="ben@example.com")
    later_end = timezone.now() + 30 * DAY
    prolong_grants(actor=SYSTEM, grants=list(Grant.objects.all()), until=later_end, reason="longer")
    assert run() == 0
    sooner = timezone.now() + 2 * DAY
    prolong_grants(actor=SYSTEM, grants=list(Grant.objects.filter(ended_at=None)), until=sooner, reason="shorter")
    assert (run(), run()) == (2, 0)
    assert server.box.addresses == ["ann@example.com", "ann@example.com", "ben@example.com"]
    assert f"{sooner:%Y-%m-%d %H:%M} UTC" in server.box.texts[-1]


def test_a_silent_mail_server_is_given_up_and_claims_nothing(staging: Environment, settings: Settings) -> None:
    settings.EMAIL_TIMEOUT = 0.2
    make_server(staging)
    person_with(staging, "ann@example.com")
    with line_server(say_nothing) as port:
        point_mail_to(settings, port)
        assert run() == 0
    assert ExpiryWarning.objects.get().next_try_at is not None
    assert told()[0].startswith("No mail could be sent")


def test_a_mail_server_that_never_ends_its_sentence_is_cut_off(
    staging: Environment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte is in time, the answer never is."""
    monkeypatch.setattr(post, "LIMIT", 0.5)
    make_server(staging)
    person_with(staging, "ann@example.com")
    with line_server(drip) as port:
        point_mail_to(settings, port)
        assert run() == 0
    assert ExpiryWarning.objects.get().next_try_at is not None


def test_two_workers_at_once_mail_each_person_once(staging: Environment, server: MailServer) -> None:
    """The second one finds nothing that the first has claimed."""
    make_server(staging)
    person_with(staging, "ann@example.com")
    warn_of_ends()
    waiting = ExpiryWarning.objects.get()
    ExpiryWarning.objects.update(next_try_at=None)
    assert mail_warnings() == 0
    ExpiryWarning.objects.update(next_try_at=waiting.next_try_at)
    assert mail_warnings() == 1
    assert server.box.addresses == ["ann@example.com"]
