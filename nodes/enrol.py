"""Makes a machine a Server of the fleet: one login used once, our script, its own keys, our pinned way in."""

import json
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from audit.services import SYSTEM, act
from audit.verbs import Verb
from fleet.changes import mark_changed
from fleet.models import Server
from fleet.sealing import SealBroken, open_box
from nodes import render
from nodes.bootstrap import InstallResult, Login, install_node
from nodes.desired import interface_state
from nodes.faults import TransportError
from nodes.models import BootstrapLogin, Enrolment
from nodes.pool import SessionPool
from nodes.services import login_place
from nodes.status import forget_machine
from nodes.targets import NewKey, NotReady, jump_of, keep, new_key_for, way_in
from peers.keys import BadKey, parse_public_key
from peers.models import Device
from peers.settle import lock_keys

SCRIPTS = Path(__file__).parent / "script"
PROGRESS_LIMIT = 8000


class EnrolmentFailed(Exception):
    """The machine answered what no server of a fleet may; the message says what to do."""


def run_enrolment(enrolment_id: str, pool: SessionPool) -> None:
    """Carries out an enrolment that waits, once; its row tells how it went."""
    if claim(enrolment_id):
        carry_out(enrolment_id, pool)


def claim(enrolment_id: str) -> bool:
    """Whether it waited, and is the caller's now to carry out."""
    waiting = Enrolment.objects.filter(pk=enrolment_id, state=Enrolment.State.WAITING)
    return bool(waiting.update(state=Enrolment.State.RUNNING))


def carry_out(enrolment_id: str, pool: SessionPool) -> None:
    """An enrolment that the caller has claimed."""
    enrolment = Enrolment.objects.select_related("server__environment", "server__bastion").get(pk=enrolment_id)
    try:
        login = _use_login(enrolment)
        key = new_key_for(enrolment.server)
        result = _install(enrolment, login, key)
        _prove(enrolment.server, result, key, pool)
        _accept(enrolment, result, key)
    except (TransportError, NotReady, EnrolmentFailed, SealBroken) as error:
        fail(enrolment, str(error))
        return
    _finish(enrolment)


def _use_login(enrolment: Enrolment) -> Login:
    """The one-time login; its row is gone before it is used."""
    with transaction.atomic():
        row = BootstrapLogin.objects.select_for_update().filter(enrolment=enrolment).first()
        if row is None:
            raise EnrolmentFailed("The login was kept for ten minutes and is gone: ask for the enrolment again.")
        boxed = row.boxed
        row.delete()
    return Login(**json.loads(open_box(boxed, login_place(enrolment), settings.KEYRING_NODES)))


def _install(enrolment: Enrolment, login: Login, key: NewKey) -> InstallResult:
    server = enrolment.server
    return install_node(
        host=server.host,
        port=server.ssh_port,
        login=login,
        host_key=enrolment.confirmed_host_key,
        jump=jump_of(server),
        script=(SCRIPTS / "muster_node.py").read_bytes(),
        installer=(SCRIPTS / "muster_install.py").read_bytes(),
        interface=server.interface,
        request={
            "interface": render.interface_fields(interface_state(server)),
            "console_key": " ".join(key.public.split()[:2]),
            "user": server.ssh_user,
            "epoch": server.epoch,
            "observe_only": server.is_observe_only,
            "packages": True,
        },
        progress=lambda line: _note(enrolment, line),
    )


def _note(enrolment: Enrolment, line: str) -> None:
    enrolment.progress = (enrolment.progress + line + "\n")[-PROGRESS_LIMIT:]
    enrolment.save(update_fields=["progress"])


def _accept(enrolment: Enrolment, result: InstallResult, key: NewKey) -> None:
    """What the machine said of itself becomes the Server's: pinned host key, public key, the Console's key."""
    server = enrolment.server
    public_key = _public_key(result)
    with act(Verb.SERVER_ENROLLED, actor=SYSTEM, reason=f"asked by {enrolment.requested_by}") as this:
        lock_keys([public_key])
        _refuse_taken_key(server, public_key)
        keep(key, server=server)
        is_another = server.public_key != public_key
        server.public_key, server.host_key = public_key, result.host_key
        server.ssh_public_key, server.enrolled_at = key.public, timezone.now()
        server.save(update_fields=["public_key", "host_key", "ssh_public_key", "enrolled_at"])
        forget_machine(server.pk, is_another=is_another)
        mark_changed([server.pk])
        changes = {"public_key": ["", public_key], "host_key": ["", result.host_key]}
        this.on(server, changes=changes, environment=server.environment.name)


def _refuse_taken_key(server: Server, public_key: str) -> None:
    if Device.objects.filter(public_key=public_key).exists():
        raise EnrolmentFailed("The server's key is a device's key: delete it on the machine, then enrol again.")
    twin = Server.objects.filter(public_key=public_key).exclude(pk=server.pk).first()
    if twin:
        raise EnrolmentFailed(f"{twin} has this key: one is a copy of the other. Delete it here, then enrol again.")


def _public_key(result: InstallResult) -> str:
    try:
        return parse_public_key(str(result.answer.get("public_key", "")))
    except BadKey as error:
        raise EnrolmentFailed(f"The machine gave no usable public key. {error}") from None


def _prove(server: Server, result: InstallResult, key: NewKey, pool: SessionPool) -> None:
    """Log in as the Console will from now on; nothing is called enrolled that we cannot reach so."""
    pool.drop(server.pk)
    target = way_in(server, result.host_key, key.private)
    pool.open(server.pk, target, server.interface).ask("hello", timeout=10.0)


def fail(enrolment: Enrolment, message: str) -> None:
    with act(Verb.SERVER_ENROL_FAILED, actor=SYSTEM, reason=message) as this:
        Enrolment.objects.filter(pk=enrolment.pk).update(
            state=Enrolment.State.FAILED, error=message, finished_at=timezone.now()
        )
        this.on(enrolment.server, changes={}, environment=enrolment.server.environment.name)


def _finish(enrolment: Enrolment) -> None:
    Enrolment.objects.filter(pk=enrolment.pk).update(state=Enrolment.State.DONE, finished_at=timezone.now())
