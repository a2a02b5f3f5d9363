"""What services refuse with, in one form for every door: field -> messages."""

from collections.abc import Callable

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse

from audit.services import act, cut
from audit.verbs import Verb
from fleet.models import User
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


def record_refusal(actor: object, asked: str, error: Exception) -> None:
    """Who was refused what, and why: after the transaction of what they asked for was rolled back."""
    if isinstance(actor, User):
        with act(Verb.REFUSED, actor=actor, reason=str(error)) as this:
            this.on(actor, changes={"asked": ["", cut(asked, 500)]})


class RefusalMiddleware:
    """Records refusals that no form and no API answer has recorded, of what was to change something."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> None:
        if isinstance(error, PermissionDenied) and request.method == "POST":
            record_refusal(request.user, f"{request.method} {request.path}", error)
