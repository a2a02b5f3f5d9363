"""Where a server is reached and with which key. Workers only: it opens what the keyring `nodes` sealed."""

from dataclasses import dataclass, field

from django.db import transaction

from fleet.keyrings import LOGIN_KEYS, Opener, sealer
from fleet.models import Bastion, Server
from fleet.sealing import new_ssh_key
from nodes.models import Credential
from nodes.transport import Target


class NotReady(Exception):
    """The server cannot be reached yet; the message says what is missing."""


@dataclass(frozen=True)
class NewKey:
    """A key pair that no machine lets in yet, so that it is not stored either."""

    public: str
    private: str = field(repr=False)


def new_key_for(machine: Server | Bastion) -> NewKey:
    private, public = new_ssh_key(f"muster@{machine}")
    return NewKey(public, private)


def keep(key: NewKey, *, server: Server | None = None, bastion: Bastion | None = None) -> None:
    """From now on the machine is reached with this key and no older one."""
    credential = Credential(server=server, bastion=bastion, public_key=key.public)
    with transaction.atomic():
        credential.private_key = sealer(LOGIN_KEYS).seal(key.private, credential.pk)
        Credential.objects.filter(server=server, bastion=bastion).delete()
        credential.save(force_insert=True)


def private_key_of(credential: Credential) -> str:
    return Opener(LOGIN_KEYS).open(credential.private_key, credential.pk)


def target_of(server: Server) -> Target:
    """The pinned way to an enrolled server, through its bastion where it has one."""
    credential = Credential.objects.filter(server=server).first()
    if not server.host_key or credential is None:
        raise NotReady(f"{server} is not enrolled: enrol it first.")
    return way_in(server, server.host_key, private_key_of(credential))


def way_in(server: Server, host_key: str, private_key: str) -> Target:
    return Target(
        host=server.host,
        port=server.ssh_port,
        user=server.ssh_user,
        host_key=host_key,
        jump=jump_of(server),
        key=private_key,
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
        key = new_key_for(bastion)
        with transaction.atomic():
            keep(key, bastion=bastion)
            Bastion.objects.filter(pk=bastion.pk).update(ssh_public_key=key.public)
    return len(waiting)
