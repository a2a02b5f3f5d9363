"""Peers, and what holds for single ones: their status, suspensions, warnings, addresses and routes of their own."""

import datetime as dt
import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from fleet import fields
from fleet.models import AddressRange, Server
from peers.models.who import Device, Person

# Two live peers have one address where the second replaces the first, and never else.
OWN_ADDRESSES = Q(ended_at=None, replaces=None)


class Peer(models.Model):
    """One Device on one Server. It ends once; `gone_at` is when the server was seen without it."""

    class End(models.TextChoices):
        WITHDRAWN = "withdrawn"
        REVOKED = "revoked"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    device = models.ForeignKey(Device, models.PROTECT, related_name="peers")
    server = models.ForeignKey(Server, models.PROTECT, related_name="peers")
    ipv4 = models.ForeignKey(AddressRange, models.PROTECT, related_name="peers4")
    ipv6 = models.ForeignKey(AddressRange, models.PROTECT, related_name="peers6")
    replaces = models.ForeignKey(
        "self", models.PROTECT, null=True, editable=False, help_text="The peer whose addresses it has, if another's."
    )
    preshared_key = models.CharField(max_length=200, editable=False, help_text="Sealed with the keyring `peers`.")
    networks = models.JSONField(default=list, help_text="What the tunnel carries, from the grants.")
    expires_at = models.DateTimeField(null=True, blank=True)
    windows = models.JSONField(null=True, help_text="Pairs of UTC seconds in which it is open; none for always.")
    windows_from = models.DateTimeField(null=True, help_text="They are worked out for three weeks from this Monday.")
    waits_for = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        editable=False,
        related_name="waiting",
        help_text="It moved: not let in before this one was seen gone.",
    )
    first_generation = models.PositiveBigIntegerField(
        default=0, editable=False, help_text="The first generation of its server that has it; 0 where nobody noted it."
    )
    issued_at = models.DateTimeField(default=timezone.now, editable=False)
    issued_by = models.CharField(max_length=254, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True)
    end = models.CharField(max_length=10, choices=End, blank=True, default="")
    ended_act = models.UUIDField(null=True, blank=True, help_text="The Event that ended it.")
    is_decided = models.BooleanField(default=False, help_text="Ended by a decision about this one person.")
    gone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["server__name", "device__person__name"]
        constraints = [
            models.UniqueConstraint(fields=["device", "server"], condition=Q(ended_at=None), name="peers_peer_once"),
            models.UniqueConstraint(fields=["ipv4"], condition=OWN_ADDRESSES, name="peers_peer_ipv4_once"),
            models.UniqueConstraint(fields=["ipv6"], condition=OWN_ADDRESSES, name="peers_peer_ipv6_once"),
            models.UniqueConstraint(fields=["replaces"], condition=Q(ended_at=None), name="peers_peer_replaced_once"),
            models.CheckConstraint(
                condition=Q(ended_at=None, end="") | (Q(ended_at__isnull=False) & ~Q(end="")),
                name="peers_peer_end_named",
            ),
        ]
        indexes = [
            models.Index(fields=["server"], condition=Q(ended_at=None), name="peers_peer_live"),
            models.Index(fields=["server"], condition=Q(gone_at=None), name="peers_peer_not_gone"),
            models.Index(fields=["expires_at"], condition=Q(ended_at=None), name="peers_peer_expires"),
            models.Index(fields=["windows_from"], condition=Q(ended_at=None), name="peers_peer_windows"),
        ]

    def __str__(self) -> str:
        return f"{self.device} on {self.server.name}"


class PeerStatus(models.Model):
    """What was seen of a Peer. Only `nodes/status.py` writes it."""

    peer = models.OneToOneField(Peer, models.CASCADE, primary_key=True, related_name="status")
    endpoint = models.CharField(max_length=60, blank=True, default="")
    latest_handshake_at = models.DateTimeField(null=True)
    transfer_rx = models.PositiveBigIntegerField(default=0)
    transfer_tx = models.PositiveBigIntegerField(default=0)
    observed_at = models.DateTimeField(default=timezone.now)
    shut_at = models.DateTimeField(null=True, help_text="Since when its server was seen to keep it out.")
    let_in_at = models.DateTimeField(null=True, help_text="When its server was last seen to let it in.")

    class Meta:
        verbose_name_plural = "peer statuses"

    def __str__(self) -> str:
        return f"status of {self.peer_id}"

    @property
    def is_connected(self) -> bool:
        """A live session renews its handshake every two minutes; three without one and it is gone."""
        age = timezone.now() - self.latest_handshake_at if self.latest_handshake_at else None
        return age is not None and age < dt.timedelta(minutes=3)


class Suspension(models.Model):
    """The interval in which a Person, one Device or one Peer is kept out; keys and addresses stay theirs. One of a Peer
    means this device on this server: where the peer has ended, it goes on with the next one there."""

    person = models.ForeignKey(Person, models.PROTECT, null=True, blank=True, related_name="suspensions")
    device = models.ForeignKey(Device, models.PROTECT, null=True, blank=True, related_name="suspensions")
    peer = models.ForeignKey(Peer, models.PROTECT, null=True, blank=True, related_name="suspensions")
    reason = models.CharField(max_length=500, validators=[fields.one_line])
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    began_act = models.UUIDField(editable=False, help_text="The Event that began it.")
    origin = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        editable=False,
        related_name="+",
        help_text="The one that it goes on from, about another peer: that was decided then.",
    )
    is_decided = models.BooleanField(default=True, help_text="A decision about this one person.")
    is_idle = models.BooleanField(default=False, help_text="By the Console, as nothing was heard of it.")
    suspended_by = models.CharField(max_length=254, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    ended_by = models.CharField(
        max_length=254, blank=True, default="", editable=False, help_text="Nobody where it goes on with another peer."
    )

    class Meta:
        ordering = ["-began_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(person__isnull=False, device=None, peer=None)
                | Q(person=None, device__isnull=False, peer=None)
                | Q(person=None, device=None, peer__isnull=False),
                name="peers_suspension_of_one",
            ),
            *(
                models.UniqueConstraint(
                    fields=[target],
                    condition=Q(ended_at=None, **{f"{target}__isnull": False}),
                    name=f"peers_suspension_{target}_once",
                )
                for target in ("person", "device", "peer")
            ),
        ]

    def __str__(self) -> str:
        return f"suspension of {self.target}"

    @property
    def target(self) -> Person | Device | Peer:
        found = self.person or self.device or self.peer
        assert found is not None  # the constraint peers_suspension_of_one
        return found

    @property
    def since(self) -> dt.datetime:
        """When it was decided, which may have been about a peer before this one."""
        return self.origin.began_at if self.origin else self.began_at


class ExpiryWarning(models.Model):
    """That a peer's end was told of; once for each end. Whoever mails it first takes `next_try_at` away, so that no
    second mail goes out even where nobody lived to write `mailed_at`."""

    peer = models.ForeignKey(Peer, models.PROTECT, related_name="warnings")
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    next_try_at = models.DateTimeField(null=True, default=timezone.now, help_text="When to mail it; none for no more.")
    failures = models.PositiveIntegerField(default=0)
    trouble = models.CharField(max_length=100, blank=True, default="", help_text="Why the last try failed.")
    mailed_to = models.CharField(max_length=254, blank=True, default="")
    mailed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["peer", "expires_at"], name="peers_warning_once")]
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(next_try_at__isnull=False), name="peers_warning_to_mail")
        ]

    def __str__(self) -> str:
        return f"warning that {self.peer} ends"

    @property
    def told(self) -> str:
        """How the person was told, on one line."""
        if self.mailed_at:
            return f"mailed to {self.mailed_to}"
        if self.next_try_at is None:
            return self.trouble or f"perhaps mailed to {self.mailed_to}: the worker ended meanwhile"
        return self.trouble or "not mailed yet"


class StaticAddress(models.Model):
    """The interval in which a Device has addresses of its own on a Server, whether it has a peer there or not."""

    device = models.ForeignKey(Device, models.PROTECT, related_name="static_addresses")
    server = models.ForeignKey(Server, models.PROTECT, related_name="static_addresses")
    ipv4 = models.ForeignKey(AddressRange, models.PROTECT, null=True, related_name="static4")
    ipv6 = models.ForeignKey(AddressRange, models.PROTECT, null=True, related_name="static6")
    reason = models.CharField(max_length=500, validators=[fields.one_line])
    assigned_by = models.CharField(max_length=254, editable=False)
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["server__name", "device__name"]
        verbose_name_plural = "static addresses"
        constraints = [
            models.UniqueConstraint(fields=["device", "server"], condition=Q(ended_at=None), name="peers_static_once"),
            models.CheckConstraint(condition=~Q(ipv4=None, ipv6=None), name="peers_static_has_one"),
        ]

    def __str__(self) -> str:
        return f"static address of {self.device} on {self.server}"


class RoutedNetwork(models.Model):
    """The interval in which a Server routes a network to a Device: a site behind a peer."""

    device = models.ForeignKey(Device, models.PROTECT, related_name="routed_networks")
    server = models.ForeignKey(Server, models.PROTECT, related_name="routed_networks")
    network = models.CharField(max_length=43)
    range = models.ForeignKey(AddressRange, models.PROTECT, related_name="routed")
    reason = models.CharField(max_length=500, validators=[fields.one_line])
    routed_by = models.CharField(max_length=254, editable=False)
    began_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["server__name", "network"]

    def __str__(self) -> str:
        return f"{self.network} behind {self.device} on {self.server}"
