"""The pages of environments, servers, bastions, users, roles, tokens and events. What they do is done by services."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import admin as auth_admin
from django.contrib.auth.models import Group
from django.db.models import Count, Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from audit.admin import EventAdmin
from audit.models import Event
from fleet import services, tokens
from fleet.conditions import Type, read
from fleet.forms import ApiTokenForm, BastionForm, Chooser, EnvironmentForm, RoleForm, ServerForm, UserForm
from fleet.models import ApiToken, Bastion, Environment, Role, Server, User
from fleet.questions import SureForm, ask
from fleet.scope import scope_of, visible_bastions, visible_environments, visible_servers
from fleet.templatetags.moments import ago

# auth_admin registers Group, which the Console has no use for: roles say who may what.
assert issubclass(auth_admin.GroupAdmin, admin.ModelAdmin)
admin.site.unregister(Group)
admin.site.disable_action("delete_selected")
admin.site.index_title = "Overview"


class ConsoleAdmin(ModelAdmin):
    """Pages of rows that the user sees; a form's service writes, the ledger records, and nothing is ever deleted."""

    needs_admin = False  # only an administrator opens these pages
    is_added = is_changed = True
    list_fullwidth = True
    list_per_page = 100
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        scope = scope_of(request.user)
        return scope.is_admin if self.needs_admin else not scope.is_empty

    def has_operate_permission(self, request: HttpRequest, obj: object = None) -> bool:
        scope = scope_of(request.user)
        return scope.is_admin if self.needs_admin else scope.is_operator

    def has_help_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return scope_of(request.user).is_helper

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.is_added and self.has_operate_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.is_changed and self.has_operate_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_form(self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.actor = request.user
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """What an address proposes for a new row; of a row that it names only a number."""
        found = super().get_changeform_initial_data(request)
        rows = {field.name for field in self.model._meta.get_fields() if field.is_relation}
        return {name: value for name, value in found.items() if name not in rows or str(value).isdecimal()}

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> Any:
        """Offers only what the user sees."""
        return self.admin_site.get_model_admin(db_field.remote_field.model).get_queryset(request)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs.setdefault("widget", Chooser(db_field, self.admin_site))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def idle(self, request: HttpRequest, row: Any) -> set[str]:
        """Acts on this row that would be refused now: no button is shown; who asks all the same is told why not."""
        return set()

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = self.get_object(request, object_id) if object_id else None
        idle = self.idle(request, row) if row else set()
        found = super().get_actions_detail(request, object_id)
        return [button for button in found if button.method.__name__ not in idle]

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What the page of one row shows beside its form."""
        return {}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> HttpResponse:
        if kwargs.get("obj"):
            context.update(self.page_context(request, kwargs["obj"]))
        answer: HttpResponse = super().render_change_form(request, context, **kwargs)
        return answer

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """The form's service has saved it."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> None:
        """The ledger has it."""

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> None:
        """The ledger has it."""


def seen(column: str) -> tuple[str, type[admin.RelatedOnlyFieldListFilter]]:
    """A filter of a list that offers what is in the list: others' names are not told by it."""
    return column, admin.RelatedOnlyFieldListFilter


def page_of(row: Model) -> str:
    """The address of a row's page."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


@admin.register(Environment)
class EnvironmentAdmin(ConsoleAdmin):
    form = EnvironmentForm
    list_display = ("name", "description", "servers", "time_zone", "address_rest", "needs_second")
    search_fields = ("name",)

    def has_operate_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return scope_of(request.user).is_admin

    def get_queryset(self, request: HttpRequest) -> QuerySet[Environment]:
        return visible_environments(request.user).annotate(held=Count("servers"))

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = (
            *("name", "description", "address_rest", "time_zone", "warn_before", "idle_after", "suspends_idle"),
            "needs_second",
        )
        return (*shown, "reason") if obj and self.has_change_permission(request, obj) else shown

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("name",) if obj else ()

    @display(ordering="held")
    def servers(self, environment: Any) -> int:
        return int(environment.held)


@admin.register(Bastion)
class BastionAdmin(ConsoleAdmin):
    form = BastionForm
    is_changed = False
    list_display = ("name", "host", "ssh_port", "ssh_user")
    search_fields = ("name", "host")
    fields = ("name", "host", "ssh_port", "ssh_user", "host_key", "ssh_public_key")
    readonly_fields = ("ssh_public_key",)

    def has_operate_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return scope_of(request.user).is_admin

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bastion]:
        return visible_bastions(request.user)


STATE_COLOURS = {
    **{"in sync": "success", "not enrolled": "info"},
    **dict.fromkeys(("unreachable", "journal broken", "set back", "tombstoned", "failing"), "danger"),
    **{"held": "warning", "drifted": "warning", "pending": "warning"},
}


WHY = ("This change", {"fields": ("reason",)})


class ServerAdmin(ConsoleAdmin):
    """Registered by `nodes`, which adds what is asked of the machine."""

    form = ServerForm
    list_display = ("name", "environment", "state", "peers_held", "host", "endpoint", "last_seen")
    list_filter = (seen("environment"),)
    search_fields = ("name", "host", "endpoint_host")
    readonly_fields = ("host_key", "public_key", "enrolled_at")
    fieldsets = (
        (None, {"fields": (("name", "environment"), ("endpoint_host", "listen_port"))}),
        ("Reached by", {"fields": (("host", "ssh_port"), ("ssh_user", "bastion"), "is_observe_only")}),
        ("Interface", {"fields": (("interface", "mtu"), ("ipv4_pool", "ipv6_pool"), "forward", "dns")}),
        ("Identity", {"fields": ("host_key", "public_key", "enrolled_at")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return self.fieldsets[:-1]
        return (*self.fieldsets, *([WHY] if self.has_change_permission(request, obj) else []))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Server]:
        live = Count("peers", filter=Q(peers__ended_at=None))
        return visible_servers(request.user).annotate(held=live)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "name", "environment") if obj else self.readonly_fields

    @display(label=STATE_COLOURS)
    def state(self, server: Server) -> str:
        return state_of(server)

    @display(description="peers", ordering="held")
    def peers_held(self, server: Any) -> int:
        return int(server.held)

    @display(description="last seen", ordering="status__observed_at")
    def last_seen(self, server: Server) -> str:
        return ago(server.status.observed_at)


def state_of(server: Server) -> str:
    """One word for a list: the worst thing that is known."""
    if server.enrolled_at is None:
        return "not enrolled"
    known = server.status.conditions
    reachable, held = read(known, Type.REACHABLE), read(known, Type.HELD)
    if reachable and not reachable.status:
        return "unreachable"
    intact = read(known, Type.INTACT)
    if intact and not intact.status:
        return "set back" if intact.reason == "SetBack" else "journal broken"
    if held and held.status:
        return "held"
    in_sync = read(known, Type.IN_SYNC)
    if in_sync and not in_sync.status:
        return {"Drifted": "drifted", "Tombstoned": "tombstoned"}.get(in_sync.reason, "failing")
    in_step = (server.status.observed_epoch, server.status.observed_generation) == (server.epoch, server.generation)
    return "in sync" if in_step else "pending"


@admin.register(User)
class UserAdmin(ConsoleAdmin):
    form = UserForm
    needs_admin = True
    is_changed = False
    list_display = ("username", "email", "state", "is_superuser", "last_login")
    search_fields = ("username", "email")
    readonly_fields = ("state",)
    actions_detail = ("disable", "enable")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("username", "email", "is_superuser")
        return (*shown, "state", "last_login", "date_joined") if obj else (*shown, "password")

    def idle(self, request: HttpRequest, row: User) -> set[str]:
        return {"enable"} if row.is_active else {"disable"}

    @display(label={"active": "success", "disabled": "danger"}, ordering="is_active")
    def state(self, user: User) -> str:
        return "active" if user.is_active else "disabled"

    @action(description="Disable", icon="person_off", permissions=["operate"], variant="danger")
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(services.disable_user(actor=request.user, user=user, reason=values["reason"]))

        title, text = f"Disable {user}?", "Their sessions and API tokens are refused at once. This can be undone."
        return ask(request, perform, title=title, text=text, button="Disable", back=page_of(user))

    @action(description="Enable", icon="person_check", permissions=["operate"])
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            return page_of(services.enable_user(actor=request.user, user=user, reason=values["reason"]))

        title, text = (
            f"Enable {user} again?",
            "What they still hold opens again: password, sessions, roles and API tokens.",
        )
        return ask(request, perform, title=title, text=text, button="Enable", back=page_of(user))


@admin.register(Role)
class RoleAdmin(ConsoleAdmin):
    form = RoleForm
    needs_admin = True
    is_changed = False
    list_display = ("user", "name", "environment", "began_at", "ended_at")
    list_select_related = ("user", "environment")
    list_filter = ("name", "environment")
    search_fields = ("user__username",)
    autocomplete_fields = ("user",)
    actions_detail = ("end",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("user", "name", "environment")
        return (*shown, "began_at", "ended_at") if obj else shown

    def idle(self, request: HttpRequest, row: Role) -> set[str]:
        return {"end"} if row.ended_at else set()

    @action(description="End role", icon="person_remove", permissions=["operate"])
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        role = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            services.end_role(actor=request.user, role=role)
            return page_of(role)

        text = f"{role.user} is refused there from the next click on. The role can be given anew."
        title, back = f"End the role {role}?", page_of(role)
        return ask(request, perform, title=title, text=text, button="End role", form=SureForm, back=back)


@admin.register(ApiToken)
class ApiTokenAdmin(ConsoleAdmin):
    form = ApiTokenForm
    needs_admin = True
    is_changed = False
    list_display = ("name", "user", "scope", "created_at", "expires_at", "revoked_at")
    list_select_related = ("user",)
    list_filter = ("scope",)
    search_fields = ("name", "user__username")
    autocomplete_fields = ("user",)
    actions_detail = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("name", "user", "scope", "expires_at")
        return (*shown, "created_at", "revoked_at") if obj else shown

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        messages.warning(request, f"Copy the token now, it is shown this once: {form.text}")

    def idle(self, request: HttpRequest, row: ApiToken) -> set[str]:
        return {"revoke"} if row.revoked_at else set()

    @action(description="Revoke", icon="block", permissions=["operate"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        token = one(self, request, object_id)

        def perform(values: dict[str, Any]) -> str:
            tokens.revoke_token(actor=request.user, token=token, reason=values["reason"])
            return page_of(token)

        text = f"Whatever uses it as {token.user} is refused at once, for ever. Its name is not given again."
        return ask(
            request, perform, title=f"Revoke the token {token}?", text=text, button="Revoke", back=page_of(token)
        )


def one(pages: ConsoleAdmin, request: HttpRequest, object_id: str) -> Any:
    """The row, or 404 as for one that does not exist where the user does not see it."""
    found = pages.get_object(request, object_id)
    if found is None:
        raise Http404
    return found


@admin.register(Event)
class ScopedEventAdmin(EventAdmin):
    """Events of the environments that the user sees; those of none only to who sees every one."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return not scope_of(request.user).is_empty

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        rows, scope = super().get_queryset(request), scope_of(request.user)
        if scope.sees is None:
            return rows
        return rows.filter(environment_label__in=visible_environments(request.user).values("name"))
