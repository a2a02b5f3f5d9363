"""A server whose disk is full: a revoked key is shut all the same, and proof comes once there is space, not before."""

import time
from collections.abc import Iterator

import pytest
from django.test import Client as Browser

from fleet.models import Environment, User
from peers.models import Receipt, Revocation
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for
from tests.nodes.lab.parts import Parts, parts
from tests.nodes.lab.scene import Scene, contractor, pending, scene, wait_until_sent

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]
FILES = "/var/lib/muster"
FILL = f"""
cp -a {FILES} /run/kept; mount -t tmpfs -o size=32k tmpfs {FILES}; cp -a /run/kept/. {FILES}
dd if=/dev/zero of={FILES}/fill bs=1k 2>/dev/null || true
"""


@pytest.fixture
def fleet(lab: Lab, staging: Environment) -> Iterator[Scene]:
    with scene(lab, [staging]) as found:
        yield found


@pytest.fixture
def console(alice: User, fleet: Scene) -> Iterator[Parts]:
    with parts(alice) as found:
        found.start()
        yield found


def page(alice: User) -> str:
    browser = Browser()
    browser.force_login(alice)
    found = browser.get(f"/admin/peers/revocation/{Revocation.objects.get().pk}/change/", secure=True)
    return found.content.decode()


def proof() -> tuple[bool, bool]:
    return Receipt.objects.values_list("is_gone_from_kernel", "is_durable").get()


def test_on_a_full_disk_packets_stop_at_once_and_proof_comes_by_itself_with_the_space(
    lab: Lab, fleet: Scene, console: Parts, staging: Environment, alice: User
) -> None:
    """D21, F3: nobody does anything but free the space; another person loses no packet."""
    machine, clients = fleet.machines[0], lab.add_clients(2)
    carol, dave = (
        console.issue(contractor(staging, name=name), client)
        for name, client in zip(("Carol", "Dave"), clients, strict=True)
    )
    fleet.wait_in_sync()
    fleet.connect(carol)
    fleet.connect(dave)
    machine.shell(FILL)
    began = time.monotonic()
    answered = console.revoke(carol)
    wait_for(lambda: proof() == (True, False), 10, "an answer that says gone from the kernel, not durable")
    wait_until_sent(carol.streams, answered + 2)
    last = (carol.streams[0].last_answered_at() or 0) - answered
    assert last < 1
    # The Console asks again and again: it stays so for as long as the disk is full.
    wait_until_sent(carol.streams, answered + 6)
    assert (pending(), proof(), page(alice).count("Pending on vpn-s1 since")) == (["vpn-s1"], (True, False), 1)
    machine.shell(f"rm {FILES}/fill")
    freed = time.monotonic()
    fleet.wait_for_receipts(40)
    took = time.monotonic() - freed
    assert (proof(), page(alice).count("Pending on vpn-s1 since")) == ((True, True), 0)
    for name in ("tombstones", "tombstones.copy"):
        assert carol.device.public_key in machine.read(f"{FILES}/{name}")
    assert carol.device.public_key not in machine.read(f"{FILES}/wg0/state")
    assert carol.is_shut_out(freed) == [True]
    assert dave.lost(began, time.monotonic()) == [0]
    print(f"last packet {last:.2f} s after the answer, proof {took:.1f} s after the space")
    machine.shell(f"umount {FILES}")
