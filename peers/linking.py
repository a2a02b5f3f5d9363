"""Who a Person is in the Console: their sign-in, by which they ask for access for themselves and see what they have."""

from django.core.exceptions import ValidationError

from audit.services import Actor, act
from audit.verbs import Verb
from fleet.access import require_admin, require_reason
from fleet.models import User
from peers.models import Person
from peers.services import who_stay
from peers.settle import lock_devices


def link_user(*, actor: Actor, person: Person, user: User | None, reason: str) -> Person:
    """From now on the person is this user; nobody's where `user` is None. One user is one person."""
    require_admin(actor)
    require_reason(reason)
    with act(Verb.PERSON_LINK, actor=actor, reason=reason) as this:
        lock_devices([person.pk])
        person.refresh_from_db(fields=["user", "left_at"])
        before = person.user
        if user is not None:
            who_stay([person])
            _check(person, user)
        person.user = user
        person.save(update_fields=["user"])
        this.on(person, changes={"user": [str(before or ""), str(user or "")]})
    return person


def _check(person: Person, user: User) -> None:
    if not user.is_active:
        raise ValidationError({"user": f"The sign-in {user} is disabled: enable it first."})
    other = Person.objects.filter(user=user).first()
    if other is not None:
        whose = "this person's" if other.pk == person.pk else f"{other}'s"
        raise ValidationError({"user": ValidationError(f"The sign-in {user} is {whose} already.", code="taken")})
