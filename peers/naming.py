"""People as somebody writes them down: a list of e-mail addresses and ids, each of which has to be one person."""

from collections import defaultdict
from collections.abc import Sequence

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.db.models.functions import Lower

from peers.models import Person

MOST_NAMED = 1000
LARGEST_ID = 2**63 - 1


def people_named(names: Sequence[str], rows: QuerySet[Person]) -> list[Person]:
    """Each once; ValidationError that names every one who is unknown, has left, or may be somebody else."""
    if not names:
        raise ValidationError({"people": "Name at least one person, by e-mail address or id, one a line."})
    if len(names) > MOST_NAMED:
        raise ValidationError({"people": f"These are {len(names)}: name {MOST_NAMED} at most at once."})
    found = _look_up([name.strip() for name in names], rows)
    wrong = [message for name in dict.fromkeys(names) if (message := _fault(name, found[name.strip()]))]
    if wrong:
        raise ValidationError({"people": wrong})
    people = [one for name in names for one in _present(found[name.strip()])]
    return list({person.pk: person for person in people}.values())


def _look_up(names: Sequence[str], rows: QuerySet[Person]) -> defaultdict[str, list[Person]]:
    """Two queries, however many names there are."""
    ids = {int(name) for name in names if name.isascii() and name.isdecimal() and int(name) <= LARGEST_ID}
    by_id = rows.in_bulk(list(ids))
    by_email: defaultdict[str, list[Person]] = defaultdict(list)
    lowered = rows.exclude(email="").annotate(lowered=Lower("email")).order_by("pk")
    for person in lowered.filter(lowered__in={name.lower() for name in names if "@" in name}):
        by_email[person.email.lower()].append(person)
    found: defaultdict[str, list[Person]] = defaultdict(list)
    for name in names:
        if "@" in name:
            found[name] = by_email[name.lower()]
        elif name.isascii() and name.isdecimal() and int(name) in by_id:
            found[name] = [by_id[int(name)]]
    return found


def _present(found: Sequence[Person]) -> list[Person]:
    return [person for person in found if person.left_at is None]


def _fault(name: str, found: Sequence[Person]) -> str:
    here = _present(found)
    if len(here) > 1:
        return (
            f"{name}: {len(here)} people have this address; name the one by id: {', '.join(str(p.pk) for p in here)}."
        )
    if here:
        return ""
    return f"{name}: has left already." if found else f"{name}: there is nobody of this e-mail address or id."
