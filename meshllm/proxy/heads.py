"""Verdicts on heads, remembered: by their exact bytes, and for inference by what of them matters.

Owns the memory of heads that were read before. Decides which fields make no difference to an inference
request: those can vary from one to the next (lengths, ids, traces) without the head being read anew.
Doesn't know sockets.

Invariant: whatever a verdict depends on is part of the key that it is remembered by, and a head is
matched against the whole grammar before its remembered verdict is used.
"""

import re

import msgspec

from meshllm.core import limits
from meshllm.core.routing.priorities import Priority
from meshllm.proxy.access import AccessRules
from meshllm.proxy.http1 import ONCE_ONLY, is_well_formed, parse_head
from meshllm.proxy.intake import SANE_REQUEST_ID, TRACEPARENT, Door, Intake, take_in
from meshllm.proxy.resumable import CHAT

_VARYING = re.compile(
    rb"\r\n(?:content-length:[ \t]*([0-9]{1,18})|x-request-id:[ \t]*([A-Za-z0-9._:/+=-]{1,%d})"
    rb"|traceparent:[ \t]*(%b))[ \t]*(?=\r\n)" % (limits.REQUEST_ID_BYTES, TRACEPARENT.encode()),
    re.IGNORECASE,
)
"""Fields that have another value in each request, and say nothing about the rest."""
_SANE_ID = re.compile(SANE_REQUEST_ID.pattern.encode())
_TRACE = re.compile(TRACEPARENT.encode())
_MATTERING = ONCE_ONLY | {
    "accept",
    "cache-control",
    "connection",
    "sec-fetch-mode",
    "x-mesh-resume",
    "x-mesh-strategy",
    "x-priority",
    "x-session-id",
}
_OF_NO_MATTER = re.compile(
    rb"\r\n(?!(?:%b):)[^:\r\n]+:[^\r\n]*(?=\r\n)" % "|".join(sorted(_MATTERING)).encode(), re.IGNORECASE
)
"""Fields that change nothing for an inference request: they are neither looked at nor passed on."""


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A head that came: its verdict, and what is its own."""

    intake: Intake
    length: int
    """Bytes of the body; 0 for a chunked one."""
    plain_length: int
    """The same where nothing but that many bytes has to come before the request is complete; else -1."""
    request_id: bytes | None
    """The client's own, if it is sane."""
    is_straight: bool
    """Nothing but the body can say that the request is not for the straight lane."""
    path: bytes
    """The engine's, for inference."""
    engine_start: bytes
    """The head for the engine, `Content-Length` included, without key and id."""
    trace: bytes
    """Its `traceparent`, if it is proper; else empty."""


def _arrival(intake: Intake, length: int, request_id: bytes | None, trace: bytes) -> Arrival:
    """Return a head that came."""
    head, door = intake.head, intake.inference
    is_plain = intake.refusal is None and not head.is_chunked and not head.expects_continue
    plain_length = length if is_plain and length <= intake.body_limit_bytes else -1
    is_chat = door is not None and door.path == CHAT and intake.door is Door.INFERENCE
    is_straight = is_plain and is_chat and intake.keeps_alive and intake.priority is not Priority.LOW
    is_straight = is_straight and not intake.client
    return Arrival(
        intake, length, plain_length, request_id, is_straight=is_straight,
        path=door.path if door is not None else b"",
        engine_start=b"%bContent-Length: %d\r\n" % (intake.engine_lines, length), trace=trace,
    )  # fmt: skip


class Heads:
    """The memory of heads that came over connections to one local address."""

    def __init__(self, rules: AccessRules | None, local_address: str) -> None:
        """Judge by these rules, or as one of a peer. A Host may name the address that was reached."""
        self._rules = rules
        self._local_address = local_address
        self._intakes: dict[bytes, Intake] = {}
        self._by_rest: dict[tuple[bytes, bool], Arrival] = {}
        """Straight ones, by what is left of a head without length and id, and whether there was an id in it."""
        self.is_leaving = False
        self.known: dict[bytes, Arrival] = {}
        """By exact bytes; read directly on the fast path."""

    def read(self, block: bytes) -> Arrival:
        """Return the verdict on a head. Raises ProtocolError."""
        known = self.known.get(block)
        if known is not None:
            return known
        if len(block) > limits.HEAD_REMEMBERED_BYTES:
            return self._read_anew(block)
        rest, length, request_id = _taken_apart(block)
        if len(self.known) >= limits.HEADS_REMEMBERED:
            self.known.clear()
        arrival = self._with_another_length(rest, length, request_id)
        if arrival is None:
            arrival = self._varied(block) or self._read_anew(block)
            if arrival.is_straight and length:
                if len(self._by_rest) >= limits.HEADS_REMEMBERED:
                    self._by_rest.clear()
                self._by_rest[rest, request_id != b""] = arrival
        self.known[block] = arrival
        return arrival

    def forget(self) -> None:
        """Forget everything: the node leaves, and remembered verdicts promise connections that stay open."""
        self.is_leaving = True
        self.known.clear()
        self._intakes.clear()
        self._by_rest.clear()

    def _with_another_length(self, rest: bytes, length: bytes, request_id: bytes) -> Arrival | None:
        """Return the verdict on a head that differs from a known one in its length and id alone, as most do.

        All other bytes are those of a head that was read, so neither the grammar nor the rule that each of
        the two is there once needs another look.
        """
        known = self._by_rest.get((rest, request_id != b""))
        if known is None:
            return None
        intake, size = known.intake, int(length)
        return Arrival(
            intake, size, size if size <= intake.body_limit_bytes else -1, request_id or known.request_id,
            is_straight=True, path=known.path, trace=known.trace,
            engine_start=b"%bContent-Length: %d\r\n" % (intake.engine_lines, size),
        )  # fmt: skip

    def _varied(self, block: bytes) -> Arrival | None:
        """Return the verdict on a head that differs from a known one only in what makes no difference."""
        if not self._intakes:
            return None
        varying = _VARYING.findall(block)
        if len(varying) > 3 or block.count(b"\r\n") > limits.HTTP_HEADER_FIELDS:
            return None
        intake = self._intakes.get(_key(block))
        if intake is None or not is_well_formed(block):
            return None
        length, request_id, trace = b"", b"", b""
        for a_length, an_id, a_trace in varying:
            length, request_id, trace = length or a_length, request_id or an_id, trace or a_trace
        if (length != b"") + (request_id != b"") + (trace != b"") < len(varying):
            return None  # the same field twice: let the grammar's own rules decide
        return _arrival(intake, int(length or b"0"), request_id or None, trace)

    def _read_anew(self, block: bytes) -> Arrival:
        head = parse_head(block)
        intake = take_in(head, self._rules, self._local_address, is_leaving=self.is_leaving)
        if intake.door is Door.INFERENCE and not head.is_chunked and not head.expects_continue:
            if len(self._intakes) >= limits.HEADS_REMEMBERED:
                self._intakes.clear()
            self._intakes[_key(block)] = intake
        given_id = head.get("x-request-id")
        request_id = given_id.encode() if given_id and SANE_REQUEST_ID.fullmatch(given_id) else None
        trace = (head.get("traceparent") or "").encode("latin-1")
        return _arrival(intake, head.length, request_id, trace if _TRACE.fullmatch(trace) else b"")


def _taken_apart(block: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (the rest, the digits of the length, the request's id) of a head whose fields are written as most are.

    An id that is missing, odd or oddly written stays in the rest, and is empty here. Without a length in
    its usual form all three are empty.
    """
    start, end = _value(block, b"\r\nX-Request-ID: ", b"\r\nx-request-id: ")
    request_id = block[start:end]
    if request_id and _SANE_ID.fullmatch(request_id):
        block = block[:start] + block[end:]
    else:
        request_id = b""
    start, end = _value(block, b"\r\nContent-Length: ", b"\r\ncontent-length: ")
    digits = block[start:end]
    return (block[:start] + block[end:], digits, request_id) if digits.isdigit() and len(digits) <= 18 else (b"",) * 3


def _value(block: bytes, name: bytes, other_name: bytes) -> tuple[int, int]:
    """Return where the value of a field begins and ends, with either name; (0, 0) if it has none."""
    at = block.find(name)
    if at < 0:
        at = block.find(other_name)
    return (at + len(name), block.find(b"\r", at + len(name))) if at >= 0 else (0, 0)


def _key(block: bytes) -> bytes:
    """Return what of a head matters to an inference request."""
    return _OF_NO_MATTER.sub(b"", _VARYING.sub(b"", block))
