"""Dry runs that people asked for: a worker fills the row that the page shows."""

from django.utils import timezone

from nodes.models import PlanRequest
from nodes.pool import SessionPool
from nodes.reconcile import Outcome, plan, told
from peers.models import Device


def fill_plan(request_id: str, pool: SessionPool) -> None:
    request = PlanRequest.objects.filter(pk=request_id, finished_at=None).first()
    if request is None:
        return
    outcome = told(request.server_id, lambda: plan(request.server_id, pool))
    if outcome.result == "planned":
        request.plan = describe(outcome)
    else:
        request.error = outcome.detail[:500]
    request.finished_at = timezone.now()
    request.save(update_fields=["plan", "error", "finished_at"])


def describe(outcome: Outcome) -> dict[str, object]:
    """Keys with the names of their devices, and what the brake says."""
    keys = {*outcome.plan.add, *outcome.plan.remove, *outcome.plan.update}
    devices = Device.objects.filter(public_key__in=keys).select_related("person")
    names = {device.public_key: str(device) for device in devices}
    named = {
        verb: [{"public_key": key, "device": names.get(key, "")} for key in getattr(outcome.plan, verb)]
        for verb in ("add", "remove", "update")
    }
    return {**named, "brake": outcome.detail}
