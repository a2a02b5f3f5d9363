"""The pages of people's access, a module for each group of them. What they do is done by services."""

from peers.admin import addresses, people, requests

__all__ = ["addresses", "people", "requests"]
