"""Who access belongs to: people, their teams and their devices."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fleet import fields
from fleet.models import User
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
    left_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="Everything they had ended then.")

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "people"
        constraints = [
            models.UniqueConstraint(
                fields=["email"],
                condition=~Q(email="") & Q(left_at=None),
                name="peers_person_email",
                violation_error_code="unique",
                violation_error_message="Somebody else has this e-mail address: look under People.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Team(models.Model):
    """People who get access together."""

    name = models.CharField(max_length=63, validators=[fields.valid_name])
    description = models.CharField(max_length=200, blank=True, default="", validators=[fields.one_line])
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["name"],
                condition=Q(ended_at=None),
                name="peers_team_name",
                violation_error_code="unique",
                violation_error_message="There is a team of this name: add people to it, or choose another name.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """The interval in which a Person belongs to a Team, until `until` or its end. One that was given another end goes
    on from the one before it."""

    person = models.ForeignKey(Person, models.PROTECT, related_name="memberships")
    team = models.ForeignKey(Team, models.PROTECT, related_name="memberships")
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    until = models.DateTimeField(null=True, blank=True)
    added_by = models.CharField(max_length=254, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    goes_on_from = models.OneToOneField(
        "self", models.PROTECT, null=True, blank=True, editable=False, related_name="goes_on_as"
    )
    end_reason = models.CharField(max_length=500, blank=True, default="", editable=False, validators=[fields.one_line])

    class Meta:
        ordering = ["team__name", "person__name"]
        constraints = [
            models.UniqueConstraint(
                fields=["person", "team"],
                condition=Q(ended_at=None),
                name="peers_membership_once",
                violation_error_message="This person is in the team already.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.person.name} in {self.team}"


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
