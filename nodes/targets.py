"""Where a server is reached and with which key. Workers only: it opens what the keyring `nodes` sealed."""

from django.conf import settings

from fleet.models import Bastion, Server
from fleet.sealing import Keyring, Place, new_ssh_key
from nodes.models import Credential
from nodes.transport import Target


class NotReady(Exception):
    """The server cannot be reached yet; the message says what is missing."""


def _place(credential: Credential) -> Place:
    return Place("nodes_credential", "private_key", str(credential.pk))


def new_credential(*, server: Server | None = None, bastion: Bastion | None = None) -> Credential:
    """A new key pair, sealed; any older one of the same machine is replaced."""
    name = server.name if server else str(bastion)
    private, public = new_ssh_key(f"muster@{name}")
    Credential.objects.filter(server=server, bastion=bastion).delete()
    credential = Credential(server=server, bastion=bastion, public_key=public)
    credential.private_key = Keyring.read(settings.KEYRING_NODES).seal(private, _place(credential))
    credential.save(force_insert=True)
    return credential


def private_key_of(credential: Credential) -> str:
    return Keyring.read(settings.KEYRING_NODES).open(credential.private_key, _place(credential))


def target_of(server: Server) -> Target:
    """The pinned way to an enrolled server, through its bastion where it has one."""
    credential = Credential.objects.filter(server=server).first()
    if not server.host_key or credential is None:
        raise NotReady(f"{server} is not enrolled: enrol it first.")
    return Target(
        host=server.host,
        port=server.ssh_port,
        user=server.ssh_user,
        host_key=server.host_key,
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
        public = new_credential(bastion=bastion).public_key
        Bastion.objects.filter(pk=bastion.pk).update(ssh_public_key=public)
    return len(waiting)
