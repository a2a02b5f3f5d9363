"""The pages of people, devices, grants, peers and revocations. What they do is done by services."""

import datetime as dt
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Exists, F, Model, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action, display

from fleet.access import may_help, may_operate
from fleet.admin import one, page_of, seen, state_of
from fleet.questions import ask
from fleet.scope import scope_of
from fleet.templatetags.moments import ago
from peers.access import (
    visible_devices,
    visible_grants,
    visible_memberships,
    visible_peers,
    visible_people,
    visible_suspensions,
)
from peers.admin.ends import EndsWithin, Idle, ends_of
from peers.admin.leaving import LeavingPages, LostPages
from peers.admin.own import LinkedAdmin, OwnAdmin
from peers.admin.revocations import revocations_of
from peers.admin.suspensions import SuspendingPages
from peers.api.people import config_answer
from peers.forms import DeviceField, DeviceForm, DeviceSelect, PersonForm, device_choices
from peers.leaving import may_offboard
from peers.models import Device, Peer, Person, Suspension
from peers.moving import let_in
from peers.revocation import may_revoke, revoke_devices, revoke_person
from peers.rights import open_memberships
from peers.selectors import address_of
from peers.services import is_waiting, may_register
from peers.states import PEER_COLOURS, grant_state, membership_state, peer_state, suspension_state
from peers.waiting import seen_waiting

FOR_EVER = "Revoking is for ever: the key never comes back, on any server. To let somebody in again, issue a new key."


@admin.register(Person)
class PersonAdmin(SuspendingPages, LeavingPages, LinkedAdmin):
    form = PersonForm
    list_display = ("name", "email", "kind", "state", "devices_held", "created_at")
    list_filter = ("kind", ("left_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "email")
    actions = ("suspend_selected", "offboard_selected")
    actions_list = ("offboard_list",)
    actions_detail = ("grant", "add_device", "link", "suspend", "resume", "revoke", "offboard")
    change_form_outer_after_template = "admin/peers/person_access.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Person]:
        live = Count("devices", filter=Q(devices__revoked_at=None))
        kept = Suspension.objects.filter(person=OuterRef("pk"), ended_at=None)
        return visible_people(request.user).annotate(held=live, is_suspended=Exists(kept))

    def page_context(self, request: HttpRequest, obj: Person) -> dict[str, Any]:
        now = timezone.now()
        teams = open_memberships(now).filter(person=obj).values("team")
        grants = visible_grants(request.user).filter(Q(person=obj) | Q(team__in=teams, ended_at=None))
        shown = grants.order_by(F("ended_at").desc(nulls_first=True), "-begins_at")[:200]
        memberships = visible_memberships(request.user).filter(person=obj)
        newest = memberships.order_by(F("ended_at").desc(nulls_first=True), "team__name")[:200]
        theirs = Q(person=obj) | Q(device__person=obj) | Q(peer__device__person=obj)
        kept = visible_suspensions(request.user).filter(theirs, ended_at=None)
        return {
            "devices": visible_devices(request.user).filter(person=obj),
            "grants": [(grant, grant_state(grant)) for grant in shown],
            "memberships": [(membership, membership_state(membership)) for membership in newest],
            "peers": peer_rows(visible_peers(request.user).filter(device__person=obj), request.user),
            "ends": ends_of(visible_peers(request.user).filter(device__person=obj)),
            "revocations": revocations_of(request, obj),
            "suspensions": [(one, suspension_state(one)) for one in kept[:200]],
        }

    def idle(self, request: HttpRequest, row: Person) -> set[str]:
        keys = row.devices.values_list("public_key", flat=True)
        idle = self.idle_of(row, is_over=row.left_at is not None)
        idle |= set() if may_revoke(request.user, keys) else {"revoke"}
        if row.left_at:
            return idle | {"grant", "add_device", "offboard"}
        return idle if may_offboard(request.user, row) else idle | {"offboard"}

    @display(label={"left": "", "suspended": "warning", "": ""})
    def state(self, person: Any) -> str:
        return "left" if person.left_at else "suspended" if person.is_suspended else ""

    @display(description="devices", ordering="held")
    def devices_held(self, person: Any) -> int:
        return int(person.held)

    @action(description="Grant access", icon="key", permissions=["operate"])
    def grant(self, request: HttpRequest, object_id: str) -> HttpResponse:
        person = one(self, request, object_id)
        return HttpResponseRedirect(f"{reverse('admin:peers_grant_add')}?person={person.pk}")

    @action(description="Add device", icon="add_to_queue", permissions=["operate"])
    def add_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        person = one(self, request, object_id)
        return HttpResponseRedirect(f"{reverse('admin:peers_device_add')}?person={person.pk}")

    @action(description="Revoke everything", icon="block", permissions=["help"], variant="danger")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        person = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(revoke_person(actor=request.user, person=person, reason=values["reason"]))

        title = f"Revoke everything of {person}?"
        return ask(request, perform, title=title, text=FOR_EVER, button="Revoke everything", back=page_of(person))


@admin.register(Device)
class DeviceAdmin(SuspendingPages, LostPages):
    form = DeviceForm
    is_changed = False
    list_display = ("name", "person", "public_key", "state", "created_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("name", "person__name", "public_key")
    autocomplete_fields = ("person", "replaces")
    actions = ("suspend_selected", "revoke_selected")
    actions_detail = ("replace", "suspend", "resume", "lost", "revoke")
    change_form_outer_after_template = "admin/peers/device_peers.html"

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("person", "name", "public_key", "replaces")
        return (*shown, "replaced_by", "state", "created_at", "revoked_at") if obj else shown

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Device], term: str) -> Any:
        """What a new key may replace is alive."""
        found, has_duplicates = super().get_search_results(request, queryset, term)
        is_choice = request.GET.get("field_name") == "replaces"
        return (found.filter(revoked_at=None) if is_choice else found), has_duplicates

    @display(description="replaced by")
    def replaced_by(self, device: Device) -> str:
        return ", ".join(f"{new}, since {new.created_at:%Y-%m-%d %H:%M}" for new in device.replacements.all()) or "none"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        kept = Suspension.objects.filter(device=OuterRef("pk"), ended_at=None)
        return visible_devices(request.user).annotate(is_suspended=Exists(kept))

    def page_context(self, request: HttpRequest, obj: Device) -> dict[str, Any]:
        peers = peer_rows(visible_peers(request.user).filter(device=obj), request.user)
        return {"peers": peers, "waits": seen_waiting([obj], request.user).get(obj.pk)}

    def idle(self, request: HttpRequest, row: Device) -> set[str]:
        idle = self.idle_of(row, is_over=row.revoked_at is not None)
        if not may_revoke(request.user, [row.public_key]):
            return idle | {"replace", "lost", "revoke"}
        is_replaced = is_waiting(row) or row.replacements.filter(revoked_at=None).exists()
        return (
            idle | {"replace"}
            if is_replaced or "suspend" in idle or not may_register(request.user, row.person)
            else idle
        )

    @display(label={"live": "success", "replacing": "info", "suspended": "warning", "tombstoned": "danger"})
    def state(self, device: Any) -> str:
        if device.revoked_at:
            return "tombstoned"
        if device.is_suspended:
            return "suspended"
        return "replacing" if is_waiting(device) else "live"

    def response_add(self, request: HttpRequest, obj: Device, post_url_continue: str | None = None) -> HttpResponse:
        """To its own page: there are its peers and their tunnel files."""
        answer = super().response_add(request, obj, post_url_continue)
        is_plain = not {"_addanother", "_popup"} & set(request.POST)
        return HttpResponseRedirect(page_of(obj)) if is_plain else answer

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "replaces":
            kwargs |= {"form_class": DeviceField, "widget": DeviceSelect(db_field, self.admin_site)}
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_custom_urls(self) -> Any:
        return (*super().get_custom_urls(), ("choices/", "peers_device_choices", device_choices))

    @action(description="Replace key", icon="autorenew", permissions=["operate"])
    def replace(self, request: HttpRequest, object_id: str) -> HttpResponse:
        device = one(self, request, object_id)
        values = urlencode({"person": device.person_id, "name": device.name, "replaces": device.pk})
        return HttpResponseRedirect(f"{reverse('admin:peers_device_add')}?{values}")

    @action(description="Revoke", icon="block", permissions=["help"], variant="danger")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        device = one(self, request, object_id)
        return self.ask_revoke(request, [device], f"Revoke {device}?", back=page_of(device))

    @action(description="Revoke selected", permissions=["help"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Device]) -> HttpResponse:
        devices = list(queryset)
        title = f"Revoke {len(devices)} device{'' if len(devices) == 1 else 's'}?"
        back = reverse("admin:peers_device_changelist")
        return self.ask_revoke(request, devices, title, back=back, chosen=("revoke_selected", devices))

    def ask_revoke(self, request: HttpRequest, devices: list[Device], title: str, **page: Any) -> HttpResponse:
        def perform(values: dict[str, Any]) -> str:
            return page_of(revoke_devices(actor=request.user, devices=devices, reason=values["reason"]))

        return ask(request, perform, title=title, text=FOR_EVER, button="Revoke", **page)


@admin.register(Peer)
class PeerAdmin(SuspendingPages, OwnAdmin):
    is_added = is_changed = False
    list_display = ("device", "server", "addresses", "state", "seen", "expires_at")
    list_filter = (
        *(seen("server__environment"), seen("server"), ("ended_at", admin.EmptyFieldListFilter)),
        *(EndsWithin, Idle),
    )
    search_fields = ("device__name", "device__person__name", "device__public_key")
    fields = (
        *("device", "server", "addresses", "carries", "word", "hours", "seen", "endpoint", "expires_at"),
        *("issued_at", "issued_by", "ended_at", "end", "gone_at"),
    )
    readonly_fields = fields
    actions_detail = ("config", "suspend", "resume", "let_in")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Peer]:
        return visible_peers(request.user)

    def idle(self, request: HttpRequest, row: Peer) -> set[str]:
        if row.ended_at or not may_help(request.user, row.server.environment):
            return {"config", "suspend", "resume", "let_in"}
        idle = self.idle_of(row, is_over=False) | (set() if row.waits_for else {"let_in"})
        is_operator = may_operate(request.user, row.server.environment)
        return idle if is_operator else idle | {"config", "resume", "let_in"}

    @display(description="addresses")
    def addresses(self, peer: Peer) -> str:
        return f"{address_of(peer.ipv4)} {address_of(peer.ipv6)}"

    @display(description="networks")
    def carries(self, peer: Peer) -> str:
        return ", ".join(peer.networks) or "everything"

    @display(label=PEER_COLOURS)
    def state(self, peer: Peer) -> tuple[str, str]:
        word = peer_state(peer)
        return ("waits" if peer.waits_for and word.startswith("waits") else word), word

    @display(description="state")
    def word(self, peer: Peer) -> str:
        return peer_state(peer)

    @display(description="hours")
    def hours(self, peer: Peer) -> str:
        return next_windows(peer.windows)

    @display(description="handshake", ordering="status__latest_handshake_at")
    def seen(self, peer: Peer) -> str:
        return ago(peer.status.latest_handshake_at)

    @display(description="endpoint")
    def endpoint(self, peer: Peer) -> str:
        return peer.status.endpoint or "none seen"

    @action(description="Client config", icon="download", url_path="config", permissions=["operate"])
    def config(self, request: HttpRequest, object_id: str) -> HttpResponse:
        peer = one(self, request, object_id)
        try:
            return config_answer(request.user, peer)
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(page_of(peer))

    @action(description="Let in now", icon="move_up", permissions=["operate"], variant="danger")
    def let_in(self, request: HttpRequest, object_id: str) -> HttpResponse:
        peer = one(self, request, object_id)
        if peer.waits_for is None:
            raise Http404

        def perform(values: dict[str, Any]) -> str:
            return page_of(let_in(actor=request.user, peer=peer, reason=values["reason"]))

        title, button, back = f"Let {peer} in now?", "Let in now", page_of(peer)
        return ask(request, perform, title=title, text=what_is_waited_for(peer.waits_for), button=button, back=back)


def what_is_waited_for(old: Peer) -> str:
    since, end = f"{old.ended_at:%Y-%m-%d %H:%M} UTC", old.expires_at
    ends = f"{end:%Y-%m-%d %H:%M} UTC, when it expires there" if end else "that server is reached again"
    return (
        f"{old.server} ({state_of(old.server)}) has not confirmed since {since} that the key is gone there. "
        f"Let in now, the key passes on both servers until {ends}."
    )


def next_windows(windows: list[list[int]] | None) -> str:
    """The one that is open or the next ones, in UTC."""
    if windows is None:
        return "always"
    now = timezone.now().timestamp()
    coming = [(utc(begin), utc(end)) for begin, end in windows if end > now][:3]
    return (
        ", ".join(f"{begin:%a %Y-%m-%d %H:%M} to {end:%a %H:%M}" for begin, end in coming) + " UTC"
        if coming
        else "none"
    )


def utc(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def peer_rows(peers: QuerySet[Peer], user: object) -> list[dict[str, Any]]:
    """Live peers first, as the tables of a person, a device and a team show them."""
    operates = scope_of(user).operates
    ordered = peers.order_by(F("ended_at").desc(nulls_first=True), "server__name", "device__name")[:200]
    return [
        {
            "peer": peer,
            "addresses": [address_of(peer.ipv4), address_of(peer.ipv6)],
            "state": peer_state(peer),
            "has_file": peer.ended_at is None and (operates is None or peer.server.environment_id in operates),
            "server_state": "" if peer.ended_at else state_of(peer.server),
        }
        for peer in ordered
    ]
