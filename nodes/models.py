"""What the workers keep: login keys, enrolments, leases, attempts, plans, and what waits for a person."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from fleet import fields
from fleet.models import Bastion, Server
from peers.models import Peer


class Credential(models.Model):
    """The Console's SSH key for one Server or Bastion, sealed with the keyring `nodes` that only workers have."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    server = models.OneToOneField(Server, models.CASCADE, null=True, blank=True, related_name="credential")
    bastion = models.OneToOneField(Bastion, models.CASCADE, null=True, blank=True, related_name="credential")
    private_key = models.TextField(editable=False)
    public_key = models.CharField(max_length=200, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(server=None, bastion__isnull=False) | Q(server__isnull=False, bastion=None),
                name="nodes_credential_one_place",
            )
        ]

    def __str__(self) -> str:
        return f"key for {self.server or self.bastion}"


class Enrolment(models.Model):
    """One attempt to put muster-node on a machine and make it a Server of the fleet."""

    class State(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    server = models.ForeignKey(Server, models.CASCADE, related_name="enrolments")
    confirmed_host_key = models.CharField(max_length=1000)
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    progress = models.TextField(blank=True, default="")
    error = models.TextField(blank=True, default="")
    requested_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"enrolment of {self.server}"


class BootstrapLogin(models.Model):
    """A login for one enrolment, boxed for the workers. Deleted on use, or ten minutes after it was made."""

    enrolment = models.OneToOneField(Enrolment, models.CASCADE, primary_key=True, related_name="login")
    boxed = models.TextField(editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"login for {self.enrolment}"


class Lease(models.Model):
    """Who reconciles a server just now. It saves work; what keeps a server safe is the node's fence."""

    server = models.OneToOneField(Server, models.CASCADE, primary_key=True, related_name="lease")
    holder = models.UUIDField(null=True)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"lease on {self.server_id}"


class Run(models.Model):
    """One attempt to reconcile a server: what it found and did."""

    class Outcome(models.TextChoices):
        APPLIED = "applied"
        ALREADY = "already"
        HELD = "held"
        FAILED = "failed"

    server = models.ForeignKey(Server, models.CASCADE, related_name="runs")
    epoch = models.PositiveIntegerField()
    generation = models.PositiveBigIntegerField()
    outcome = models.CharField(max_length=8, choices=Outcome)
    detail = models.CharField(max_length=500, blank=True, default="")
    added = models.PositiveIntegerField(default=0)
    removed = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField(default=timezone.now)
    seconds = models.FloatField(default=0)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["started_at"], name="nodes_run_started")]

    def __str__(self) -> str:
        return f"{self.server} generation {self.generation}: {self.outcome}"


class PlanRequest(models.Model):
    """A dry run that somebody asked for; a worker fills in what a push would change."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    server = models.ForeignKey(Server, models.CASCADE, related_name="plan_requests")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True)
    plan = models.JSONField(null=True)
    error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"plan of {self.server}"


class Hold(models.Model):
    """A cause whose removals wait for a person, once for all servers. `act` is the Event that caused them."""

    act = models.UUIDField(unique=True, help_text="The act that removes peers; all zero for a cause nobody recorded.")
    cause = models.CharField(max_length=500, help_text="Who did what, when and why, in words.")
    servers = models.ManyToManyField(Server, through="HeldPush", related_name="holds")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    approved_at = models.DateTimeField(null=True, blank=True)
    approved_by = models.CharField(max_length=254, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="", validators=[fields.one_line])

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.cause


class HeldPush(models.Model):
    """How many peers a held cause would take from one server."""

    hold = models.ForeignKey(Hold, models.CASCADE, related_name="pushes")
    server = models.ForeignKey(Server, models.CASCADE, related_name="held_pushes")
    removals = models.PositiveIntegerField()
    held = models.PositiveIntegerField()

    class Meta:
        verbose_name_plural = "held pushes"
        constraints = [models.UniqueConstraint(fields=["hold", "server"], name="nodes_held_push_once")]

    def __str__(self) -> str:
        return f"{self.removals} of {self.held} peers of {self.server}"


class ReviewItem(models.Model):
    """A peer that was shut at its machine. It stays out until a person decides."""

    class Decision(models.TextChoices):
        RESUME = "resume"
        REVOKE = "revoke"

    server = models.ForeignKey(Server, models.CASCADE, related_name="reviews")
    peer = models.ForeignKey(Peer, models.PROTECT, related_name="reviews")
    entry = models.CharField(max_length=64, editable=False, help_text="The hash of the journal's entry.")
    what = models.CharField(max_length=40)
    detail = models.CharField(max_length=500)
    by = models.CharField(max_length=100, help_text="Who, as the machine knows.")
    at = models.DateTimeField(help_text="When, by the machine's clock.")
    seen_at = models.DateTimeField(default=timezone.now, editable=False)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=254, blank=True, default="")
    decision = models.CharField(max_length=6, choices=Decision, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="", validators=[fields.one_line])

    class Meta:
        ordering = [F("decided_at").asc(nulls_first=True), "-id"]
        constraints = [
            models.UniqueConstraint(fields=["peer"], condition=Q(decided_at=None), name="nodes_review_open_once"),
            models.CheckConstraint(
                condition=Q(decided_at=None, decision="") | (Q(decided_at__isnull=False) & ~Q(decision="")),
                name="nodes_review_decision_named",
            ),
        ]

    def __str__(self) -> str:
        return str(self.peer)

    @property
    def state(self) -> str:
        return self.decision or ("over" if self.peer.ended_at else "waiting")
