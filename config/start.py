"""What stops a process of the Console before it does anything: a keyring that does not belong to the database."""

from django.db import DatabaseError, connections

from fleet.sealing import KeyringBroken


def fault_of(*keyrings: str) -> str:
    """In one line, with what to do; empty where the process may start. Nothing is written."""
    from fleet.keyrings import check_keyring  # noqa: PLC0415 - its models need Django to be set up, which it is by now

    try:
        for keyring in keyrings:
            check_keyring(keyring)
    except KeyringBroken as error:
        return str(error)
    except DatabaseError as error:
        return f"Nobody can tell whether the keyrings are right, as the database does not answer: {error}".strip()
    finally:
        connections.close_all()
    return ""
