"""The pages of people, devices, grants, peers and revocations. What they do is done by services."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, F, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import action, display

from fleet.access import may_operate
from fleet.admin import ConsoleAdmin, one, page_of, seen, state_of
from fleet.conditions import Type, read
from fleet.questions import ask
from fleet.templatetags.moments import ago
from peers.access import (
    visible_devices,
    visible_grants,
    visible_peers,
    visible_people,
    visible_receipts,
    visible_revocations,
    visible_teams,
)
from peers.admin.ends import EndsWithin, Idle, ends_of
from peers.admin.own import LinkedAdmin, OwnAdmin, StoriedAdmin
from peers.api.people import config_answer
from peers.forms import DeviceForm, GrantForm, PersonForm
from peers.granting import end_grants
from peers.models import Device, Grant, Peer, Person, Receipt, Revocation, Team
from peers.revocation import may_revoke, revoke_devices, revoke_person
from peers.selectors import address_of
from peers.services import is_waiting, may_register

FOR_EVER = "Revoking is for ever: the key never comes back, on any server. To let somebody in again, issue a new key."


@admin.register(Person)
class PersonAdmin(LinkedAdmin):
    form = PersonForm
    list_display = ("name", "email", "kind", "devices_held", "created_at")
    list_filter = ("kind",)
    search_fields = ("name", "email")
    actions_detail = ("grant", "add_device", "link", "revoke")
    change_form_outer_after_template = "admin/peers/person_access.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Person]:
        live = Count("devices", filter=Q(devices__revoked_at=None))
        return visible_people(request.user).annotate(held=live)

    def page_context(self, request: HttpRequest, obj: Person) -> dict[str, Any]:
        grants = visible_grants(request.user).filter(person=obj)
        return {
            "devices": visible_devices(request.user).filter(person=obj),
            "grants": grants.order_by(F("ended_at").desc(nulls_first=True), "-begins_at"),
            "peers": peer_rows(visible_peers(request.user).filter(device__person=obj)),
            "ends": ends_of(visible_peers(request.user).filter(device__person=obj)),
            "revocations": revocations_of(request, obj),
        }

    def idle(self, request: HttpRequest, row: Person) -> set[str]:
        keys = row.devices.values_list("public_key", flat=True)
        return set() if may_revoke(request.user, keys) else {"revoke"}

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


@admin.register(Team)
class TeamAdmin(ConsoleAdmin):
    is_added = is_changed = False
    list_display = ("name", "description", "created_at", "ended_at")
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        return visible_teams(request.user)


@admin.register(Device)
class DeviceAdmin(ConsoleAdmin):
    form = DeviceForm
    is_changed = False
    list_display = ("name", "person", "public_key", "state", "created_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("name", "person__name", "public_key")
    autocomplete_fields = ("person", "replaces")
    actions = ("revoke_selected",)
    actions_detail = ("replace", "revoke")
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
        return visible_devices(request.user)

    def page_context(self, request: HttpRequest, obj: Device) -> dict[str, Any]:
        return {"peers": peer_rows(visible_peers(request.user).filter(device=obj))}

    def idle(self, request: HttpRequest, row: Device) -> set[str]:
        if not may_revoke(request.user, [row.public_key]):
            return {"replace", "revoke"}
        is_replaced = is_waiting(row) or row.replacements.filter(revoked_at=None).exists()
        return {"replace"} if is_replaced or not may_register(request.user, row.person) else set()

    @display(label={"live": "success", "replacing": "info", "tombstoned": "danger"})
    def state(self, device: Device) -> str:
        if device.revoked_at:
            return "tombstoned"
        return "replacing" if is_waiting(device) else "live"

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


@admin.register(Grant)
class GrantAdmin(StoriedAdmin):
    form = GrantForm
    is_changed = False
    list_display = ("holder", "place_name", "carries", "begins_at", "until", "state", "reason")
    list_filter = (seen("environment"), ("ended_at", admin.EmptyFieldListFilter))
    search_fields = ("person__name", "reason")
    autocomplete_fields = ("person", "team")
    actions = ("end_selected",)
    actions_detail = ("end",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("person", "team", "environment", "server", "networks", "hours", "begins_at", "until", "reason")
        return (*shown, "granted_by", "ended_at") if obj else shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[Grant]:
        return visible_grants(request.user)

    def idle(self, request: HttpRequest, row: Grant) -> set[str]:
        return {"end"} if row.ended_at or not may_operate(request.user, row.place) else set()

    @display(description="to")
    def place_name(self, grant: Grant) -> str:
        return str(grant.environment or grant.server)

    @display(description="networks")
    def carries(self, grant: Grant) -> str:
        return ", ".join(grant.networks) or "everything"

    @display(label={"open": "success", "ended": ""})
    def state(self, grant: Grant) -> str:
        return "ended" if grant.ended_at else "open"

    @action(description="End grant", icon="event_busy", permissions=["operate"])
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        grant = one(self, request, object_id)
        return self.ask_end(request, [grant], f"End the grant {grant}?", page_of(grant))

    @action(description="End selected grants", permissions=["operate"])
    def end_selected(self, request: HttpRequest, queryset: QuerySet[Grant]) -> HttpResponse:
        grants = list(queryset)
        title = f"End {len(grants)} grant{'' if len(grants) == 1 else 's'}?"
        back = reverse("admin:peers_grant_changelist")
        return self.ask_end(request, grants, title, back, chosen=("end_selected", grants))

    def ask_end(self, request: HttpRequest, grants: list[Grant], title: str, back: str, **page: Any) -> HttpResponse:
        def perform(values: dict[str, Any]) -> str:
            end_grants(actor=request.user, grants=grants, reason=values["reason"])
            messages.success(request, "Ended. Peers that no other grant carries are being withdrawn.")
            return back

        text = "Keys live on. Where no other grant is left, the peers are withdrawn."
        return ask(request, perform, title=title, text=text, button="End", back=back, **page)


@admin.register(Peer)
class PeerAdmin(OwnAdmin):
    is_added = is_changed = False
    list_display = ("device", "server", "addresses", "state", "seen", "expires_at")
    list_filter = (
        *(seen("server__environment"), seen("server"), ("ended_at", admin.EmptyFieldListFilter)),
        *(EndsWithin, Idle),
    )
    search_fields = ("device__name", "device__person__name", "device__public_key")
    fields = (
        *("device", "server", "addresses", "carries", "state", "seen", "endpoint", "expires_at"),
        *("issued_at", "issued_by", "ended_at", "end", "gone_at"),
    )
    readonly_fields = fields
    actions_detail = ("config",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Peer]:
        return visible_peers(request.user)

    def idle(self, request: HttpRequest, row: Peer) -> set[str]:
        return {"config"} if row.ended_at or not may_operate(request.user, row.server.environment) else set()

    @display(description="addresses")
    def addresses(self, peer: Peer) -> str:
        return f"{address_of(peer.ipv4)} {address_of(peer.ipv6)}"

    @display(description="networks")
    def carries(self, peer: Peer) -> str:
        return ", ".join(peer.networks) or "everything"

    @display(label={"connected": "success", "issued": "info", "leaving": "warning", "gone": ""})
    def state(self, peer: Peer) -> str:
        return peer_state(peer)

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


@admin.register(Revocation)
class RevocationAdmin(ConsoleAdmin):
    is_added = is_changed = False
    list_display = ("label", "created_at", "revoked_by", "reason", "state")
    search_fields = ("label", "reason", "tombstones__public_key")
    fields = ("label", "reason", "revoked_by", "created_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Revocation]:
        waiting = Count("receipts", filter=Q(receipts__confirmed_at=None), distinct=True)
        every = Count("receipts", distinct=True)
        return visible_revocations(request.user).annotate(waiting=waiting, every=every)

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        rows = [receipt_row(receipt) for receipt in visible_receipts(request.user).filter(revocation=obj)]
        add_expiries(rows)
        return {"receipts": rows, "waiting": obj.waiting, "every": obj.every}

    @display(label={"pending": "danger", "confirmed": "success"})
    def state(self, row: Any) -> tuple[str, str]:
        if row.waiting:
            return "pending", f"pending on {row.waiting} of {row.every}"
        return "confirmed", f"confirmed on {row.every}"


def peer_state(peer: Peer) -> str:
    if peer.ended_at is None:
        return "connected" if peer.status.is_connected else "issued"
    return "gone" if peer.gone_at else "leaving"


def peer_rows(peers: QuerySet[Peer]) -> list[dict[str, Any]]:
    """Live peers first, as the tables of a person and a device show them."""
    ordered = peers.order_by(F("ended_at").desc(nulls_first=True), "server__name", "device__name")[:200]
    return [
        {
            "peer": peer,
            "addresses": [address_of(peer.ipv4), address_of(peer.ipv6)],
            "state": peer_state(peer),
            "server_state": "" if peer.ended_at else state_of(peer.server),
        }
        for peer in ordered
    ]


def revocations_of(request: HttpRequest, person: Person) -> QuerySet[Revocation]:
    waiting = Count("receipts", filter=Q(receipts__confirmed_at=None))
    return visible_revocations(request.user).filter(person=person).annotate(waiting=waiting, every=Count("receipts"))


def receipt_row(receipt: Receipt) -> dict[str, Any]:
    """A receipt and, while it is pending, why: what the server said last."""
    reachable = read(receipt.server.status.conditions, Type.REACHABLE)
    why = f"Found in {', '.join(map(str, receipt.found))}." if receipt.found else ""
    if not why and reachable and not reachable.status:
        why = reachable.message
    return {"receipt": receipt, "why": why or "Not answered yet.", "expires_at": None}


def add_expiries(rows: list[dict[str, Any]]) -> None:
    """When access ends by itself where it is not proven gone yet, in one query."""
    waiting = [row["receipt"] for row in rows if row["receipt"].confirmed_at is None]
    found = Peer.objects.filter(
        server__in={receipt.server_id for receipt in waiting},
        device__public_key__in={receipt.public_key for receipt in waiting},
    ).order_by("issued_at")
    ends = {(server, key): end for server, key, end in found.values_list("server", "device__public_key", "expires_at")}
    for row in rows:
        row["expires_at"] = ends.get((row["receipt"].server_id, row["receipt"].public_key))
