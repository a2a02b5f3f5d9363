"""Run as a program: one of two processes that do acts at given moments, each named by a line of JSON on stdin.

{"verb": "register"|"grant"|"revoke", "at": MONOTONIC, ...}; answers each with {"done": whether it was not refused}.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping

import django

django.setup()

from django.core.exceptions import ValidationError  # noqa: E402

from audit.services import SYSTEM  # noqa: E402
from fleet.models import Environment  # noqa: E402
from peers.granting import grant_access  # noqa: E402
from peers.models import Person  # noqa: E402
from peers.revocation import revoke_key  # noqa: E402
from peers.services import register_device  # noqa: E402

Order = Mapping[str, str | int]


def register(order: Order) -> None:
    person = Person.objects.get(pk=order["person"])
    register_device(actor=SYSTEM, person=person, name=str(order["name"]), public_key=str(order["key"]))


def grant(order: Order) -> None:
    person, environment = Person.objects.get(pk=order["person"]), Environment.objects.get(pk=order["environment"])
    grant_access(actor=SYSTEM, person=person, environment=environment, reason="project work")


def revoke(order: Order) -> None:
    revoke_key(actor=SYSTEM, public_key=str(order["key"]), reason="lost")


VERBS: dict[str, Callable[[Order], None]] = {"register": register, "grant": grant, "revoke": revoke}


def obey(order: Order) -> bool:
    """At its moment, not before; whether the service did it."""
    while time.monotonic() < float(order["at"]):
        pass
    try:
        VERBS[str(order["verb"])](order)
    except ValidationError as error:
        if "tombstoned" not in str(error):
            raise
        return False
    return True


for line in sys.stdin:
    print(json.dumps({"done": obey(json.loads(line))}), flush=True)
