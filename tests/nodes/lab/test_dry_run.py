"""A dry run shows what a push would change, and changes nothing."""

import io

import pytest
from django.core.management import call_command

from fleet.models import Environment, Server, ServerStatus, User
from nodes.brake import UNRECORDED
from nodes.models import Hold, PlanRequest, Run
from nodes.plans import fill_plan
from nodes.services import request_plan
from peers.granting import end_grants
from peers.models import Device, Grant, Peer, PeerStatus
from tests.build import make_device, make_grant, make_peers, make_person
from tests.fleet_in_lab import Console, console
from tests.lab import machines
from tests.lab.lab import Lab
from tests.nodes.lab.acts import enrolled

pytestmark = [pytest.mark.lab, pytest.mark.django_db(transaction=True)]


def on_server(machine: machines.Server) -> tuple[str, str, str, int]:
    """All that a push could change: kernel, state, what the Console saw of it, and its runs."""
    held = sorted(machine.run(["wg", "show", "wg0", "allowed-ips"]).stdout.splitlines())
    seen = list(ServerStatus.objects.values("observed_generation", "observed_digest"))
    return str(held), machine.read("/var/lib/muster/wg0/state"), str(seen), Run.objects.count()


def planned(muster: Console, server: Server, actor: User) -> dict[str, object]:
    request = request_plan(actor=actor, server=server)
    fill_plan(str(request.pk), muster.crew.pool)
    row = PlanRequest.objects.get(pk=request.pk)
    assert (row.error, row.finished_at is None) == ("", False)
    assert row.plan is not None
    return dict(row.plan)


def named(*devices: Device) -> list[dict[str, str]]:
    rows = [{"public_key": device.public_key, "device": str(device)} for device in devices]
    return sorted(rows, key=lambda row: row["public_key"])


def test_a_plan_names_what_would_be_added_and_removed_and_changes_nothing(
    lab: Lab, staging: Environment, alice: User
) -> None:
    machine = lab.add_server()
    with console(lab) as muster:
        row = enrolled(muster, machine, staging)
        stays, goes = make_person("Ann"), make_person("Ben")
        leaving = make_grant(goes, staging)
        make_grant(stays, staging)
        kept, dropped = make_device(stays), make_device(goes)
        muster.push()
        assert planned(muster, row, alice) == {"add": [], "remove": [], "update": [], "brake": ""}
        end_grants(actor=alice, grants=[leaving], reason="over")
        added = make_device(stays, "phone")
        machine.run(["wg", "set", "wg0", "peer", kept.public_key, "allowed-ips", "10.1.9.9/32"])
        before = on_server(machine)
        expected = {"add": named(added), "remove": named(dropped), "update": named(kept), "brake": ""}
        assert planned(muster, row, alice) == expected
        out = io.StringIO()
        call_command("reconcile", row.name, "--dry-run", stdout=out)
        assert out.getvalue().splitlines() == [
            f"{row.name}: planned",
            f"  add {added.public_key} {added}",
            f"  remove {dropped.public_key} {dropped}",
            f"  update {kept.public_key} {kept}",
        ]
        assert on_server(machine) == before
        muster.push()
        assert planned(muster, row, alice) == {"add": [], "remove": [], "update": [], "brake": ""}


def test_a_plan_says_what_the_brake_will_say_and_holds_nothing(lab: Lab, staging: Environment, alice: User) -> None:
    with console(lab) as muster:
        row = enrolled(muster, lab.add_server(), staging)
        peers = make_peers(staging, 20)
        muster.push()
        people = [peer.device.person_id for peer in peers[:7]]
        end_grants(actor=alice, grants=list(Grant.objects.filter(person__in=people)), reason="over")
        brake = str(planned(muster, row, alice)["brake"])
        assert brake.startswith("7 of 20 peers would go: grant.end ")
        assert brake.endswith(" (over)")
        Grant.objects.filter(person__in=people).delete()
        PeerStatus.objects.filter(peer__device__person__in=people).delete()
        Peer.objects.filter(device__person__in=people).delete()
        plan = planned(muster, row, alice)
        assert (plan["brake"], len(list(plan["remove"]))) == (f"7 of 20 peers would go: {UNRECORDED}", 7)  # type: ignore[call-overload]
    assert not Hold.objects.exists()
