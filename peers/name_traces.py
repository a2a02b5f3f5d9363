"""Who or what was ever called so: people, devices, teams, servers, and what Events called them in their time."""

from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_

from django.core.exceptions import ValidationError
from django.db.models import CharField, Max, Min, Q
from django.db.models.functions import Cast

from audit.verbs import Verb
from fleet.scope import visible_servers
from peers.access import visible_devices, visible_people, visible_teams
from peers.trace import Trace, of_event, some, visible_events

SHORTEST_NAME = 2
NAME_VERBS = (Verb.PERSON_CHANGE, Verb.SERVER_CHANGE, Verb.ENVIRONMENT_CHANGE)


def name_traces(user: object, text: str) -> Iterator[Iterable[Trace]]:
    if len(text) < SHORTEST_NAME:
        raise ValidationError({"what": f"Give a part of a name, of {SHORTEST_NAME} characters at least."})
    people = some(visible_people(user).filter(_any_case("name", text) | _any_case("email", text)))
    yield (Trace("person", one.name, one.email, "", one.created_at, one.left_at, one.kind, one) for one in people)
    devices = some(visible_devices(user).filter(_any_case("name", text)))
    yield (Trace("device", one.name, one.person.name, "", one.created_at, one.revoked_at, "", one) for one in devices)
    teams = some(visible_teams(user).filter(_any_case("name", text)))
    yield (Trace("team", one.name, "", "", one.created_at, one.ended_at, one.description, one) for one in teams)
    servers = some(visible_servers(user).filter(_any_case("name", text)))
    began = Min("placements__began_at")
    yield (
        Trace("server", one.name, "", one.environment.name, one.seen_at, None, one.host, one)
        for one in servers.annotate(seen_at=began)
    )
    yield _named_in_events(user, text)
    yield _renamed(user, text)


def _any_case(column: str, text: str) -> Q:
    """SQLite knows upper and lower case of ASCII alone, so the usual ways to write a name are looked for."""
    forms = dict.fromkeys((text, text.lower(), text.upper(), text.title()))
    return reduce(or_, (Q(**{f"{column}__icontains": form}) for form in forms))


def _named_in_events(user: object, text: str) -> Iterator[Trace]:
    """Whatever was called so, in the words of its time; it may be called otherwise now, or be gone."""
    rows = visible_events(user).filter(_any_case("target_label", text)).order_by()
    seen = rows.values_list("content_type__model", "object_pk", "target_label", "environment_label")
    for model, _, label, place, first, last, verbs in some(
        seen.annotate(first=Min("timestamp"), last=Max("timestamp"), verbs=Max("verb")).order_by("first")
    ):
        yield Trace(f"{model} in events", label, "", place, first, last, f"among others {verbs}")


def _renamed(user: object, text: str) -> Iterator[Trace]:
    rows = visible_events(user).filter(verb__in=NAME_VERBS).annotate(said=Cast("changes", CharField()))
    for event in some(rows.filter(_any_case("said", text))):
        for field in {"name", "email"} & set(event.changes or {}):
            old, new = map(str, event.changes[field])
            if text.casefold() in f"{old} {new}".casefold():
                yield of_event(event, f"{old} became {new}")
