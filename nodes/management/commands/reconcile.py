"""manage.py reconcile [--dry-run] [SERVER...]: the workers' own reconcile, by hand."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from audit.context import acting_from
from fleet.models import Server
from nodes.crew import Crew
from nodes.plans import describe
from nodes.reconcile import Outcome, plan, reconcile, told


class Command(BaseCommand):
    help = "Bring servers to what is desired now, or say what that would change. Needs the keyring of the workers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("servers", nargs="*", metavar="SERVER", help="names; all enrolled servers if none is given")
        parser.add_argument("--dry-run", action="store_true", help="show the plan, change nothing")

    def handle(self, *args: Any, servers: list[str], dry_run: bool, **options: Any) -> None:
        crew, failed = Crew(), 0
        try:
            with acting_from("command", "reconcile"):
                for server in _chosen(servers):
                    outcome = _attempt(server, crew, dry_run)
                    failed += outcome.result in {"failed", "busy"}
                    self._tell(server, outcome)
        finally:
            crew.close()
        if failed:
            raise CommandError(f"{failed} server(s) were not reconciled; see above.")

    def _tell(self, server: Server, outcome: Outcome) -> None:
        self.stdout.write(f"{server.name}: {outcome.result} {outcome.detail}".rstrip())
        if outcome.result != "planned":
            return
        for verb, peers in describe(outcome).items():
            for peer in peers if isinstance(peers, list) else []:
                self.stdout.write(f"  {verb} {peer['public_key']} {peer['device']}".rstrip())


def _chosen(names: list[str]) -> list[Server]:
    found = list(Server.objects.exclude(enrolled_at=None).filter(**({"name__in": names} if names else {})))
    missing = set(names) - {server.name for server in found}
    if missing:
        raise CommandError(f"No enrolled server is called {', '.join(sorted(missing))}.")
    return found


def _attempt(server: Server, crew: Crew, dry_run: bool) -> Outcome:
    if dry_run:
        return told(server.pk, lambda: plan(server.pk, crew.pool))
    return reconcile(server.pk, crew.pool)
