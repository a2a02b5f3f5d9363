"""The one-time login that puts muster-node on a bare machine; afterwards only the forced command is used."""

import hashlib
import json
import re
import selectors
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import paramiko

from nodes.faults import (
    AuthRefused,
    HostKeyMismatch,
    HostKeyNotConfirmed,
    InstallFailed,
    NodeMisbehaved,
    TransportError,
    plain,
)
from nodes.hostkeys import pins
from nodes.transport import Connection, Deadline, Target, dial, load_key, told

SCRIPT_PATH = "/usr/local/sbin/muster-node"
INSTALL_TIMEOUT = 300.0
_CONNECT_TIMEOUT = 20.0
_OUTPUT_LIMIT = 1024 * 1024
_ERRORS_KEPT = 8 * 1024
_BLOCK = 64 * 1024
_QUIET = 0.5
_SUDO_WITH_PASSWORD = "sudo -k -S -p ''"  # noqa: S105
_INTERFACE = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")

# Skips what sudo did not read (it reads no password where it wants none), so that nothing secret becomes content.
_MARK = "muster-input-begins"
_SKIP_TO_MARK = f'while IFS= read -r line; do [ "$line" = {_MARK} ] && break; done; '

# Runs over there: takes a whole script from standard input and checks it; what follows decides what becomes of it.
_TAKE = """
import hashlib, os, sys, tempfile
size, digest, path = sys.argv[1:4]
data = sys.stdin.buffer.read(int(size))
if hashlib.sha256(data).hexdigest() != digest:
    sys.exit("the script arrived damaged; try again")
"""
_PUT = f"""{_TAKE}
os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
handle, temporary = tempfile.mkstemp(prefix=".muster-node.", dir=os.path.dirname(path))
try:
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        os.fchmod(handle, 0o755)
        os.fchown(handle, 0, 0)
        file.flush()
        os.fsync(handle)
    os.rename(temporary, path)
except BaseException:
    os.unlink(temporary)
    raise
with open(path, "rb") as file:
    print(hashlib.sha256(file.read()).hexdigest())
"""
# The installer is never on a disk over there; its request comes behind it on standard input.
_RUN = f"""{_TAKE}
del sys.argv[1:3]
exec(compile(data, "muster_install.py", "exec"))
"""


@dataclass(frozen=True)
class Login:
    """A way in that is used once: a password, a private key (OpenSSH text), or both."""

    user: str
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class InstallResult:
    """The host key that the machine proved to hold, and what the installer answered."""

    host_key: str
    answer: dict[str, object]


@dataclass(frozen=True)
class _Ran:
    status: int
    output: bytes
    errors: bytes

    @property
    def last_line(self) -> str:
        """What a command said last; a shell's own greetings come before it."""
        return (plain(self.output, lines=1, limit=_OUTPUT_LIMIT).splitlines() or [""])[-1]


def install_node(
    *,
    host: str,
    port: int,
    login: Login,
    host_key: str,
    script: bytes,
    installer: bytes,
    interface: str,
    request: dict[str, object],
    jump: Target | None = None,
    timeout: float = INSTALL_TIMEOUT,
    progress: Callable[[str], None] = lambda line: None,
    script_path: str = SCRIPT_PATH,
) -> InstallResult:
    """Log in once, put the script there and run the installer; raises TransportError, InstallFailed naming the step.

    host_key is what the operator confirmed: a whole key, or its "SHA256:..." fingerprint.
    """
    if not _INTERFACE.fullmatch(interface):
        raise InstallFailed("interface", "a WireGuard interface has 1 to 15 letters, digits or _=+.- in its name")
    progress(f"connecting to {host} port {port}")
    connection = _reach(host, port, host_key, jump, min(timeout, _CONNECT_TIMEOUT), login)
    try:
        with Deadline(timeout) as deadline:
            machine = _Machine(connection, login, progress, deadline)
            answer = machine.install(script, script_path, installer, interface, request)
        return InstallResult(connection.host_key, answer)
    finally:
        connection.close()


def _reach(host: str, port: int, confirmed: str, jump: Target | None, timeout: float, login: Login) -> Connection:
    """A logged-in connection to a machine that proved the confirmed key; a fingerprint may be of any type of key."""
    presented = []
    expected = ""
    with Deadline(timeout) as deadline:
        for pin in pins(confirmed):
            try:
                connection = dial(host, port, pin, jump, deadline)
            except HostKeyMismatch as mismatch:
                if mismatch.where != f"{host} port {port}":
                    raise
                presented.append(mismatch.presented)
                expected = pin.expected
                continue
            return _logged_in(connection, login, deadline)
    shown = [text for text in presented if text.startswith("SHA256:")] or presented
    raise HostKeyNotConfirmed(f"{host} port {port}", expected, " and ".join(shown))


def _logged_in(connection: Connection, login: Login, deadline: Deadline) -> Connection:
    try:
        with told(connection.where, deadline, user=login.user, by_password=bool(login.password)):
            _authenticate(connection.transport, login, connection.where)
        return connection
    except BaseException:
        connection.close()
        raise


def _authenticate(transport: paramiko.Transport, login: Login, where: str) -> None:
    """Key first, then password; a machine may also want both."""
    if login.private_key:
        try:
            transport.auth_publickey(login.user, load_key(login.private_key, where, login.user))
        except paramiko.AuthenticationException:
            if not login.password or not transport.is_active():
                raise
    if login.password and not transport.is_authenticated():
        transport.auth_password(login.user, login.password)
    if not transport.is_authenticated():
        raise AuthRefused(where, login.user, "the machine wants another or a further way to log in")


def _digest(script: bytes) -> str:
    return hashlib.sha256(script).hexdigest()


def _command(program: str, script: bytes, *words: str) -> str:
    """Runs `program` over there on a script that comes on standard input, by the python that scripts name."""
    return shlex.join(["/usr/bin/python3", "-IS", "-c", program, str(len(script)), _digest(script), *words])


class _Machine:
    """A machine that is logged in to: runs commands as root there and names the step that fails."""

    def __init__(
        self, connection: Connection, login: Login, progress: Callable[[str], None], deadline: Deadline
    ) -> None:
        self._deadline = deadline
        self._connection = connection
        self._login = login
        self._progress = progress
        self._sudo = ""

    def install(
        self, script: bytes, path: str, installer: bytes, interface: str, request: dict[str, object]
    ) -> dict[str, object]:
        self._become_root()
        self._need_python()
        self._put(script, path)
        self._progress(f"installing on {interface}; missing packages may take minutes")
        ran = self._run_as_root(
            "install",
            _command(_RUN, installer, path, interface),
            installer + json.dumps(request, separators=(",", ":")).encode() + b"\n",
            tell=True,
        )
        return self._answer(ran)

    def _become_root(self) -> None:
        """Find out how to be root here: we are, or sudo asks for nothing, or it takes our password."""
        if self._run("login", "id -u").last_line == "0":
            return
        self._progress(f"becoming root by sudo as {self._login.user}")
        if self._run("sudo", "sudo -n true", may_fail=True).status == 0:
            self._sudo = "sudo -n"
        elif self._login.password is None:
            raise InstallFailed(
                "sudo",
                f"{self._login.user} is not root and may not use sudo without a password; log in as root, give the "
                "password, or add a NOPASSWD line to sudoers for the time of the installation",
            )
        else:
            self._run("sudo", f"{_SUDO_WITH_PASSWORD} true", self._password_line())
            self._sudo = _SUDO_WITH_PASSWORD

    def _need_python(self) -> None:
        found = self._run("python3", "command -v python3", may_fail=True)
        if found.status != 0:
            raise InstallFailed(
                "python3",
                "the machine has no python3; install it (apt-get or dnf install python3) and try again",
            )

    def _put(self, script: bytes, path: str) -> None:
        self._progress(f"writing {path}")
        ran = self._run_as_root("script", _command(_PUT, script, path), script)
        if ran.last_line != _digest(script):
            raise InstallFailed("script", f"{path} does not hold what was written; see the disk and try again")

    def _answer(self, ran: _Ran) -> dict[str, object]:
        try:
            answer = json.loads(ran.last_line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise InstallFailed("install", self._failure(ran, "the installer gave no answer"))
        if answer.get("ok") is not True:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: dict[str, object]) -> InstallFailed:
        match answer.get("error"):
            case {"code": str(code), "message": str(message)}:
                return InstallFailed("install", self._show(message), code=code)
        return InstallFailed("install", "the installer answered neither ok nor an error")

    def _run(self, step: str, command: str, given: bytes = b"", *, may_fail: bool = False, tell: bool = False) -> _Ran:
        """Run one command to its end; what goes wrong names the step."""
        try:
            with self._connection.within(self._deadline.left):
                ran = self._exchange(command, given, tell)
        except TransportError as error:
            raise InstallFailed(step, str(error)) from None
        if ran.status != 0 and not may_fail:
            raise InstallFailed(step, self._failure(ran))
        return ran

    def _run_as_root(self, step: str, command: str, given: bytes, *, tell: bool = False) -> _Ran:
        if self._sudo == _SUDO_WITH_PASSWORD:
            command = f"{self._sudo} sh -c {shlex.quote(_SKIP_TO_MARK + command)}"
            given = self._password_line() + f"{_MARK}\n".encode() + given
        elif self._sudo:
            command = f"{self._sudo} sh -c {shlex.quote(command)}"
        return self._run(step, command, given, may_fail=tell, tell=tell)

    def _exchange(self, command: str, given: bytes, tell: bool) -> _Ran:
        channel = self._connection.start(command, timeout=_CONNECT_TIMEOUT)
        errors = _Lines(lambda line: self._progress(self._show(line)) if tell else None)
        output = bytearray()
        with channel, selectors.DefaultSelector() as selector:
            selector.register(channel.fileno(), selectors.EVENT_READ)
            with suppress(OSError):  # it may end before it has read all; its output says why
                channel.sendall(given)
                channel.shutdown_write()
            while True:
                is_quiet = not selector.select(_QUIET)
                is_over = bool(channel.eof_received or channel.closed)
                self._drain(channel, output, errors)
                # A daemon that a command leaves behind may hold the output open for ever.
                if is_over or (is_quiet and channel.exit_status_ready()):
                    if not self._connection.is_alive:
                        raise EOFError("the connection ended before the command did")
                    return _Ran(channel.recv_exit_status(), bytes(output), errors.ended())

    def _drain(self, channel: paramiko.Channel, output: bytearray, errors: "_Lines") -> None:
        while channel.recv_ready():
            output += channel.recv(_BLOCK)
            if len(output) > _OUTPUT_LIMIT:
                raise NodeMisbehaved(self._connection.where, "a command printed more than 1 MiB")
        while channel.recv_stderr_ready():
            errors.feed(channel.recv_stderr(_BLOCK))

    def _password_line(self) -> bytes:
        return f"{self._login.password}\n".encode()

    def _failure(self, ran: _Ran, what: str = "the command failed") -> str:
        shown = self._show(ran.errors) or self._show(ran.output) or "it said nothing"
        return f"{what} (exit status {ran.status}); mend what it says and try again:\n{shown}"

    def _show(self, text: bytes | str) -> str:
        shown = plain(text)
        return shown.replace(self._login.password, "***") if self._login.password else shown


class _Lines:
    """What comes on standard error: told line by line, and the end of it kept."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._kept = b""

    def feed(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_ERRORS_KEPT:]
        *lines, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[-_ERRORS_KEPT:]
        for line in filter(None, lines):
            self._tell(line)

    def ended(self) -> bytes:
        if self._rest:
            self._tell(self._rest)
        return self._kept
