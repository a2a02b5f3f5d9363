"""Rights, and the requests that some of them come from. Grants are intervals: they end, they are not edited."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fleet import fields
from fleet.models import Environment, Server, User
from peers.models.who import Person, Team
from peers.windows import BadHours, parse_hours

ONE_PLACE = Q(environment=None, server__isnull=False) | Q(environment__isnull=False, server=None)


def valid_hours(value: str) -> None:
    try:
        parse_hours(value)
    except BadHours as error:
        raise ValidationError(str(error)) from None


class Place(models.Model):
    """To where, for what, and at which hours: what a grant and a request for one have in common."""

    environment = models.ForeignKey(Environment, models.PROTECT, null=True, blank=True, related_name="%(class)ss")
    server = models.ForeignKey(Server, models.PROTECT, null=True, blank=True, related_name="%(class)ss")
    networks = models.JSONField(
        default=list,
        blank=True,
        validators=[fields.valid_networks],
        help_text="What the tunnel carries; empty for everything.",
    )
    hours = models.CharField(
        max_length=200,
        blank=True,
        default="",
        validators=[valid_hours],
        help_text="Access windows in the environment's time zone, such as mon-fri 08:00-18:00; empty for always.",
    )
    reason = models.CharField(max_length=500, validators=[fields.one_line])

    class Meta:
        abstract = True

    @property
    def place(self) -> Environment:
        """The environment whose operators decide about it."""
        if self.environment is not None:
            return self.environment
        assert self.server is not None  # the constraint ..._one_place
        return self.server.environment


class AccessRequest(Place):
    """Somebody asks for access; operators of the place decide, two of them where the environment asks for it."""

    class Decision(models.TextChoices):
        APPROVED = "approved"
        DENIED = "denied"
        CANCELLED = "cancelled"

    person = models.ForeignKey(Person, models.PROTECT, related_name="access_requests")
    duration = models.DurationField(
        help_text="How long the access is for, from its approval: days hours:minutes:seconds."
    )
    asked_by = models.CharField(max_length=254, editable=False)
    asker = models.ForeignKey(User, models.PROTECT, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    first_approved_by = models.CharField(max_length=254, blank=True, default="", editable=False)
    first_approver = models.ForeignKey(User, models.PROTECT, null=True, editable=False, related_name="+")
    first_approved_at = models.DateTimeField(null=True, blank=True, editable=False)
    decision = models.CharField(max_length=10, choices=Decision, blank=True, default="", editable=False)
    decided_by = models.CharField(max_length=254, blank=True, default="", editable=False)
    decided_at = models.DateTimeField(null=True, blank=True, editable=False)
    decision_reason = models.CharField(max_length=500, blank=True, default="", validators=[fields.one_line])

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=ONE_PLACE,
                name="peers_request_one_place",
                violation_error_message="Ask for access to an environment or to a server: one of them.",
            ),
            models.CheckConstraint(
                condition=Q(decided_at=None, decision="") | (Q(decided_at__isnull=False) & ~Q(decision="")),
                name="peers_request_decided",
            ),
        ]
        indexes = [models.Index(fields=["person"], condition=Q(decided_at=None), name="peers_request_open")]

    def __str__(self) -> str:
        return f"{self.person.name} to {self.environment or self.server}"

    @property
    def state(self) -> str:
        """One word for lists."""
        return self.decision or ("half approved" if self.first_approved_at else "open")


class Grant(Place):
    """A right of a Person or a Team to an Environment or one Server, from `begins_at` until `until` or its end. One
    that was given another end goes on from the one before it."""

    person = models.ForeignKey(Person, models.PROTECT, null=True, blank=True, related_name="grants")
    team = models.ForeignKey(Team, models.PROTECT, null=True, blank=True, related_name="grants")
    pool = models.CharField(
        max_length=63,
        blank=True,
        default="",
        validators=[fields.valid_name],
        help_text="The named pool that new peers get addresses from, where their server has one of this name.",
    )
    begins_at = models.DateTimeField("from", default=timezone.now)
    until = models.DateTimeField(null=True, blank=True)
    granted_by = models.CharField(max_length=254, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    begun_at = models.DateTimeField(null=True, editable=False, help_text="When the peers that follow were made.")
    request = models.OneToOneField(AccessRequest, models.PROTECT, null=True, blank=True, editable=False)
    moved_from = models.ForeignKey("self", models.PROTECT, null=True, blank=True, editable=False, related_name="moves")
    goes_on_from = models.OneToOneField(
        "self", models.PROTECT, null=True, blank=True, editable=False, related_name="goes_on_as"
    )
    end_reason = models.CharField(max_length=500, blank=True, default="", editable=False, validators=[fields.one_line])

    class Meta:
        ordering = ["-begins_at"]
        constraints = [
            models.CheckConstraint(
                condition=ONE_PLACE,
                name="peers_grant_one_place",
                violation_error_message="Grant access to an environment or to a server: one of them.",
            ),
            models.CheckConstraint(
                condition=Q(person=None, team__isnull=False) | Q(person__isnull=False, team=None),
                name="peers_grant_one_holder",
                violation_error_message="Grant access to a person or to a team: one of them.",
            ),
        ]
        indexes = [
            models.Index(fields=["begins_at"], condition=Q(begun_at=None, ended_at=None), name="peers_grant_due")
        ]

    def __str__(self) -> str:
        return f"{self.holder} to {self.environment or self.server}"

    @property
    def holder(self) -> Person | Team:
        found = self.person or self.team
        assert found is not None  # the constraint peers_grant_one_holder
        return found
