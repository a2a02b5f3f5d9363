"""What the helpdesk may: see as an auditor, ask for access, and take it away; and nothing else, by no way."""

import pytest
from django.core.exceptions import PermissionDenied

from audit.models import Event
from audit.services import SYSTEM
from fleet.models import Environment, Role, User
from fleet.scope import scope_of
from fleet.services import add_user, give_role
from peers.suspending import resume, suspend
from tests.acts import ACTS
from tests.asked import Asked
from tests.worlds import WHY, Worlds, everything

pytestmark = pytest.mark.django_db


@pytest.fixture
def staging(worlds: Worlds) -> Environment:
    return worlds["staging"].environment


@pytest.fixture
def production(worlds: Worlds) -> Environment:
    return worlds["production"].environment


@pytest.fixture
def helen(staging: Environment) -> User:
    """The helpdesk of staging."""
    user = add_user(actor=SYSTEM, username="helen", email="", password=None, is_superuser=False)
    give_role(actor=SYSTEM, user=user, name=Role.Name.HELPDESK, environment=staging)
    return user


@pytest.mark.parametrize("asked", ACTS, ids=str)
def test_the_helpdesk_gets_what_is_its_own_inside_staging_alone(asked: Asked, worlds: Worlds, helen: User) -> None:
    """B2, B5, D4."""
    world, other = worlds["staging"], worlds["production"]
    before = everything()
    for refused in [other] if asked.who == "helpdesk" else [world, other]:
        with pytest.raises(PermissionDenied):
            asked.ask(refused, helen)
    assert everything() == before
    if asked.who == "helpdesk":
        asked.ask(world, helen)
        assert Event.objects.latest("pk").actor_label == "helen"


def test_the_helpdesk_suspends_whom_it_covers_and_lets_nobody_in_again(worlds: Worlds, helen: User, bob: User) -> None:
    world, other = worlds["staging"], worlds["production"]
    before = everything()
    for target in (other.person, other.device):
        with pytest.raises(PermissionDenied):
            suspend(actor=helen, targets=[target], reason=WHY)
    with pytest.raises(PermissionDenied):
        suspend(actor=helen, targets=[world.person, other.person], reason=WHY)
    assert everything() == before
    (suspension,) = suspend(actor=helen, targets=[world.person], reason=WHY)
    with pytest.raises(PermissionDenied):
        resume(actor=helen, suspension=suspension, reason=WHY)
    assert resume(actor=bob, suspension=suspension, reason=WHY).ended_by == "bob"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (Role.Name.OPERATOR, (True, True, True)),
        (Role.Name.HELPDESK, (True, False, True)),
        (Role.Name.AUDITOR, (True, False, False)),
    ],
)
@pytest.mark.parametrize("is_everywhere", [False, True])
def test_each_role_has_its_scope(
    name: Role.Name, fields: tuple[bool, bool, bool], is_everywhere: bool, staging: Environment, charlie: User
) -> None:
    """B2."""
    give_role(actor=SYSTEM, user=charlie, name=name, environment=None if is_everywhere else staging)
    here = None if is_everywhere else frozenset({staging.pk})
    scope = scope_of(charlie)
    expected = tuple(here if is_held else frozenset() for is_held in fields)
    assert (scope.sees, scope.operates, scope.helps) == expected
    assert (not scope.is_empty, scope.is_operator, scope.is_helper) == fields


def test_two_roles_add_up(staging: Environment, production: Environment, helen: User) -> None:
    give_role(actor=SYSTEM, user=helen, name=Role.Name.OPERATOR, environment=production)
    scope = scope_of(User.objects.get(pk=helen.pk))
    both = frozenset({staging.pk, production.pk})
    assert (scope.sees, scope.operates, scope.helps) == (both, frozenset({production.pk}), both)
