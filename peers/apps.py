"""Who has access to what."""

from django.apps import AppConfig


class PeersConfig(AppConfig):
    name = "peers"
