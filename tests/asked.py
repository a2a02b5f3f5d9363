"""One act that a person can ask for, as tests/acts.py lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from audit.services import Actor
from tests.worlds import World


@dataclass(frozen=True)
class Asked:
    """One act: how it is asked for, what the ledger then says, and who may ask."""

    verb: str
    ask: Callable[[World, Actor], object]
    target: Callable[[World], str]
    reason: str = ""
    # place: operators of the environment; helpdesk: these and its helpdesk; operator: of any; admin: superusers
    who: str = "place"
    also: tuple[str, ...] = ()  # verbs of other acts that it carries out, and that write their Events before it

    def __str__(self) -> str:
        return self.ask.__name__


def asked(verb: str, target: Callable[[World], str], service: Callable[..., object], **rest: Any) -> Asked:
    """`rest`: reason and who; all else are arguments, called with the world where they are functions."""
    reason, who, also = rest.pop("says", ""), rest.pop("who", "place"), rest.pop("also", ())

    def ask(world: World, actor: Actor) -> object:
        return service(actor=actor, **{name: v(world) if callable(v) else v for name, v in rest.items()})

    ask.__name__ = service.__name__
    return Asked(verb, ask, target, reason, who, also)
