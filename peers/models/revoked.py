"""What is dead for ever, and the proof of it."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from fleet import fields
from fleet.models import Server
from peers.models.who import Person, valid_public_key


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


# Receipts that are waited for: a server that was never set up has nothing to prove.
PENDING = Q(confirmed_at=None, is_needless=False)


class Receipt(models.Model):
    """Whether one server was read back without one revoked key: from its kernel and its disk, at a generation."""

    revocation = models.ForeignKey(Revocation, models.PROTECT, related_name="receipts")
    server = models.ForeignKey(Server, models.PROTECT, related_name="receipts")
    public_key = models.CharField(max_length=44)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    overdue_at = models.DateTimeField(null=True, blank=True, help_text="When it was told that it is late.")
    mailed_at = models.DateTimeField(null=True, blank=True, help_text="When that went out by mail.")
    is_gone_from_kernel = models.BooleanField(default=False)
    is_gone_from_disk = models.BooleanField(default=False)
    is_durable = models.BooleanField(default=False)
    generation = models.PositiveBigIntegerField(null=True, blank=True)
    found = models.JSONField(default=list, help_text="Places on the server where the key still is.")
    is_needless = models.BooleanField(
        default=False, help_text="The server had not been set up when the key was revoked: it never was there."
    )

    class Meta:
        ordering = ["server__name"]
        constraints = [
            models.UniqueConstraint(fields=["server", "public_key"], name="peers_receipt_once"),
            models.CheckConstraint(
                condition=Q(confirmed_at=None) | Q(is_gone_from_kernel=True, is_gone_from_disk=True, is_durable=True),
                name="peers_receipt_is_proof",
            ),
            models.CheckConstraint(
                condition=Q(is_needless=False) | Q(confirmed_at=None), name="peers_receipt_needless_is_no_proof"
            ),
        ]
        indexes = [models.Index(fields=["server"], condition=PENDING, name="peers_receipt_waited_for")]

    def __str__(self) -> str:
        return f"{self.server.name}: {self.state}"

    @property
    def state(self) -> str:
        if self.is_needless:
            return "nothing to confirm"
        return "confirmed" if self.confirmed_at else "pending"
