"""Lanes: one node session each, newline-delimited JSON both ways; collecting answers from many of them."""

import itertools
import json
import math
import re
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import paramiko

from nodes.faults import NodeMisbehaved, NodeRefused, NodeSilent, TransportError, Unreachable, plain

LIMIT = 16 * 1024 * 1024
PROGRESS_TIMEOUT = 10.0
CALL_TIMEOUT = 10.0
_BLOCK = 64 * 1024
_STDERR_KEPT = 2048
_CODE = re.compile("[a-z_]{1,30}")

Within = Callable[[float], AbstractContextManager[object]]


@dataclass(frozen=True)
class Answer:
    """What a node answered to one request; `body` holds what it carries, beside the answer or inside its error."""

    id: int
    ok: bool
    body: dict[str, object]
    code: str = ""
    message: str = ""


class Lane:
    """One session of a node. For one thread at a time; requests are answered in any order, each once."""

    def __init__(self, channel: paramiko.Channel, where: str, within: Within) -> None:
        self.where = where
        self._channel = channel
        self._within = within
        self._ids = itertools.count(1)
        self._asked: dict[int, float] = {}
        self._given_up: set[int] = set()
        self._answers: dict[int, Answer] = {}
        self._pending_bytes = 0
        self._partial = bytearray()
        self._stderr = b""
        self._fault: TransportError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can be asked still; what is known to be broken stays so."""
        return self._fault is None and not self._channel.closed and not self._channel.eof_received

    def fileno(self) -> int:
        """Readable when there may be something to poll()."""
        return self._channel.fileno()

    def send(self, op: str, *, progress_timeout: float = PROGRESS_TIMEOUT, **fields: object) -> int:
        """Ask; returns the id. NodeSilent, and the connection gone, when it takes nothing for so long."""
        number = next(self._ids)
        line = json.dumps({"v": 1, "id": number, "op": op, **fields}, separators=(",", ":"), allow_nan=False)
        self._asked[number] = time.monotonic()
        data = line.encode() + b"\n"
        for start in range(0, len(data), _BLOCK):
            with self._within(progress_timeout):
                self._channel.sendall(data[start : start + _BLOCK])
        self._asked[number] = time.monotonic()
        return number

    def poll(self) -> list[Answer]:
        """The answers that have come, without waiting; raises once nothing but a fault is left."""
        self._listen()
        answers = [self._pop(number) for number in list(self._answers)]
        if not answers and self._fault is not None:
            raise self._fault
        return answers

    def take(self, number: int) -> Answer | None:
        """The answer to one request, if it has come; others stay for their own callers."""
        self._listen()
        if number in self._answers:
            return self._pop(number)
        if self._fault is not None:
            raise self._fault
        return None

    def call(self, op: str, *, timeout: float = CALL_TIMEOUT, **fields: object) -> Answer:
        """Ask and wait; NodeRefused when the node says no."""
        number = self.send(op, progress_timeout=timeout, **fields)
        [(_, outcome)] = collect({self: number}, timeout=timeout)
        if isinstance(outcome, Answer):
            return outcome
        raise outcome

    def give_up(self, number: int) -> None:
        """Nobody waits for this answer any more: it is dropped when it comes."""
        self._asked.pop(number, None)
        self._given_up.add(number)

    def asked_at(self, number: int) -> float:
        """When a request had gone out whole, by the monotonic clock; now for one that is not under way."""
        return self._asked.get(number, time.monotonic())

    def close(self) -> None:
        with suppress(EOFError, OSError, paramiko.SSHException):
            self._channel.close()

    def _pop(self, number: int) -> Answer:
        answer = self._answers.pop(number)
        if not self._answers:
            self._pending_bytes = 0
        return answer

    def _listen(self) -> None:
        try:
            self._pump()
        except (EOFError, OSError, paramiko.SSHException) as error:  # reading also sends: more may come
            self._fault = self._fault or Unreachable(self.where, "closed", str(error))

    def _pump(self) -> None:
        while self._fault is None and self._channel.recv_ready():
            self._feed(self._channel.recv(_BLOCK))
        while self._channel.recv_stderr_ready():
            self._stderr = (self._stderr + self._channel.recv_stderr(_BLOCK))[-_STDERR_KEPT:]
        if self._fault is None and (self._channel.eof_received or self._channel.closed):
            self._end()

    def _end(self) -> None:
        if self._channel.recv_ready():
            return
        self._fault = Unreachable(self.where, "closed", plain(self._stderr) or "its session ended")

    def _feed(self, data: bytes) -> None:
        searched = len(self._partial)
        self._partial += data
        if self._partial.find(b"\n", searched) < 0:
            self._check_size(len(self._partial))
            return
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        for line in lines:
            self._read(line)
            if self._fault is not None:
                return

    def _check_size(self, size: int) -> None:
        if size > LIMIT:
            self._fault = NodeMisbehaved(self.where, f"the node sent more than {LIMIT // 1024 // 1024} MiB unasked")

    def _read(self, line: bytes) -> None:
        try:
            answer = parse_answer(line)
        except ValueError as error:
            self._fault = NodeMisbehaved(self.where, str(error))
            return
        if answer.id in self._given_up:
            self._given_up.discard(answer.id)
        elif self._asked.pop(answer.id, None) is None:
            self._fault = NodeMisbehaved(self.where, f"the node answered request {answer.id}, which was not asked")
        else:
            self._answers[answer.id] = answer
            self._pending_bytes += len(line)
            self._check_size(self._pending_bytes)


def parse_answer(line: bytes) -> Answer:
    """One line of the protocol, strictly; ValueError says what is wrong with it."""
    try:
        fields = json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError(f"the node sent what is no JSON: {plain(line[:80])!r}") from None
    if not isinstance(fields, dict) or type(fields.get("v")) is not int or fields.pop("v") != 1:
        raise ValueError("the node sent no answer of protocol 1")
    number, ok, error = fields.pop("id", None), fields.pop("ok", None), fields.pop("error", None)
    code, message = _problem(error)
    if type(number) is not int or type(ok) is not bool or ok == bool(code):
        raise ValueError(f"the node sent an answer without a proper id and ok: {plain(message or line[:80])!r}")
    carried = {name: value for name, value in error.items() if name not in ("code", "message")} if error else {}
    return Answer(number, ok, {**fields, **carried}, code, message)


def _problem(error: object) -> tuple[str, str]:
    """Code and message of an answer's error; two empty texts when it has none or a wrong one."""
    match error:
        case {"code": str(code), "message": str(message)} if _CODE.fullmatch(code):
            return code, message
    return "", ""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field came twice")
    return fields


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


Outcome = tuple[Lane, Answer | TransportError]


def collect(pending: Mapping[Lane, int], *, timeout: float) -> Iterator[Outcome]:
    """Each lane's answer or error in the order of arrival; its deadline is `timeout` seconds after its send.

    Answers are those that are ok; a refusal comes as NodeRefused. A lane that missed its deadline stays open,
    and its late answer will be dropped.
    """
    for group in collect_groups(pending, timeout=timeout):
        yield from group


def collect_groups(
    pending: Mapping[Lane, int], *, timeout: float, size: int = 1, linger: float = 0.0
) -> Iterator[list[Outcome]]:
    """As `collect`, in groups of about `size`; what has come is handed over `linger` seconds later at the latest."""
    waiting = {lane: lane.asked_at(number) + timeout for lane, number in pending.items()}
    group: list[Outcome] = []
    with selectors.DefaultSelector() as selector:
        files = {lane: selector.register(lane.fileno(), selectors.EVENT_READ, lane).fd for lane in pending}
        ready, due = list(pending), math.inf
        while waiting:
            for lane in ready:
                outcome = _outcome(lane, pending[lane], waiting[lane], timeout)
                if outcome is not None:
                    del waiting[lane]
                    selector.unregister(files[lane])
                    due = due if group else time.monotonic() + linger
                    group.append((lane, outcome))
            if group and (len(group) >= size or not waiting or time.monotonic() >= due):
                yield group
                group = []
            ready = _ready(selector, waiting, due if group else math.inf)


def _ready(selector: selectors.BaseSelector, waiting: Mapping[Lane, float], until: float) -> list[Lane]:
    """Wait for lanes that have something to say, or are overdue; not beyond `until`."""
    if not waiting:
        return []
    events = selector.select(max(0.0, min(until, *waiting.values()) - time.monotonic()))
    now = time.monotonic()
    talking = {key.data: None for key, _ in events}
    return list(talking | {lane: None for lane, until in waiting.items() if until <= now})


def _outcome(lane: Lane, number: int, until: float, timeout: float) -> Answer | TransportError | None:
    try:
        answer = lane.take(number)
    except TransportError as error:
        return error
    if answer is not None:
        return answer if answer.ok else NodeRefused(lane.where, answer.code, answer.message, answer.body)
    if time.monotonic() < until:
        return None
    lane.give_up(number)
    return NodeSilent(lane.where, timeout)
