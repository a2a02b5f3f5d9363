"""Sign-ins and refused sign-ins, as Events."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser

from audit.services import SYSTEM, act
from audit.verbs import Verb


def record_sign_in(user: AbstractBaseUser, **kwargs: Any) -> None:
    with act(Verb.SIGN_IN, actor=user) as this:
        this.on(user, changes={})


def record_refusal(credentials: dict[str, Any], **kwargs: Any) -> None:
    """The name that was tried is kept; whatever was given as a password never is."""
    tried = get_user_model()(username=str(credentials.get("username", ""))[:150])
    with act(Verb.SIGN_IN_REFUSED, actor=SYSTEM) as this:
        this.on(tried, changes={})
