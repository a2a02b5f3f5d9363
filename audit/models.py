"""Event: one line of the ledger. Append-only; it carries copies, so it outlives whatever it names."""

from auditlog.models import AbstractLogEntry
from django.conf import settings
from django.db import models


class Event(AbstractLogEntry):
    """django-auditlog's log, swapped for ours. A row with an empty verb came from outside a service: an alarm."""

    act = models.UUIDField(null=True, unique=True, editable=False)
    verb = models.CharField(max_length=40, db_default="", default="", db_index=True)
    reason = models.CharField(max_length=500, db_default="", default="", blank=True)
    origin = models.CharField(max_length=12, db_default="", default="")
    origin_detail = models.CharField(max_length=100, db_default="", default="", blank=True)
    actor_label = models.CharField(max_length=254, db_default="", default="")
    target_label = models.CharField(max_length=254, db_default="", default="")
    environment_label = models.CharField(max_length=63, db_default="", default="", db_index=True)

    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.DO_NOTHING,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="+",
    )
    content_type = models.ForeignKey("contenttypes.ContentType", models.PROTECT, related_name="+")

    class Meta(AbstractLogEntry.Meta):
        abstract = False
        verbose_name = "event"
        verbose_name_plural = "events"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.verb or 'unexplained change'} {self.target_label or self.object_repr}"
