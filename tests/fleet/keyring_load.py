"""Somebody who works on while a keyring is rotated: `python -m tests.fleet.keyring_load write|read SERVER...`.

Says `ready`, then works until its standard input ends, and says how often it did. What goes wrong ends it at once.
"""

import os
import select
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from nodes.desired import desired_state  # noqa: E402 - Django comes first
from nodes.render import digest  # noqa: E402
from peers.models import Person  # noqa: E402
from tests.build import make_device  # noqa: E402


def write(number: int) -> None:
    """One more device, with a new peer on every server."""
    make_device(Person.objects.order_by("pk")[0], f"phone-{os.getpid()}-{number}")


def read(servers: list[int]) -> None:
    """Opens all that is sealed for each server's peers."""
    for server in servers:
        digest(desired_state(server).content)


def main(what: str, servers: list[int]) -> int:
    done = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        if what == "write":
            write(done)
        else:
            read(servers)
        done += 1
        if done == 1:
            print("ready", flush=True)
    print(done, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], [int(word) for word in sys.argv[2:]]))
