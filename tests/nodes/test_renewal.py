"""A renewal a moment before the end: what a server is told has an end at each moment."""

import datetime as dt

import pytest
from django.utils import timezone

from audit.services import SYSTEM
from fleet.models import Environment, Server
from nodes.desired import desired_state
from peers.due import settle_due
from peers.granting import grant_access
from peers.models import Peer, Person
from peers.teams import add_team, join_team
from tests.build import make_device, make_person, make_server
from tests.lab.waiting import wait_for

pytestmark = pytest.mark.django_db
MONTH = dt.timedelta(days=30)


def expiries(server: Server) -> set[int | None]:
    return {peer.expires_at for peer in desired_state(server.pk).content.peers.values()}


def grant(person: Person, server: Server, until: dt.datetime) -> None:
    grant_access(actor=SYSTEM, person=person, server=server, reason="work", until=until)


def test_renewing_a_moment_before_the_end_never_yields_no_end(staging: Environment) -> None:
    """D10: by a new grant while the old one runs out; the peer stays the same, and so does who did not renew."""
    server, carol, dora = make_server(staging), make_person("Carol"), make_person("Dora")
    soon = timezone.now() + dt.timedelta(seconds=1)
    grant(dora, server, soon + 2 * MONTH)
    grant(carol, server, soon)
    make_device(carol), make_device(dora)
    old, new, other = (int(at.timestamp()) for at in (soon, soon + MONTH, soon + 2 * MONTH))
    before = set(Peer.objects.values_list("pk", flat=True))
    assert expiries(server) == {old, other}
    grant(carol, server, soon + MONTH)
    seen = set()

    def is_over() -> bool:
        settle_due()
        seen.update(expiries(server))
        return timezone.now() > soon + dt.timedelta(seconds=0.3)

    wait_for(is_over, 20, "the old end")
    assert seen == {new, other}
    assert set(Peer.objects.values_list("pk", flat=True)) == before
    assert not Peer.objects.exclude(ended_at=None).exists()


def test_an_end_that_a_team_s_grant_renews_is_an_end(staging: Environment) -> None:
    """D10: a contractor's membership gives the end, not the team's endless grant."""
    server, carol = make_server(staging), make_person("Carol", Person.Kind.CONTRACTOR)
    soon = timezone.now() + dt.timedelta(minutes=1)
    grant(carol, server, soon)
    make_device(carol)
    team = add_team(actor=SYSTEM, name="web")
    grant_access(actor=SYSTEM, team=team, server=server, reason="work")
    assert expiries(server) == {int(soon.timestamp())}
    join_team(actor=SYSTEM, team=team, people=[carol], until=soon + MONTH)
    assert expiries(server) == {int((soon + MONTH).timestamp())}


def test_who_did_not_renew_is_not_wanted_any_more(staging: Environment) -> None:
    server, carol = make_server(staging), make_person("Carol")
    make_device(carol)
    soon = timezone.now() + dt.timedelta(seconds=0.2)
    grant(carol, server, soon)
    wait_for(lambda: timezone.now() > soon, 10, "the end")
    settle_due()
    assert expiries(server) == set()
    grant(carol, server, soon + MONTH)
    assert expiries(server) == {int((soon + MONTH).timestamp())}
