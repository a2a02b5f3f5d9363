"""What there is and who runs it. Rows of people's choices; what was seen lives in ServerStatus."""

import datetime as dt
from ipaddress import IPv4Network, IPv6Network, ip_network

from django.contrib.auth.models import AbstractUser
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.functional import cached_property

from fleet import fields, pools


class User(AbstractUser):
    """A sign-in to the Console. With OIDC it is known by (issuer, subject), never by e-mail."""

    issuer = models.CharField(max_length=200, blank=True, default="", editable=False)
    subject = models.CharField(max_length=200, blank=True, default="", editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], condition=~Q(subject=""), name="fleet_user_identity")
        ]

    @cached_property
    def open_roles(self) -> list[tuple[str, int | None]]:
        """(role, environment or None for all), read once: an instance lives for one request."""
        return list(self.roles.filter(ended_at=None).values_list("name", "environment"))


class Environment(models.Model):
    """A boundary of access and of operator rights."""

    name = models.CharField(max_length=63, unique=True, validators=[fields.valid_name])
    description = models.CharField(max_length=200, blank=True, default="", validators=[fields.one_line])
    address_rest = models.DurationField(
        default=dt.timedelta(hours=24),
        help_text="How long a freed address rests before another peer may have it.",
    )
    time_zone = models.CharField(
        max_length=63,
        default="UTC",
        validators=[fields.valid_zone],
        help_text="Of access windows, such as Europe/Berlin.",
    )
    warn_before = models.DurationField(
        default=dt.timedelta(days=7), help_text="How long before its end people are told that access ends."
    )
    idle_after = models.DurationField(
        null=True, blank=True, help_text="A peer without a handshake for so long is listed as idle; empty for never."
    )
    suspends_idle = models.BooleanField(default=False, help_text="Idle peers are suspended, until an operator resumes.")
    needs_second = models.BooleanField(
        "two approvals", default=False, help_text="A second operator has to agree to a request for access."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(address_rest__gte=dt.timedelta(0)), name="fleet_rest_not_negative"),
            models.CheckConstraint(condition=Q(warn_before__gte=dt.timedelta(0)), name="fleet_warning_not_negative"),
            models.CheckConstraint(
                condition=Q(idle_after=None) | Q(idle_after__gte=dt.timedelta(days=1)),
                name="fleet_idle_a_day",
                violation_error_message="A peer is not called idle before a day has passed.",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Role(models.Model):
    """An interval in which a User may operate one Environment, or all (environment empty)."""

    class Name(models.TextChoices):
        OPERATOR = "operator"
        HELPDESK = "helpdesk"
        AUDITOR = "auditor"

    user = models.ForeignKey(User, models.PROTECT, related_name="roles")
    name = models.CharField(max_length=12, choices=Name)
    environment = models.ForeignKey(Environment, models.PROTECT, null=True, blank=True, related_name="roles")
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "name", "environment"],
                condition=Q(ended_at=None, environment__isnull=False),
                name="fleet_role_once",
                violation_error_code="unique",
                violation_error_message="This user has this role there already.",
            ),
            models.UniqueConstraint(
                fields=["user", "name"],
                condition=Q(ended_at=None, environment=None),
                name="fleet_role_everywhere_once",
                violation_error_code="unique",
                violation_error_message="This user has this role everywhere already.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} {self.name} of {self.environment or 'every environment'}"


class ApiToken(models.Model):
    """A script's way in. Only the SHA-256 of the token is kept."""

    class Scope(models.TextChoices):
        READ = "read"
        OPERATE = "operate"

    name = models.CharField(max_length=63, unique=True, validators=[fields.valid_name])
    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.READ)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Bastion(models.Model):
    """A machine that servers are reached through (ProxyJump), with its own pinned host key."""

    name = models.CharField(max_length=63, unique=True, validators=[fields.valid_name])
    host = models.CharField(max_length=253, validators=[fields.valid_host])
    ssh_port = models.PositiveIntegerField(default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)])
    ssh_user = models.CharField(max_length=32, default="muster", validators=[fields.valid_name])
    host_key = models.CharField(max_length=1000, validators=[fields.valid_host_key])
    ssh_public_key = models.CharField(max_length=200, blank=True, default="", editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Server(models.Model):
    """One WireGuard interface on one machine, in one Environment. `generation` grows with each wanted change."""

    class Forward(models.TextChoices):
        MASQUERADE = "masquerade", "Masquerade: peers appear as this server"
        ROUTED = "routed", "Routed: the network has return routes to the pools"
        NONE = "none", "Nothing but the server itself"

    class SshUser(models.TextChoices):
        ROOT = "root"
        MUSTER = "muster"

    name = models.CharField(max_length=63, unique=True, validators=[fields.valid_name])
    environment = models.ForeignKey(Environment, models.PROTECT, related_name="servers")
    host = models.CharField(
        "SSH address",
        max_length=253,
        validators=[fields.valid_host],
        help_text="Where the Console reaches it.",
    )
    ssh_port = models.PositiveIntegerField(default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)])
    ssh_user = models.CharField(max_length=8, choices=SshUser, default=SshUser.ROOT)
    bastion = models.ForeignKey(Bastion, models.PROTECT, null=True, blank=True, related_name="servers")
    host_key = models.CharField(
        max_length=1000, blank=True, default="", validators=[fields.valid_host_key], editable=False
    )
    ssh_public_key = models.CharField(max_length=200, blank=True, default="", editable=False)
    interface = models.CharField(max_length=15, default="wg0", validators=[fields.valid_interface])
    endpoint_host = models.CharField(
        "endpoint",
        max_length=253,
        validators=[fields.valid_host],
        help_text="What clients dial, without port.",
    )
    listen_port = models.PositiveIntegerField(
        "UDP port", default=51820, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    public_key = models.CharField(max_length=44, blank=True, default="", editable=False)
    ipv4_pool = models.CharField("IPv4 pool", max_length=18, validators=[fields.valid_pool4])
    ipv6_pool = models.CharField("IPv6 pool", max_length=43, validators=[fields.valid_pool6])
    ipv4_address = models.GenericIPAddressField("IPv4 address", protocol="IPv4", editable=False)
    ipv6_address = models.GenericIPAddressField("IPv6 address", protocol="IPv6", editable=False)
    dns = models.JSONField(default=list, blank=True, validators=[fields.valid_dns])
    mtu = models.PositiveIntegerField(default=1420, validators=[MinValueValidator(1280), MaxValueValidator(1500)])
    forward = models.CharField(max_length=10, choices=Forward, default=Forward.MASQUERADE)
    is_observe_only = models.BooleanField(default=False, help_text="The Console looks, and changes nothing there.")
    epoch = models.PositiveIntegerField(default=1, editable=False)
    generation = models.PositiveBigIntegerField(default=1, editable=False)
    enrolled_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["host", "ssh_port", "interface"],
                condition=Q(bastion=None),
                name="fleet_server_place",
                violation_error_message="Another server has this SSH address and interface.",
            ),
            models.UniqueConstraint(
                fields=["bastion", "host", "ssh_port", "interface"],
                condition=Q(bastion__isnull=False),
                name="fleet_server_place_behind",
                violation_error_message="Another server has this SSH address and interface behind this bastion.",
            ),
            models.UniqueConstraint(fields=["public_key"], condition=~Q(public_key=""), name="fleet_server_public_key"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def pool4(self) -> IPv4Network:
        return IPv4Network(self.ipv4_pool)

    @property
    def pool6(self) -> IPv6Network:
        return IPv6Network(self.ipv6_pool)

    @property
    def endpoint(self) -> str:
        host = f"[{self.endpoint_host}]" if ":" in self.endpoint_host else self.endpoint_host
        return f"{host}:{self.listen_port}"


class Placement(models.Model):
    """The interval in which a Server belonged to an Environment; the open one is the present."""

    server = models.ForeignKey(Server, models.PROTECT, related_name="placements")
    environment = models.ForeignKey(Environment, models.PROTECT, related_name="placements")
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    settled_at = models.DateTimeField(null=True, editable=False, help_text="When the peers that follow were made.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["server"], condition=Q(ended_at=None), name="fleet_one_open_placement")
        ]

    def __str__(self) -> str:
        return f"{self.server} in {self.environment}"


class Pool(models.Model):
    """A named part of a server's pools: who has a grant that names it gets addresses out of it, and nobody else."""

    server = models.ForeignKey(Server, models.PROTECT, related_name="pools")
    name = models.CharField(max_length=63, validators=[fields.valid_name])
    ipv4 = models.CharField("IPv4", max_length=18, blank=True, default="")
    ipv6 = models.CharField("IPv6", max_length=43, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["server__name", "name"]
        constraints = [
            models.UniqueConstraint(fields=["server", "name"], condition=Q(ended_at=None), name="fleet_pool_name"),
            models.CheckConstraint(condition=~Q(ipv4="", ipv6=""), name="fleet_pool_has_one"),
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.server}"

    def network(self, family: str) -> pools.Network | None:
        """Of `ipv4` or `ipv6`; None where it has none."""
        text = getattr(self, family)
        return ip_network(text) if text else None


class AddressRange(models.Model):
    """Addresses taken on one server, from `first` to `last` as 32 hex digits. Released once their rest is over."""

    class Kind(models.TextChoices):
        SERVER = "server", "The server's own"
        PEER = "peer", "A peer's"
        STATIC = "static", "A device's own"
        ROUTED = "routed", "Routed to a peer"
        RESERVED = "reserved", "Reserved"

    server = models.ForeignKey(Server, models.PROTECT, related_name="address_ranges")
    first = models.CharField(max_length=32)
    last = models.CharField(max_length=32)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.PEER)
    reason = models.CharField(max_length=500, blank=True, default="", validators=[fields.one_line])
    taken_by = models.CharField(max_length=254, blank=True, default="", editable=False)
    taken_at = models.DateTimeField(default=timezone.now, editable=False)
    freed_at = models.DateTimeField(null=True, blank=True, help_text="The start of the rest.")
    released_at = models.DateTimeField(null=True, blank=True, help_text="The end of the rest.")

    class Meta:
        indexes = [
            models.Index(fields=["server", "first"], condition=Q(released_at=None), name="fleet_range_taken"),
            models.Index(fields=["first"], name="fleet_range_first"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(first__lte=F("last")), name="fleet_range_rises"),
            models.CheckConstraint(
                condition=Q(first__regex=r"^[0-9a-f]{32}$") & Q(last__regex=r"^[0-9a-f]{32}$"),
                name="fleet_range_hex",
            ),
        ]

    def __str__(self) -> str:
        return pools.name_of(self.span)

    @property
    def span(self) -> pools.Span:
        return int(self.first, 16), int(self.last, 16)

    @property
    def is_ipv4(self) -> bool:
        return pools.from_hex(self.first).version == 4


class ServerStatus(models.Model):
    """What was seen of a Server. Only `nodes/status.py` writes it."""

    server = models.OneToOneField(Server, models.CASCADE, primary_key=True, related_name="status")
    observed_epoch = models.PositiveIntegerField(default=0)
    observed_generation = models.PositiveBigIntegerField(default=0)
    observed_digest = models.CharField(max_length=64, blank=True, default="")
    confirmed_epoch = models.PositiveIntegerField(default=0)
    confirmed_generation = models.PositiveBigIntegerField(default=0, help_text="Below it the machine was set back.")
    observed_at = models.DateTimeField(null=True)
    peers_seen_at = models.DateTimeField(null=True, help_text="When it was last asked for its peers' handshakes.")
    peers_seen_since = models.DateTimeField(
        null=True, help_text="Since when it is asked for them, without a day's gap."
    )
    conditions = models.JSONField(default=dict)
    drift = models.JSONField(default=list)
    failures = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    tombstone_cursor = models.PositiveBigIntegerField(default=0)
    node_version = models.CharField(max_length=20, blank=True, default="")
    journal_seen = models.PositiveBigIntegerField(default=0, help_text="The last entry read of the node's journal.")
    journal_hash = models.CharField(max_length=64, blank=True, default="", help_text="The SHA-256 of that entry.")

    class Meta:
        verbose_name_plural = "server statuses"

    def __str__(self) -> str:
        return f"status of {self.server_id}"


class RetiredKey(models.Model):
    """A key that a rotation of its keyring took out: nothing is sealed with it again, whoever has an older copy."""

    keyring = models.CharField(max_length=10)
    name = models.CharField(max_length=40)
    retired_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["keyring", "name"], name="fleet_retiredkey_once")]

    def __str__(self) -> str:
        return f"{self.name} of {self.keyring}"
