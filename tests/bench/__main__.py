"""`make bench`: what Muster promises in figures, measured against what operators use today and against its targets."""

import argparse
import json
import os
import sys
from pathlib import Path

from tests.bench import access, fifty_servers, interface, one_server
from tests.bench.measure import Figures

PARTS = {"fifty_servers": fifty_servers, "outages": interface, "one_server": one_server, "access": access}
SERVERS, PEERS, CROWD, PEOPLE, FLEET, ROUNDS = 50, 200, 10_000, 2_000, 200, 5


def main() -> int:
    given = parser().parse_args()
    chosen = given.only or list(PARTS)
    if os.geteuid() != 0 and chosen != ["access"]:
        sys.exit("The benchmark makes network namespaces: run it as root.")
    figures: Figures = {}
    for name in chosen:
        found = PARTS[name].measure(given)
        PARTS[name].show(found, given)
        print(flush=True)
        figures |= found
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if given.strict and (one_server.missed(figures) or access.missed(figures)) else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--json", type=Path, help="write every figure there, flat")
    made.add_argument("--only", choices=PARTS, action="append", help="this part; may come again")
    made.add_argument("--strict", action="store_true", help="exit 1 where a target is missed")
    made.add_argument("--servers", type=int, default=SERVERS)
    made.add_argument("--peers", type=int, default=PEERS, help="on each of the many servers")
    made.add_argument("--crowd", type=int, default=CROWD, help="peers on the one server")
    made.add_argument("--people", type=int, default=PEOPLE, help="in the big fleet, with 50 peers each")
    made.add_argument("--fleet", type=int, default=FLEET, help="servers of the big fleet")
    made.add_argument("--rounds", type=int, default=ROUNDS, help="trials of each; the median counts")
    return made


if __name__ == "__main__":
    sys.exit(main())
