"""Events, to read. Whoever registers EventAdmin narrows it to what the user may see."""

from typing import Any

from auditlog import admin as auditlog_admin
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from audit.models import Event

# django-auditlog registers the log model by itself, with pages that Unfold cannot draw.
assert auditlog_admin.LogEntry is Event
admin.site.unregister(Event)


class EventAdmin(ModelAdmin):
    """Read-only: the ledger is append-only, here as in the database."""

    list_display = ("timestamp", "what", "target", "environment", "by", "came_from", "reason")
    list_filter = ("verb", "environment_label", "origin")
    search_fields = ("target_label", "actor_label", "reason", "changes")
    date_hierarchy = None
    list_fullwidth = True
    ordering = ("-id",)
    fields = (
        *("timestamp", "verb", "target", "environment", "by", "came_from", "remote_addr"),
        *("reason", "differences", "act"),
    )
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        rows: QuerySet[Event] = super().get_queryset(request)
        return rows

    @display(description="verb", ordering="verb", label={"": "danger"})
    def what(self, event: Event) -> tuple[str, str]:
        return event.verb, event.verb or "unexplained"

    @display(description="target", ordering="target_label")
    def target(self, event: Event) -> str:
        return event.target_label

    @display(description="environment", ordering="environment_label")
    def environment(self, event: Event) -> str:
        return event.environment_label

    @display(description="actor", ordering="actor_label")
    def by(self, event: Event) -> str:
        return event.actor_label

    @display(description="from")
    def came_from(self, event: Event) -> str:
        return f"{event.origin} {event.origin_detail}".strip()

    @display(description="changes")
    def differences(self, event: Event) -> SafeString | str:
        rows = [(name, *_pair(change)) for name, change in sorted((event.changes or {}).items())]
        if not rows:
            return "none"
        row = '<tr><th>{}</th><td class="old">{}</td><td class="new">{}</td></tr>'
        head = "<tr><th>field</th><th>old</th><th>new</th></tr>"
        return format_html(f'<table class="m-diff">{head}{{}}</table>', format_html_join("", row, rows))


def _pair(change: Any) -> tuple[str, str]:
    """auditlog keeps [old, new]; its many-to-many rows, which come from outside of services, hold a dict."""
    if isinstance(change, list) and len(change) == 2:
        return str(change[0]), str(change[1])
    return "", str(change)
