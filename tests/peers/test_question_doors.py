"""The doors of the four questions: who is told what, what is refused, and what a page and a spreadsheet get."""

import csv
import io

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from audit.services import SYSTEM
from fleet.models import Environment, User
from peers.models import Device, Peer
from peers.suspending import suspend
from tests.build import make_device, make_grant, make_peers, make_person, make_server, new_public_key
from tests.doors import browser, rows, script
from tests.peers.asking import QUESTIONS, words

FORMULAS = ["=1+1", "+cmd", "-1", "@x", " =1+1", "\uff1d1"]
SCRIPT = "<script>alert(1)</script>{{7*7}}{% debug %}"
BAD = {
    "access": [
        *(("at", text) for text in ("yesterday", "2026-13-01", "2999-01-01", "0001-01-01T00:00%2B14:00")),
        *(("person", "x"), ("server", "999"), ("team", "-1"), ("environment", "1e9"), ("nonsense", "1")),
        *(("limit", "1001"), ("limit", "0"), ("offset", "-1"), ("table", "x")),
    ],
    "person": [("person", ""), ("person", "999999")],
    "reach": [("network", text) for text in ("", "10.0.0.300", "10.0.0.0/40", "host.example.com")],
    "traces": [("what", text) for text in ("", "a", "&kind=key", "abc&kind=key", "abc&kind=address", "a&kind=name")],
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_bad_input_is_named(question: str, alice: User, staging: Environment) -> None:
    caller = script(alice)
    for field, text in BAD[question]:
        more = "&kind=name" if question == "traces" and "kind" not in text else ""
        for door in ("", "/csv"):
            code, body = caller.get(f"questions/{question}{door}?{field}={text}{more}")
            assert (code, list(body)) == (400, [field]), (text, body)
    assert list(caller.get("questions/traces?kind=smell&what=abc")[1]) == ["kind"]
    assert caller.get(f"questions/{question}?{words(question, make_person(), new_public_key())}")[0] == 200


def test_a_time_without_a_zone_is_the_console_s_own(alice: User) -> None:
    """A plus that nobody encoded comes as a space."""
    caller = script(alice)
    for text in ("2020-01-01T12:00:00%2B09:00", "2020-01-01T12:00:00+09:00", "2020-01-01 03:00"):
        assert caller.get(f"questions/access?at={text}")[1]["at"] == "2020-01-01T03:00:00Z"


def test_another_s_environment_is_as_if_it_were_absent(
    alice: User, bob: User, staging: Environment, production: Environment
) -> None:
    """B3: in rows, totals, CSV and pages, and by an id as by one that does not exist."""
    hidden = make_server(production, "vpn-hidden", ipv4_pool="10.99.0.0/16")
    key, ann = new_public_key(), make_person("Ann")
    make_server(staging, "vpn-seen")
    make_grant(ann, production)
    make_device(ann, public_key=key)
    suspend(actor=SYSTEM, targets=[Peer.objects.get()], reason="hush")
    own, every, page = script(bob), script(alice), browser(bob)
    more = ["traces?kind=address&what=10.99.0.0/24", "traces?kind=name&what=vpn-", "reach?network=10.99.0.0/24"]
    for asked in (*(f"{question}?{words(question, ann, key)}" for question in QUESTIONS), *more):
        question, _, text = asked.partition("?")
        told = [str(own.get(f"questions/{asked}")[1]), str(own.get(f"questions/{question}/csv?{text}")[1])]
        told.append(page.get(f"{reverse(f'questions:{question}')}?{text}").content.decode())
        assert [one for one in told if "vpn-hidden" in one or "hush" in one or "10.99.0.2" in one] == [], asked
        assert "vpn-hidden" in str(every.get(f"questions/{asked}")[1]), asked
    assert own.get("questions/access")[1]["access"] == {"total": 0, "rows": []}
    bodies = {str(own.get(f"questions/access?server={pk}")).replace(str(pk), "N") for pk in (hidden.pk, 987654)}
    assert len(bodies) == 1


def test_who_has_no_role_is_told_nothing(charlie: User, bob: User, staging: Environment) -> None:
    stranger, own, ann = script(charlie), script(bob, scope="read"), make_person("Ann")
    for question in QUESTIONS:
        asked, address = words(question, ann, new_public_key()), reverse(f"questions:{question}")
        codes = [one.get(f"questions/{question}?{asked}")[0] for one in (stranger, own)]
        assert codes == [403, 200], question
        assert [browser(user).get(address).status_code for user in (charlie, bob, None)] == [403, 200, 302], question


def test_a_spreadsheet_gets_no_formula_and_each_key_as_it_is(alice: User, staging: Environment) -> None:
    """A8."""
    make_server(staging, "vpn-a")
    keys = {name: "+/" + new_public_key()[2:] for name in FORMULAS}
    for name, key in keys.items():
        person = make_person(name)
        make_grant(person, staging)
        make_device(person, public_key=key)
    address = f"{reverse('questions:access')}?csv=access"
    for text in (script(alice).get("questions/access/csv")[1], b"".join(browser(alice).get(address)).decode()):
        lines = list(csv.DictReader(io.StringIO(text)))
        assert {line["person"]: line["public_key"] for line in lines} == {f"'{name}": keys[name] for name in keys}
        assert {line["server"] for line in lines} == {"vpn-a"}


def test_a_csv_holds_all_rows_and_a_page_those_asked_for(alice: User, staging: Environment) -> None:
    make_server(staging)
    make_peers(staging, 5)
    caller = script(alice)
    pages = [caller.get(f"questions/access?limit=2&offset={offset}")[1]["access"] for offset in (0, 2, 4, 6)]
    assert [(one["total"], len(one["rows"])) for one in pages] == [(5, 2), (5, 2), (5, 1), (5, 0)]
    names = [row["person"]["text"] for one in pages for row in one["rows"]]
    lines = list(csv.DictReader(io.StringIO(caller.get("questions/access/csv?limit=2")[1])))
    assert [line["person"] for line in lines] == names
    assert len(set(names)) == 5


def test_what_people_type_is_inert_on_the_pages(alice: User, staging: Environment) -> None:
    """A15."""
    make_server(staging)
    person = make_person(SCRIPT)
    make_grant(person, staging)
    device = make_device(person, SCRIPT[:60])
    client = browser(alice)
    for question in QUESTIONS:
        text = words(question, person, device.public_key)
        page = client.get(f"{reverse(f'questions:{question}')}?{text}").content.decode()
        assert ("&lt;script&gt;alert(1)" in page, "<script>alert(1)" in page, ">49{%" in page) == (True, False, False)
    for asked in (f"kind=name&what={SCRIPT}", "kind=name&what=javascript:alert(1)"):
        page = client.get(f"{reverse('questions:traces')}?{asked}").content.decode()
        assert "<script>alert(1)" not in page
        assert 'href="javascript' not in page


def test_a_page_names_what_is_wrong_and_leads_to_the_rows(alice: User, staging: Environment) -> None:
    make_server(staging)
    make_peers(staging, 1)
    client, address = browser(alice), reverse("questions:access")
    assert "is no time: write it as" in client.get(f"{address}?at=soon").content.decode()
    assert "still to come" in client.get(f"{address}?at=2999-01-01").content.decode()
    for text in ("abc", "99999", "-1", "9" * 30, "1\x00"):
        for name in ("person", "team", "server", "environment"):
            answer = client.get(address, {name: text})
            assert (answer.status_code, list(answer.context["form"].errors)) == (200, [name]), (name, text)
    page = client.get(address).content.decode()
    peer = Peer.objects.get()
    for row in (peer, peer.server, peer.device, peer.device.person):
        assert reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk]) in page
    assert "1 to 1 of 1." in page


def test_a_question_changes_nothing_and_costs_the_same_however_long_its_answer_is(
    alice: User, staging: Environment
) -> None:
    """L4."""
    caller, client, address = script(alice), browser(alice), reverse("questions:access")
    make_server(staging)
    make_peers(staging, 2)
    few = costs(caller, client)
    make_server(staging)
    make_peers(staging, 9)
    before = rows()
    assert costs(caller, client) == few
    assert rows() == before
    assert client.get(address).status_code == 200


def costs(caller: object, client: object) -> dict[str, int]:
    device, found = Device.objects.select_related("person")[0], {}
    for question in QUESTIONS:
        text = words(question, device.person, device.public_key)
        for name, ask in (
            ("api", f"/api/v1/questions/{question}?{text}"),
            ("page", f"{reverse(f'questions:{question}')}?{text}"),
        ):
            with CaptureQueriesContext(connection) as seen:
                headers = {"Authorization": f"Bearer {caller.token}"} if name == "api" else {}  # type: ignore[attr-defined]
                assert client.get(ask, headers=headers).status_code == 200  # type: ignore[attr-defined]
            found[f"{name} {question}"] = len(seen)
    return found
