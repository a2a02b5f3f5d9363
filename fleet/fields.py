"""Strict validators for what operators type; each message names the mend."""

import datetime as dt
import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError
from django.utils.deconstruct import deconstructible

Network = IPv4Network | IPv6Network

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
INTERFACE = re.compile(r"[a-zA-Z0-9_=+][a-zA-Z0-9_=+.-]{0,14}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
KEYGEN_LINE = re.compile(r"\d+ (SHA256:\S{43}) .*\([A-Z0-9-]+\)")  # as ssh-keygen -l prints it


@deconstructible
class Matches:
    """The whole value has the form of `pattern` (Python's own `$` lets a newline pass)."""

    def __init__(self, pattern: str, message: str) -> None:
        self.pattern, self.message = pattern, message

    def __call__(self, value: str) -> None:
        if not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValidationError(self.message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matches) and (self.pattern, self.message) == (other.pattern, other.message)

    def __hash__(self) -> int:
        return hash((self.pattern, self.message))


valid_name = Matches(NAME.pattern, "Use 1 to 63 lower-case letters, digits, dots and dashes, not at the ends.")
valid_interface = Matches(
    INTERFACE.pattern,
    "An interface name has 1 to 15 letters, digits or _=+.- and does not start with - or a dot.",
)
valid_host = Matches(HOST.pattern, "Give a host name or an address, without port or brackets.")
valid_host_key = Matches(HOST_KEY.pattern, 'Give the host key as "ssh-ed25519 AAAA...", without a comment.')


def one_line(value: str) -> None:
    if any(not character.isprintable() for character in value):
        raise ValidationError("Use printable characters on one line.")
    if not value.strip():
        raise ValidationError("Write something, not only spaces.")


def parse_network(text: str) -> Network:
    """A network in canonical text; ValidationError for host bits, leading zeros, and IPv4 inside IPv6."""
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise ValidationError(f"{text!r} is not a network: {error}.") from None
    if str(network) != text:
        raise ValidationError(f"Write {text!r} as {str(network)!r}.")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValidationError(f"{text!r} is an IPv4 network inside IPv6: write it as IPv4.")
    return network


def valid_networks(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValidationError('Give a list of networks, such as ["10.0.0.0/8"].')
    for item in value:
        parse_network(item)


def valid_dns(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValidationError('Give a list of addresses, such as ["10.0.0.53"].')
    for item in value:
        _check_address(item)


def _check_address(text: str) -> None:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValidationError(f"{text!r} is not an address: give one such as 10.0.0.53.") from None
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValidationError(f"{text!r} is no address for every client: leave out the zone, write IPv4 as IPv4.")
    if str(address) != text:
        raise ValidationError(f"Write {text!r} as {str(address)!r}.")


def valid_pool4(value: str) -> None:
    network = parse_network(value)
    if network.version != 4 or not 8 <= network.prefixlen <= 30:
        raise ValidationError("Give an IPv4 network from /8 to /30, such as 10.1.0.0/16.")


def valid_pool6(value: str) -> None:
    network = parse_network(value)
    if network.version != 6 or not 32 <= network.prefixlen <= 126:
        raise ValidationError("Give an IPv6 network from /32 to /126, such as fd00:1::/64.")


def valid_rest(value: dt.timedelta) -> None:
    if not dt.timedelta(0) <= value <= dt.timedelta(days=365):
        raise ValidationError("Give a rest from 0 to 365 days.")


def valid_warning(value: dt.timedelta) -> None:
    if not dt.timedelta(0) <= value <= dt.timedelta(days=365):
        raise ValidationError("Warn from 0 to 365 days before the end.")


def valid_idle(value: dt.timedelta) -> None:
    if not dt.timedelta(days=1) <= value <= dt.timedelta(days=3650):
        raise ValidationError("A peer is called idle after 1 to 3650 days.")


def valid_zone(value: str) -> None:
    if value not in available_timezones():
        raise ValidationError("Give a time zone by its name, such as Europe/Berlin or UTC.")
