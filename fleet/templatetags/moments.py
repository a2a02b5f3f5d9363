"""Times as people say them, and text as a shell takes it."""

import datetime as dt
import shlex

from django import template
from django.utils import timezone

register = template.Library()


@register.filter
def ago(moment: dt.datetime | None) -> str:
    """`12 s ago`, `5 min ago`, `3 h ago`, `2 d ago`; `never` for None."""
    if moment is None:
        return "never"
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


@register.filter
def clock(moment: dt.datetime | None) -> str:
    """The time of today as 14:02:07, any other with its day; empty for None."""
    if moment is None:
        return ""
    local = timezone.localtime(moment)
    day = "" if local.date() == timezone.localdate() else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M:%S}"


@register.filter
def shell_quoted(text: str) -> str:
    """One word for a shell: somebody will paste it as root."""
    return shlex.quote(text)
