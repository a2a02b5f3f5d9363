"""The pages of people's access, a module for each group of them. What they do is done by services."""

from peers.admin import addresses, grants, leaving, people, requests, revocations, suspensions, teams

__all__ = ["addresses", "grants", "leaving", "people", "requests", "revocations", "suspensions", "teams"]
