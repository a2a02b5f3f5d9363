"""API tokens, how a request shows one, and how an error is explained to a script."""

import hashlib
import secrets
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoDenied
from django.core.exceptions import ValidationError as DjangoInvalid
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, get_authorization_header
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, exception_handler

from audit.context import came_by_token
from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_admin
from fleet.models import ApiToken, Role, User
from fleet.pools import PoolExhausted

PREFIX = "muster_"
SAFE = {"GET", "HEAD", "OPTIONS"}


def add_token(
    *, actor: Actor, user: User, name: str, scope: str, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """The row and the token itself, which is shown once and kept nowhere."""
    require_admin(actor)
    text = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken(user=user, name=name, scope=scope, expires_at=expires_at, digest=_digest(text))
    with act(Verb.TOKEN_ADD, actor=actor) as this:
        token.full_clean()
        token.save(force_insert=True)
        this.on(token)
    return token, text


def revoke_token(*, actor: Actor, token: ApiToken, reason: str) -> None:
    require_admin(actor)
    with act(Verb.TOKEN_REVOKE, actor=actor, reason=reason) as this:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        this.on(token, changes={"revoked_at": ["None", str(token.revoked_at)]})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer muster_...`; looked up by hash, refused from its first use after it ended."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        kind, _, text = get_authorization_header(request).partition(b" ")
        if kind.lower() != b"bearer":
            return None
        token = (
            ApiToken.objects.select_related("user")
            .filter(digest=hashlib.sha256(text.strip()).hexdigest(), revoked_at=None, user__is_active=True)
            .first()
        )
        if token is None or (token.expires_at and token.expires_at <= timezone.now()):
            raise exceptions.AuthenticationFailed("This token is unknown, ended or its user is disabled.")
        came_by_token(token.name)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class BrowserAuthentication(SessionAuthentication):
    """A signed-in browser, with CSRF protection."""


class MayOperate(BasePermission):
    """A superuser or somebody with a role; to change anything a token of scope operate. Services ask for the rest."""

    message = "Your token or role does not allow this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        user = request.user
        if not isinstance(user, User) or not user.is_active:
            return False
        if isinstance(request.auth, ApiToken) and request.auth.scope == ApiToken.Scope.READ:
            return request.method in SAFE
        return user.is_superuser or Role.objects.filter(user=user, ended_at=None).exists()


def explain_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """Services raise Django's own errors; a script gets them as 400, 403 or 409 with the field and the mend."""
    if isinstance(error, DjangoInvalid):
        error = exceptions.ValidationError(
            error.message_dict if hasattr(error, "error_dict") else {"non_field_errors": error.messages}
        )
    elif isinstance(error, DjangoDenied):
        error = exceptions.PermissionDenied(str(error))
    elif isinstance(error, PoolExhausted):
        error = exceptions.ValidationError({"server": [str(error)]}, code="pool_exhausted")
    return exception_handler(error, context)
