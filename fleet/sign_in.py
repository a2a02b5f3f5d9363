"""How a request to the API says who it is, and whether that may be here at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, get_authorization_header
from rest_framework.permissions import BasePermission

from audit.context import came_by_token
from fleet.models import ApiToken, User
from fleet.scope import scope_of
from fleet.tokens import digest_of

if TYPE_CHECKING:  # the settings name these classes while rest_framework.views is still being imported
    from django.contrib.auth.models import AnonymousUser
    from rest_framework.request import Request
    from rest_framework.views import APIView

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer muster_...`; looked up by hash, refused from its first use after it ended."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        kind, _, text = get_authorization_header(request).partition(b" ")
        if kind.lower() != b"bearer":
            return None
        token = (
            ApiToken.objects.select_related("user")
            .filter(digest=digest_of(text.strip().decode("latin-1")), revoked_at=None, user__is_active=True)
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
    looks = SAFE

    def has_permission(self, request: Request, view: APIView) -> bool:
        is_look = request.method in self.looks
        if isinstance(request.auth, ApiToken) and request.auth.scope == ApiToken.Scope.READ and not is_look:
            return False
        return self.may_enter(request.user)

    def may_enter(self, user: User | AnonymousUser) -> bool:
        return not scope_of(user).is_empty


class MayFetchSecret(MayOperate):
    """As MayOperate, where to look is to be given a secret."""

    looks = frozenset[str]()
