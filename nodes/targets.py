"""Where a server is reached and with which key. Workers only: it opens what the keyring `nodes` sealed."""

from django.conf import settings
from django.db import transaction

from fleet.models import Bastion, Server
from fleet.sealing import Keyring, Place, new_ssh_key
from nodes.models import Credential
from nodes.transport import Target


class NotReady(Exception):
    """The server cannot be reached yet; the message says what is missing."""


def _place(credential: Credential) -> Place:
    return Place("nodes_credential", "private_key", str(credential.pk))


def new_credential(*, server: Server | None = None, bastion: Bastion | None = None) -> Credential:
    """A new key pair, sealed and not stored yet: `keep` it once it opens the machine."""
    private, public = new_ssh_key(f"muster@{server or bastion}")
    credential = Credential(server=server, bastion=bastion, public_key=public)
    credential.private_key = Keyring.read(settings.KEYRING_NODES).seal(private, _place(credential))
    return credential


def keep(credential: Credential) -> None:
    """From now on the machine is reached with this key and no older one."""
    with transaction.atomic():
        Credential.objects.filter(server=credential.server, bastion=credential.bastion).delete()
        credential.save(force_insert=True)


def private_key_of(credential: Credential) -> str:
    return Keyring.read(settings.KEYRING_NODES).open(credential.private_key, _place(credential))


def target_of(server: Server) -> Target:
    """The pinned way to an enrolled server, through its bastion where it has one."""
    credential = Credential.objects.filter(server=server).first()
    if not server.host_key or credential is None:
        raise NotReady(f"{server} is not enrolled: enrol it first.")
    return way_in(server, server.host_key, credential)


def way_in(server: Server, host_key: str, credential: Credential) -> Target:
    return Target(
        host=server.host,
        port=server.ssh_port,
        user=server.ssh_user,
        host_key=host_key,
        jump=jump_of(server),
        key=private_key_of(credential),
    )


def jump_of(server: Server) -> Target | None:
    bastion = server.bastion
    if bastion is None:
        return None
    credential = Credential.objects.filter(bastion=bastion).first()
    if credential is None:
        raise NotReady(f"Bastion {bastion} has no key yet: wait for a worker to make it, then install it there.")
    return Target(
        host=bastion.host,
        port=bastion.ssh_port,
        user=bastion.ssh_user,
        host_key=bastion.host_key,
        jump=None,
        key=private_key_of(credential),
    )


def make_missing_keys() -> int:
    """Keys for new bastions; their public halves are for the operator to install there."""
    waiting = list(Bastion.objects.filter(credential=None))
    for bastion in waiting:
        credential = new_credential(bastion=bastion)
        with transaction.atomic():
            keep(credential)
            Bastion.objects.filter(pk=bastion.pk).update(ssh_public_key=credential.public_key)
    return len(waiting)
