"""Real WireGuard servers and clients on one Linux machine: `from tests.lab.lab import Lab`."""
