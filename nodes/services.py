"""What people ask of the workers: enrol, plan, approve, reconcile. Each is a row and a hint by id."""

import json

from celery import current_app
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_operator, require_reason
from fleet.changes import hold_servers, lock_servers, mark_changed
from fleet.fields import FINGERPRINT, HOST_KEY, KEYGEN_LINE
from fleet.models import Server, User
from fleet.sealing import Place, box_for_workers
from nodes.hostkeys import pins
from nodes.models import BootstrapLogin, Enrolment, Hold, PlanRequest


def login_place(enrolment: Enrolment) -> Place:
    return Place("nodes_bootstraplogin", "boxed", str(enrolment.pk))


def request_enrolment(
    *, actor: Actor, server: Server, host_key: str, user: str, password: str = "", private_key: str = ""
) -> Enrolment:
    """Boxes the one-time login for the workers and asks them to enrol. `host_key` is what the operator confirmed:
    a whole key, its SHA256 fingerprint, or the line of ssh-keygen -l with it. ValidationError names the field."""
    require_operator(actor, server.environment)
    line = KEYGEN_LINE.fullmatch(host_key)
    host_key = line[1] if line else host_key
    _check_login(host_key, user, password, private_key)
    with act(Verb.SERVER_ENROL, actor=actor) as this:
        lock_servers([server.pk])
        if server.enrolments.filter(state__in=[Enrolment.State.WAITING, Enrolment.State.RUNNING]).exists():
            raise ValidationError({"server": f"{server} is being enrolled just now: wait for that to end."})
        enrolment = Enrolment.objects.create(server=server, confirmed_host_key=host_key, requested_by=str(actor))
        login = json.dumps({"user": user, "password": password or None, "private_key": private_key or None})
        boxed = box_for_workers(login, login_place(enrolment), settings.KEYRING_NODES_PUBLIC)
        BootstrapLogin.objects.create(enrolment=enrolment, boxed=boxed)
        this.on(server, changes={"host_key": ["", host_key]}, environment=server.environment.name)
        _ask("enrol", str(enrolment.pk), server)
    return enrolment


def _check_login(host_key: str, user: str, password: str, private_key: str) -> None:
    if not HOST_KEY.fullmatch(host_key) and not FINGERPRINT.fullmatch(host_key):
        raise ValidationError(
            {"host_key": "Give the key (ssh-ed25519 AAAA...) or its fingerprint (SHA256:...) as read on the machine."}
        )
    try:
        pins(host_key)
    except ValueError as error:
        raise ValidationError({"host_key": str(error)}) from None
    if not user or not user.isascii() or not user.isprintable() or " " in user:
        raise ValidationError({"user": "Give the name of a login on the machine, such as root."})
    if bool(password) == bool(private_key):
        raise ValidationError({"password": "Give a password or a private key: one of them."})


def request_plan(*, actor: Actor, server: Server) -> PlanRequest:
    """A dry run by a worker; the row shows what a push would change."""
    require_operator(actor, server.environment)
    requested_by = actor if isinstance(actor, User) else None
    with transaction.atomic():
        request = PlanRequest.objects.create(server=server, requested_by=requested_by)
        _ask("fill_plan", str(request.pk), server)
    return request


def request_reconcile(*, actor: Actor, server: Server) -> None:
    """Look at this server soon, whatever its generations say."""
    require_operator(actor, server.environment)
    with transaction.atomic():
        _ask("reconcile_server", server.pk, server)


def approve_hold(*, actor: Actor, hold: Hold, reason: str) -> Hold:
    """The cause may remove its peers, on every server that waits for it or will once it is reached."""
    with act(Verb.PUSH_APPROVE, actor=actor, reason=reason) as this:
        Hold.objects.select_for_update().get(pk=hold.pk)  # a server that comes to wait for it now is seen, or sees this
        touched = Q(held_pushes__hold=hold) | Q(peers__ended_act=hold.act, peers__gone_at=None)
        servers = list(Server.objects.filter(touched).select_related("environment").distinct())
        require_operator(actor, *{server.environment for server in servers})
        require_reason(reason, "Say why these peers may go.")
        hold.approved_at, hold.approved_by, hold.reason = timezone.now(), str(actor), reason
        hold.clean_fields()
        if not Hold.objects.filter(pk=hold.pk, approved_at=None).update(
            approved_at=hold.approved_at, approved_by=hold.approved_by, reason=reason
        ):
            raise ValidationError("Somebody approved this already.", code="taken")
        this.on(hold, changes={"approved": ["", hold.cause]})
        waiting = {server.pk for server in servers}
        hold_servers(waiting)
        mark_changed(waiting)
    return hold


def _ask(task: str, argument: str | int, server: Server) -> None:
    queue = f"nodes.{server.pk % settings.SHARDS}"

    def send() -> None:
        try:
            current_app.send_task(f"nodes.tasks.{task}", args=[argument], queue=queue, retry=False, expires=600)
        except (OperationalError, OSError):
            # The row waits: the sweep takes up what nobody was told of.
            return

    transaction.on_commit(send, robust=True)
