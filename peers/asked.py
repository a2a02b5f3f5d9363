"""What people ask about, as they write it: a time, an address or a network."""

import datetime as dt
import re
from ipaddress import ip_network

from django.core.exceptions import ValidationError
from django.utils import timezone

from fleet.pools import Network

# The plus of a zone's offset reads as a space in an address line where nobody encoded it.
LOST_PLUS = re.compile(r"(.+T\d\d:\d\d\S*) (\d\d:?\d\d)")


def parse_moment(text: str) -> dt.datetime:
    """ISO 8601; without a zone it is the Console's own. Empty for now. ValidationError for what is none, and for what
    is still to come."""
    text = LOST_PLUS.sub(r"\1+\2", text.strip())
    if not text:
        return timezone.now()
    try:
        at = dt.datetime.fromisoformat(text)
        at = timezone.make_aware(at) if timezone.is_naive(at) else at
        at = at.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        message = f"{text[:40]!r} is no time: write it as 2026-03-04T14:00:00+01:00, or without a zone as"
        raise ValidationError({"at": f"{message} {timezone.get_default_timezone_name()} has it."}) from None
    refuse_future(at)
    return at


def refuse_future(at: dt.datetime) -> None:
    if at > timezone.now():
        raise ValidationError({"at": "This time is still to come: what was is asked, up to now."})


def parse_asked_network(text: str, field: str = "network") -> Network:
    """An address or a network of either family, as people write them; ValidationError names the field."""
    try:
        found = ip_network(text.strip(), strict=False)
    except ValueError:
        message = f"{text[:60]!r} is no address or network: give one such as 10.20.0.7, 10.20.0.0/16 or fd00::/64."
        raise ValidationError({field: message}) from None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is None or found.prefixlen < 96:
        return found
    return ip_network(f"{mapped}/{found.prefixlen - 96}", strict=False)
