"""Where a public key was ever seen, also one that no device ever had."""

from collections.abc import Iterable, Iterator

from django.core.exceptions import ValidationError
from django.db.models import CharField, Q
from django.db.models.functions import Cast

from audit.models import Event
from audit.verbs import Verb
from fleet.scope import visible_servers
from peers.access import visible_devices, visible_peers, visible_receipts, visible_revocations
from peers.models import Tombstone
from peers.trace import Trace, of_event, some, span_of, visible_events

SHORTEST_KEY = 8
KEY_VERBS = (Verb.DEVICE_REGISTER, Verb.REVOKE, Verb.JOURNAL_ENTRY, Verb.REVIEW_ADD, Verb.SERVER_ENROLLED)


def key_traces(user: object, text: str) -> Iterator[Iterable[Trace]]:
    if len(text) < SHORTEST_KEY:
        raise ValidationError({"what": f"Give a public key, or its first {SHORTEST_KEY} characters at least."})
    yield _devices(user, text)
    yield _key_peers(user, text)
    yield _tombstones(user, text)
    receipts = visible_receipts(user).filter(public_key__startswith=text).select_related("revocation", "server")
    yield (
        Trace("receipt", one.public_key, one.revocation.label, one.server.name, one.created_at, one.confirmed_at, *rest)
        for one in some(receipts)
        if one.public_key.startswith(text)
        and (rest := ("seen gone" if one.confirmed_at else one.state, one.revocation))
    )
    yield (
        Trace("server's own key", one.public_key, "", one.name, one.enrolled_at, None, "", one)
        for one in some(visible_servers(user).filter(public_key__startswith=text))
        if one.public_key.startswith(text)
    )
    yield _key_events(user, text)


def _tombstones(user: object, text: str) -> Iterator[Trace]:
    dead = Tombstone.objects.filter(revocation__in=visible_revocations(user), public_key__startswith=text)
    for one in some(dead.select_related("revocation")):
        act, key = one.revocation, one.public_key
        if key.startswith(text):
            why = f"by {act.revoked_by}: {act.reason}"
            yield Trace("tombstone", key, act.label, "everywhere", one.created_at, None, why, act)


def _devices(user: object, text: str) -> Iterator[Trace]:
    for one in some(visible_devices(user).filter(public_key__startswith=text)):
        if one.public_key.startswith(text):
            yield Trace("device", one.public_key, str(one), "", one.created_at, one.revoked_at, "", one)


def _key_peers(user: object, text: str) -> Iterator[Trace]:
    peers = visible_peers(user).filter(device__public_key__startswith=text).defer("preshared_key")
    for one in some(peers):
        if one.device.public_key.startswith(text):
            yield Trace("peer", one.device.public_key, str(one.device), one.server.name, *span_of(one), row=one)


def _key_events(user: object, text: str) -> Iterator[Trace]:
    """Also of a key that no device ever had: what a node's journal names, what somebody revoked."""
    rows = visible_events(user).filter(verb__in=KEY_VERBS)
    rows = rows.annotate(said=Cast("changes", CharField())).filter(
        Q(said__contains=text) | Q(target_label__contains=text)
    )
    for event in some(rows):
        words = [word.strip(" ,") for word in _words(event)]
        for word in dict.fromkeys(word for word in words if word.startswith(text)):
            yield of_event(event, word)


def _words(event: Event) -> list[str]:
    values = [str(value) for pair in (event.changes or {}).values() for value in pair]
    return [word for value in (*values, event.target_label) for word in value.split()]
