#!/usr/bin/env python3
"""Django's command line for the Console."""

import os
import sys
from pathlib import Path

try:
    from django.core.management import execute_from_command_line
    from django.db import OperationalError, ProgrammingError
except ModuleNotFoundError:
    sys.exit("Django is not here: run `make install` once, and then `.venv/bin/python manage.py`.")

# These act on a Console that was set up before; where there is none they leave no folder behind.
ON_A_CONSOLE = {"add_token", "add_user", "enrol_server", "reconcile", "rotate_keyring"}


def main(command: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    data = Path(os.environ.get("MUSTER_DATA", Path(__file__).resolve().parent / "data"))
    if command in ON_A_CONSOLE and "MUSTER_DATABASE" not in os.environ and not (data / "muster.sqlite3").exists():
        sys.exit(f"{data} has no Console: start one with `make run`, or set MUSTER_DATA to the folder of yours.")
    try:
        execute_from_command_line(sys.argv)
    except (OperationalError, ProgrammingError) as error:
        if command not in ON_A_CONSOLE:
            raise
        sys.exit(f"{str(error).strip()}: set MUSTER_DATA and MUSTER_DATABASE as the Console has them, and migrate.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
