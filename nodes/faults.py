"""What can go wrong between the Console and a node: a class for each thing an operator would do."""

import re
from collections.abc import Mapping
from typing import Literal

_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
_RETRYABLE_CODES = frozenset({"stale", "base", "digest", "kernel", "disk", "internal"})


def plain(raw: bytes | str, *, limit: int = 2048, lines: int = 20) -> str:
    """Text of a machine made safe to show: its last lines, no control characters, at most `limit` long."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    kept = _UNPRINTABLE.sub("", text.replace("\r", "\n")).strip().splitlines()[-lines:]
    return "\n".join(line for line in kept if line.strip())[-limit:]


class TransportError(Exception):
    """A node could not be asked, or did not answer as it should; the text says what to do."""

    is_retryable = True


class Unreachable(TransportError):
    """No connection, or one that ended."""

    Kind = Literal["refused", "timeout", "unresolvable", "closed"]
    _ADVICE: Mapping[str, str] = {
        "refused": "nothing listens there; see that sshd runs and that the port is right",
        "timeout": "nothing answered; see that the machine is up and that no firewall is between",
        "unresolvable": "the name has no address; see that it is spelled right, or give the address",
        "closed": "the machine ended the connection; see its sshd log (MaxStartups, the forced command)",
    }

    def __init__(self, where: str, kind: Kind, detail: str = "") -> None:
        self.kind = kind
        super().__init__(f"{where}: {self._ADVICE[kind]}" + (f" ({plain(detail)})" if detail else ""))


class HostKeyMismatch(TransportError):
    """The machine is not the pinned one; nothing was sent to it, no login and no payload."""

    is_retryable = False

    _TEXT = (
        "{where}: the host key is {presented}, pinned is {expected}. If the machine was set up anew, "
        "compare the fingerprint at its own console and confirm it; if not, somebody may be in between"
    )

    def __init__(self, where: str, expected: str, presented: str) -> None:
        self.where = where
        self.expected = expected
        self.presented = presented
        super().__init__(self._TEXT.format(where=where, expected=expected, presented=presented))


class HostKeyNotConfirmed(HostKeyMismatch):
    """The machine shows another key than the operator gave for it; nothing was sent either."""

    _TEXT = (
        "{where}: the machine shows {presented}, you gave {expected}; nothing was sent. Read the fingerprint again "
        "at the machine itself; if what you gave is right, somebody may be in between"
    )


class AuthRefused(TransportError):
    """The machine is the right one and does not let this user in."""

    is_retryable = False

    def __init__(self, where: str, user: str, detail: str = "", *, by_password: bool = False) -> None:
        advice = "see its authorized_keys and the user's name"
        if by_password:
            advice = f"the password is wrong, or sshd takes none for {user} (PermitRootLogin, PasswordAuthentication)"
        super().__init__(f"{where}: login as {user} was refused; {advice}" + (f" ({plain(detail)})" if detail else ""))


class NodeSilent(TransportError):
    """Something is there, and it does not answer in time."""

    def __init__(self, where: str, after: float) -> None:
        self.after = after
        super().__init__(f"{where}: no answer within {after:g} s; the machine or its sshd hangs")


class NodeMisbehaved(TransportError):
    """What came is not of the protocol."""

    def __init__(self, where: str, what: str) -> None:
        self.what = plain(what, limit=300)
        super().__init__(f"{where}: {self.what}; install muster-node again and see that nothing else prints there")


class NodeRefused(TransportError):
    """The node understood, and said no: the code is one of the protocol's."""

    def __init__(self, where: str, code: str, message: str, body: Mapping[str, object]) -> None:
        self.code = code
        self.message = plain(message)
        self.body = body
        self.is_retryable = code in _RETRYABLE_CODES
        super().__init__(f"{where}: {self.message} ({code})")


class InstallFailed(TransportError):
    """A step of putting muster-node on a machine failed; run it again once the cause is gone."""

    is_retryable = False

    def __init__(self, step: str, what: str, *, code: str = "") -> None:
        self.step = step
        self.code = code
        super().__init__(f"{step}: {what}")
