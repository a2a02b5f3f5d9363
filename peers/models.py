"""Who has access to what. Grants, Devices and Peers are intervals: rows end, they are not edited or deleted."""

import datetime as dt
import uuid

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fleet import fields
from fleet.models import AddressRange, Environment, Server, User
from peers.keys import BadKey, parse_device_key


def valid_public_key(value: str) -> None:
    try:
        parse_device_key(value)
    except BadKey as error:
        raise ValidationError(str(error)) from None


class Person(models.Model):
    """Who access belongs to."""

    class Kind(models.TextChoices):
        EMPLOYEE = "employee"
        CONTRACTOR = "contractor"
        SERVICE = "service"

    name = models.CharField(max_length=100, validators=[fields.one_line])
    email = models.EmailField(blank=True, default="")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.EMPLOYEE)
    user = models.OneToOneField(User, models.PROTECT, null=True, blank=True, related_name="person")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "people"
        constraints = [models.UniqueConstraint(fields=["email"], condition=~Q(email=""), name="peers_person_email")]

    def __str__(self) -> str:
        return self.name


class Device(models.Model):
    """One key pair of one Person; its public key is unique in the fleet for ever."""

    person = models.ForeignKey(Person, models.PROTECT, related_name="devices")
    name = models.CharField(max_length=63, validators=[fields.one_line])
    public_key = models.CharField(max_length=44, unique=True, validators=[valid_public_key])
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    replaces = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="replacements",
        help_text="An older key of the same person: it dies when this one first connects, and leaves its addresses.",
    )

    class Meta:
        ordering = ["person__name", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["replaces"],
                condition=Q(revoked_at=None),
                name="peers_device_replaced_once",
                violation_error_message="Another key replaces this device already: revoke that one first.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.person.name}'s {self.name}"


class Grant(models.Model):
    """A right of a Person to an Environment or one Server, from `began_at` until `until` or its end."""

    person = models.ForeignKey(Person, models.PROTECT, related_name="grants")
    environment = models.ForeignKey(Environment, models.PROTECT, null=True, blank=True, related_name="grants")
    server = models.ForeignKey(Server, models.PROTECT, null=True, blank=True, related_name="grants")
    networks = models.JSONField(
        default=list,
        blank=True,
        validators=[fields.valid_networks],
        help_text="What the tunnel carries; empty for everything.",
    )
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    until = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=500, validators=[fields.one_line])
    granted_by = models.CharField(max_length=254, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-began_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(environment=None, server__isnull=False) | Q(environment__isnull=False, server=None),
                name="peers_grant_one_place",
                violation_error_message="Grant access to an environment or to a server: one of them.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.person.name} to {self.environment or self.server}"

    @property
    def place(self) -> Environment:
        """The environment whose operators decide about this grant."""
        if self.environment is not None:
            return self.environment
        assert self.server is not None  # the constraint peers_grant_one_place
        return self.server.environment


# Two live peers have one address where the second replaces the first, and never else.
OWN_ADDRESSES = Q(ended_at=None, replaces=None)


class Peer(models.Model):
    """One Device on one Server. It ends once; `gone_at` is when the server was seen without it."""

    class End(models.TextChoices):
        WITHDRAWN = "withdrawn"
        REVOKED = "revoked"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    device = models.ForeignKey(Device, models.PROTECT, related_name="peers")
    server = models.ForeignKey(Server, models.PROTECT, related_name="peers")
    ipv4 = models.ForeignKey(AddressRange, models.PROTECT, related_name="peers4")
    ipv6 = models.ForeignKey(AddressRange, models.PROTECT, related_name="peers6")
    replaces = models.ForeignKey(
        "self", models.PROTECT, null=True, editable=False, help_text="The peer whose addresses it has, if another's."
    )
    preshared_key = models.CharField(max_length=200, editable=False, help_text="Sealed with the keyring `peers`.")
    networks = models.JSONField(default=list, help_text="What the tunnel carries, from the grants.")
    expires_at = models.DateTimeField(null=True, blank=True)
    issued_at = models.DateTimeField(default=timezone.now, editable=False)
    issued_by = models.CharField(max_length=254, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True)
    end = models.CharField(max_length=10, choices=End, blank=True, default="")
    ended_act = models.UUIDField(null=True, blank=True, help_text="The Event that ended it.")
    is_decided = models.BooleanField(default=False, help_text="Ended by a decision about this one person.")
    gone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["server__name", "device__person__name"]
        constraints = [
            models.UniqueConstraint(fields=["device", "server"], condition=Q(ended_at=None), name="peers_peer_once"),
            models.UniqueConstraint(fields=["ipv4"], condition=OWN_ADDRESSES, name="peers_peer_ipv4_once"),
            models.UniqueConstraint(fields=["ipv6"], condition=OWN_ADDRESSES, name="peers_peer_ipv6_once"),
            models.UniqueConstraint(fields=["replaces"], condition=Q(ended_at=None), name="peers_peer_replaced_once"),
            models.CheckConstraint(
                condition=Q(ended_at=None, end="") | (Q(ended_at__isnull=False) & ~Q(end="")),
                name="peers_peer_end_named",
            ),
        ]
        indexes = [
            models.Index(fields=["server"], condition=Q(ended_at=None), name="peers_peer_live"),
            models.Index(fields=["server"], condition=Q(gone_at=None), name="peers_peer_not_gone"),
        ]

    def __str__(self) -> str:
        return f"{self.device} on {self.server.name}"


class PeerStatus(models.Model):
    """What was seen of a Peer. Only `nodes/status.py` writes it."""

    peer = models.OneToOneField(Peer, models.CASCADE, primary_key=True, related_name="status")
    endpoint = models.CharField(max_length=60, blank=True, default="")
    latest_handshake_at = models.DateTimeField(null=True)
    transfer_rx = models.PositiveBigIntegerField(default=0)
    transfer_tx = models.PositiveBigIntegerField(default=0)
    observed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "peer statuses"

    def __str__(self) -> str:
        return f"status of {self.peer_id}"

    @property
    def is_connected(self) -> bool:
        """A live session renews its handshake every two minutes; three without one and it is gone."""
        age = timezone.now() - self.latest_handshake_at if self.latest_handshake_at else None
        return age is not None and age < dt.timedelta(minutes=3)


class Revocation(models.Model):
    """The act: what was revoked, by whom, why. Its receipts say where that is proven."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    person = models.ForeignKey(Person, models.PROTECT, null=True, blank=True, related_name="revocations")
    label = models.CharField(max_length=254, editable=False)
    reason = models.CharField(max_length=500, validators=[fields.one_line])
    revoked_by = models.CharField(max_length=254, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.label


class Tombstone(models.Model):
    """A public key that may never be a peer again, anywhere. Rows are only ever added."""

    public_key = models.CharField(max_length=44, unique=True, validators=[valid_public_key])
    revocation = models.ForeignKey(Revocation, models.PROTECT, related_name="tombstones")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.public_key


class Receipt(models.Model):
    """Whether one server was read back without one revoked key: from its kernel and its disk, at a generation."""

    revocation = models.ForeignKey(Revocation, models.PROTECT, related_name="receipts")
    server = models.ForeignKey(Server, models.PROTECT, related_name="receipts")
    public_key = models.CharField(max_length=44)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    is_gone_from_kernel = models.BooleanField(default=False)
    is_gone_from_disk = models.BooleanField(default=False)
    is_durable = models.BooleanField(default=False)
    generation = models.PositiveBigIntegerField(null=True, blank=True)
    found = models.JSONField(default=list, help_text="Places on the server where the key still is.")

    class Meta:
        ordering = ["server__name"]
        constraints = [
            models.UniqueConstraint(fields=["server", "public_key"], name="peers_receipt_once"),
            models.CheckConstraint(
                condition=Q(confirmed_at=None) | Q(is_gone_from_kernel=True, is_gone_from_disk=True, is_durable=True),
                name="peers_receipt_is_proof",
            ),
        ]
        indexes = [models.Index(fields=["server"], condition=Q(confirmed_at=None), name="peers_receipt_pending")]

    def __str__(self) -> str:
        return f"{self.server.name}: {'confirmed' if self.confirmed_at else 'pending'}"
