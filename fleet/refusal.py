"""What services refuse with, in one form for every door: field -> messages."""

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.db import IntegrityError

from fleet.pools import PoolExhausted

REFUSED = (ValidationError, PermissionDenied, PoolExhausted, IntegrityError)
# A rightful request that something else, which happened before, stands against.
CONFLICTS = {"unique", "unique_together", "taken"}


def messages_of(error: Exception) -> dict[str, list[str]]:
    """Messages by field; those that belong to no field are under NON_FIELD_ERRORS."""
    if isinstance(error, ValidationError):
        return error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
    if isinstance(error, IntegrityError):
        return {NON_FIELD_ERRORS: ["Something else was changed at the same moment: look again and repeat."]}
    return {NON_FIELD_ERRORS: [str(error)]}


def is_conflict(error: Exception) -> bool:
    if isinstance(error, IntegrityError):
        return True
    if not isinstance(error, ValidationError):
        return False
    found = [one for many in error.error_dict.values() for one in many] if hasattr(error, "error_dict") else [error]
    codes = {one.code for many in found for one in getattr(many, "error_list", [many])}
    return bool(codes) and codes <= CONFLICTS
