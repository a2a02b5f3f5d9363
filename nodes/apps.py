"""Everything that talks to servers."""

from django.apps import AppConfig


class NodesConfig(AppConfig):
    name = "nodes"
