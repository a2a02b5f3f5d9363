"""Another end over HTTP and on pages: who sees and who may, what is named when it is bad, and what the pages tell."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.services import give_role
from peers.granting import grant_access
from peers.models import Grant, Membership, Peer, Person
from peers.teams import add_team, join_team
from tests.build import make_device, make_person, make_server
from tests.doors import browser, rows, script
from tests.fleet.test_admin_pages import queries_of
from tests.peers.test_admin_access import at, errors_of

pytestmark = pytest.mark.django_db
DAY = dt.timedelta(days=1)
LATER = (timezone.now() + 30 * DAY).replace(microsecond=0)
WHY = {"_answered": "1", "reason": "the contract was renewed"}
KINDS = ("membership", "grant")


@pytest.fixture
def held(staging: Environment) -> dict[str, Any]:
    """A membership and a grant of two contractors, both until in five days."""
    make_server(staging, "vpn")
    team, until = add_team(actor=SYSTEM, name="web"), timezone.now() + 5 * DAY
    grant_access(actor=SYSTEM, team=team, environment=staging, reason="work")
    carol, dave = (make_person(name, Person.Kind.CONTRACTOR) for name in ("Carol", "Dave"))
    make_device(carol), make_device(dave)
    (membership,) = join_team(actor=SYSTEM, team=team, people=[carol], until=until)
    grant = grant_access(actor=SYSTEM, person=dave, environment=staging, reason="database", until=until)
    return {"membership": membership, "grant": grant}


def when(moment: dt.datetime) -> dict[str, str]:
    local = timezone.localtime(moment)
    return {"until_0": f"{local:%Y-%m-%d}", "until_1": f"{local:%H:%M:%S}"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_sets_another_end(kind: str, held: dict[str, Any], bob: User) -> None:
    caller, row = script(bob), held[kind]
    code, new = caller.post(f"{kind}s/{row.pk}/set-end", until=LATER.isoformat(), reason="renewed")
    assert (code, new["goes_on_from"], new["end_reason"], new["state"]) == (201, row.pk, "renewed", "open")
    assert dt.datetime.fromisoformat(new["until"]) == LATER
    assert caller.get(f"{kind}s/{row.pk}")[1]["state"] == "ended"
    assert caller.post(f"{kind}s/{row.pk}/set-end", until=LATER.isoformat(), reason="again")[0] == 409
    code, all_of = caller.post(
        f"{kind}s/set-end", **{f"{kind}s": [new["id"]]}, until=(LATER - DAY).isoformat(), reason="less"
    )
    assert (code, [one["goes_on_from"] for one in all_of]) == (201, [new["id"]])
    assert Peer.objects.filter(ended_at=None, expires_at=LATER - DAY).count() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_names_the_field_and_changes_nothing(kind: str, held: dict[str, Any], bob: User) -> None:
    caller, path = script(bob), f"{kind}s/{held[kind].pk}/set-end"
    before = rows()
    for given, field in (
        ({"reason": "x"}, "until"),
        ({"until": "soon", "reason": "x"}, "until"),
        ({"until": "2001-01-01T00:00:00Z", "reason": "x"}, "until"),
        ({"until": None, "reason": "x"}, "until"),
        ({"until": LATER.isoformat()}, "reason"),
        ({"until": LATER.isoformat(), "reason": " "}, "reason"),
        ({"until": LATER.isoformat(), "reason": "a\nb"}, "reason"),
        ({"until": LATER.isoformat(), "reason": "x", "person": 1}, "person"),
    ):
        code, body = caller.post(path, **given)
        assert (code, list(body)) == (400, [field]), given
    code, body = caller.post(f"{kind}s/set-end", **{f"{kind}s": [10**6]}, until=LATER.isoformat(), reason="x")
    assert (code, body) == (400, {f"{kind}s": [f"There is no {kind} 1000000."]})
    assert caller.post(f"{kind}s/999999/set-end", until=LATER.isoformat(), reason="x")[0] == 404
    assert rows() == before
    assert caller.post(path, until=LATER.isoformat(), reason="x")[0] == 201


@pytest.mark.parametrize("kind", KINDS)
def test_only_operators_of_the_place_may(
    kind: str, held: dict[str, Any], bob: User, charlie: User, production: Environment
) -> None:
    """B2, B3, B4."""
    path, asked = f"{kind}s/{held[kind].pk}/set-end", {"until": LATER.isoformat(), "reason": "x"}
    button, page = at(f"peers_{kind}_set_end", held[kind].pk), at(f"peers_{kind}_change", held[kind].pk)
    stranger, reader = script(charlie), script(bob, scope="read")
    assert stranger.post(path, **asked)[0] == 403
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.OPERATOR, environment=production)
    client = browser(charlie)
    before = rows()
    assert stranger.post(path, **asked)[0] == (403 if kind == "membership" else 404)
    assert reader.post(path, **asked)[0] == 403
    answer = client.post(button, {**WHY, **when(LATER)})
    assert answer.status_code == (200 if kind == "membership" else 404)
    assert rows() == before
    give_role(actor=SYSTEM, user=charlie, name=Role.Name.HELPDESK, environment=Environment.objects.get(name="staging"))
    assert button not in client.get(page).content.decode()
    assert button in browser(bob).get(page).content.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_an_operator_sets_another_end_on_its_page(kind: str, held: dict[str, Any], bob: User) -> None:
    """The form begins with the end that there is; the page of the new one tells of all."""
    client, row = browser(bob), held[kind]
    path, page = at(f"peers_{kind}_set_end", row.pk), at(f"peers_{kind}_change", row.pk)
    form = client.get(path).content.decode()
    for value in when(row.until).values():
        assert f'value="{value}"' in form
    before = rows()
    assert list(errors_of(client.post(path, {**WHY, "until_0": "2001-01-01", "until_1": "00:00"}))) == ["until"]
    assert list(errors_of(client.post(path, {**WHY, "until_0": "", "until_1": ""}))) == ["until"]
    assert list(errors_of(client.post(path, {**WHY, **when(LATER), "reason": ""}))) == ["reason"]
    assert rows() == before
    answer = client.post(path, {**WHY, **when(LATER)})
    new = type(row)._default_manager.get(goes_on_from=row)
    assert answer["Location"] == at(f"peers_{kind}_change", new.pk)
    shown = client.get(answer["Location"]).content.decode()
    for text in (WHY["reason"], page, f"Until {timezone.localtime(LATER):%Y-%m-%d %H:%M}"):
        assert text in shown, text
    old = client.get(page).content.decode()
    assert (path in old, answer["Location"] in old) == (False, True)
    assert list(errors_of(client.post(path, {**WHY, **when(LATER)}))) == ["__all__"]


@pytest.mark.parametrize("kind", KINDS)
def test_those_selected_have_another_end(kind: str, held: dict[str, Any], bob: User) -> None:
    client, path, row = browser(bob), at(f"peers_{kind}_changelist"), held[kind]
    chosen = {"action": "set_end_selected", "_selected_action": [row.pk]}
    form = client.post(path, chosen).content.decode()
    assert (str(row) in form, f'value="{when(row.until)["until_0"]}"' in form) == (True, True)
    assert list(errors_of(client.post(path, {**chosen, **WHY, "until_0": "", "until_1": ""}))) == ["until"]
    assert client.post(path, {**chosen, **WHY, **when(LATER)})["Location"] == path
    assert type(row)._default_manager.get(goes_on_from=row).until == LATER


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_over_is_not_prolonged_by_a_page(kind: str, held: dict[str, Any], bob: User) -> None:
    row = held[kind]
    path, page = at(f"peers_{kind}_set_end", row.pk), at(f"peers_{kind}_change", row.pk)
    assert path in browser(bob).get(page).content.decode()
    type(row)._default_manager.filter(pk=row.pk).update(until=timezone.now())
    assert path not in browser(bob).get(page).content.decode()


def test_lists_cost_the_same_however_often_ends_changed(held: dict[str, Any], bob: User) -> None:
    """L4."""
    caller, client = script(bob), browser(bob)
    paths = [at("peers_membership_changelist"), at("peers_grant_changelist")]
    counts = []
    for _ in range(2):
        for kind in KINDS:
            rows_of = {"membership": Membership.objects, "grant": Grant.objects}[kind]
            row = rows_of.filter(ended_at=None).latest("pk")
            assert caller.post(f"{kind}s/{row.pk}/set-end", until=LATER.isoformat(), reason="x")[0] == 201
        counts.append([queries_of(client, path) for path in paths])
    assert counts[0] == counts[1]
