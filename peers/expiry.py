"""Access that ends soon: said once for each end, on the pages and by mail."""

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from functools import partial, reduce
from operator import or_
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.template.loader import render_to_string
from django.utils import timezone

from audit.services import SYSTEM, act, cut
from audit.verbs import Verb
from fleet.attempts import do_all
from fleet.models import Environment
from fleet.post import MaybeSent, Post, can_mail, trouble_of
from peers.models import ExpiryWarning, Peer, Person

SOONEST, LATEST = dt.timedelta(minutes=1), dt.timedelta(hours=6)
NEVER = Q(pk__in=[])
UNWRITABLE = (TemplateDoesNotExist, TemplateSyntaxError, LookupError, ValueError)


def ends_soon(now: dt.datetime) -> Q:
    """Live peers whose end is as near as their environment warns of."""
    places: defaultdict[dt.timedelta, list[int]] = defaultdict(list)
    for pk, before in Environment.objects.values_list("pk", "warn_before"):
        places[before].append(pk)
    if not places:
        return NEVER
    near = [Q(server__environment__in=ids, expires_at__lte=now + before) for before, ids in places.items()]
    # The widest bound stands by itself, so that an index finds the few that are near at all.
    return Q(reduce(or_, near), ended_at=None, expires_at__gt=now, expires_at__lte=now + max(places))


def warn_of_ends() -> int:
    """Each end that has come near is written down as told, once, in one act for each environment. How many."""
    now = timezone.now()
    told = ExpiryWarning.objects.filter(peer=OuterRef("pk"), expires_at=OuterRef("expires_at"))
    due = Peer.objects.filter(ends_soon(now), ~Exists(told)).defer("preshared_key")
    found: defaultdict[Environment, list[Peer]] = defaultdict(list)
    for peer in due.select_related("device__person", "server__environment").order_by("expires_at", "pk"):
        found[peer.server.environment].append(peer)
    return sum(_warn(environment, peers) for environment, peers in found.items())


def _warn(environment: Environment, peers: Sequence[Peer]) -> int:
    names = "; ".join(f"{peer} until {peer.expires_at:%Y-%m-%d %H:%M} UTC" for peer in peers)
    try:
        with act(Verb.EXPIRY_WARN, actor=SYSTEM, reason="access ends soon") as this:
            ExpiryWarning.objects.bulk_create(map(_warning_of, peers))
            this.on(environment, changes={"warned": ["", cut(names, 2000)]}, environment=environment.name)
    except IntegrityError:
        return 0  # another worker has told of one of them at this moment: the next sweep looks again
    return len(peers)


def _warning_of(peer: Peer) -> ExpiryWarning:
    assert peer.expires_at is not None  # else it does not end
    return ExpiryWarning(peer=peer, expires_at=peer.expires_at)


def warnings_to_mail(now: dt.datetime) -> QuerySet[ExpiryWarning]:
    """Those whose mail is due. What was renewed or has ended meanwhile is no news any more."""
    near = ExpiryWarning.objects.filter(next_try_at__isnull=False, next_try_at__lte=now, expires_at__gt=now)
    current = near.filter(peer__ended_at=None, peer__expires_at=F("expires_at"))
    return current.exclude(peer__device__person__email="")


def mail_warnings() -> int:
    """One mail to each person, of all that is due. How many were taken by the mail server."""
    if not can_mail():
        return 0
    sent: list[bool] = []
    people = set(warnings_to_mail(timezone.now()).values_list("peer__device__person", flat=True))
    do_all(partial(_reach, person, sent) for person in Person.objects.filter(pk__in=people).order_by("pk"))
    return sum(sent)


def _reach(person: Person, sent: list[bool]) -> None:
    if not _due_of(person).exists():
        return  # put off, as nobody could be reached a moment ago
    try:
        with Post() as post:
            sent.append(_mail(person, post))
    except OSError as error:
        # Nobody can be reached: nothing was claimed, and all of it waits.
        _put_off(warnings_to_mail(timezone.now()), error)


def _due_of(person: Person) -> QuerySet[ExpiryWarning]:
    return warnings_to_mail(timezone.now()).filter(peer__device__person=person)


def _mail(person: Person, post: Post) -> bool:
    """The claim is committed before a byte is sent: who dies in between told nobody, and none twice."""
    try:
        claimed, body = _claim(person)
    except UNWRITABLE as error:  # nothing was claimed, and the page says so
        _put_off(_due_of(person), error)
        raise
    if not claimed:
        return False
    rows = ExpiryWarning.objects.filter(pk__in=[warning.pk for warning in claimed])
    try:
        post.send(to=person.email, subject="Your VPN access ends soon", body=body)
    except MaybeSent:
        rows.update(trouble="The line broke while it was mailed: nobody knows whether it arrived.")
        return False
    except (OSError, ValueError) as error:
        _put_off(rows, error)
        return False
    _record_mailed(person, claimed, rows)
    return True


def _claim(person: Person) -> tuple[list[ExpiryWarning], str]:
    """What is to be told now, and the mail: written first, so that nothing is claimed for one that cannot be."""
    with transaction.atomic():
        locked = (
            _due_of(person).select_for_update(of=("self",)).select_related("peer__device", "peer__server__environment")
        )
        claimed = list(locked.order_by("expires_at", "peer__server__name", "peer__device__name"))
        body = body_of(person, claimed)
        values = {"next_try_at": None, "mailed_to": person.email, "trouble": ""}
        ExpiryWarning.objects.filter(pk__in=[row.pk for row in claimed]).update(**values)
    return claimed, body


def _record_mailed(person: Person, claimed: Sequence[ExpiryWarning], rows: QuerySet[ExpiryWarning]) -> None:
    places = {warning.peer.server.environment.name for warning in claimed}
    with act(Verb.EXPIRY_MAIL, actor=SYSTEM, reason="access ends soon") as this:
        rows.update(mailed_at=timezone.now())
        names = "; ".join(str(warning.peer) for warning in claimed)
        this.on(person, changes={"mailed": ["", cut(names, 2000)]}, environment=min(places) if len(places) == 1 else "")


def _put_off(rows: QuerySet[ExpiryWarning], error: Exception) -> None:
    """Tried again after a minute, then after twice as long each time, up to six hours; until the end has come."""
    now, trouble = timezone.now(), trouble_of(error)
    found = dict(rows.values_list("pk", "failures"))
    for failures in set(found.values()):
        later = now + min(LATEST, SOONEST * 2 ** min(failures, 10))
        same = ExpiryWarning.objects.filter(pk__in=[pk for pk in found if found[pk] == failures], mailed_at=None)
        same.update(next_try_at=later, failures=F("failures") + 1, trouble=trouble)


def body_of(person: Person, warnings: Sequence[ExpiryWarning]) -> str:
    context = {"name": _one_line(person.name), "ends": list(map(_line, warnings)), "url": settings.CONSOLE_URL}
    return render_to_string("mail/access_ends.txt", context)


def _line(warning: ExpiryWarning) -> str:
    """Where, with what, and until when as the clock on the wall says there."""
    server, zone = warning.peer.server, warning.peer.server.environment.time_zone
    device = _one_line(warning.peer.device.name)
    return f"{server.name} ({server.environment.name}), with {device}: until {said(warning.expires_at, zone)}"


def said(moment: dt.datetime, zone: str) -> str:
    """`2026-12-03 18:00 Europe/Berlin (17:00 UTC)`."""
    local, utc = moment.astimezone(ZoneInfo(zone)), moment.astimezone(dt.UTC)
    if zone == "UTC":
        return f"{utc:%Y-%m-%d %H:%M} UTC"
    day = "" if local.date() == utc.date() else f"{utc:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M} {zone} ({day}{utc:%H:%M} UTC)"


def _one_line(text: str) -> str:
    """Whatever stands in a row: in a mail it is one line of printable characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
