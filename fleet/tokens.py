"""The write path for API tokens."""

import hashlib
import secrets
from datetime import datetime

from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_admin, require_reason
from fleet.models import ApiToken, User

PREFIX = "muster_"


def add_token(
    *, actor: Actor, user: User, name: str, scope: str, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """The row and the token itself, which is shown once and kept nowhere."""
    require_admin(actor)
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expires_at": "Give an end in the future."})
    text = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken(user=user, name=name, scope=scope, expires_at=expires_at, digest=digest_of(text))
    with act(Verb.TOKEN_ADD, actor=actor) as this:
        token.full_clean()
        token.save(force_insert=True)
        this.on(token)
    return token, text


def revoke_token(*, actor: Actor, token: ApiToken, reason: str) -> None:
    require_admin(actor)
    require_reason(reason, "Say why.")
    with act(Verb.TOKEN_REVOKE, actor=actor, reason=reason) as this:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        this.on(token, changes={"revoked_at": ["None", str(token.revoked_at)]})


def digest_of(text: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
