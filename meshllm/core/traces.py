"""What was done for one request, and when, as spans: ids, which traces are kept, the document that collectors take.

Owns the shape of a span, the field `traceparent` (W3C Trace Context) and the encoding of OTLP/HTTP in JSON. Decides
which requests are traced: as whoever asked said, else by share. Doesn't know clocks, sockets nor what the spans mean;
random bits and times are handed in.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

Value = str | int | float | bool

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_VERSION = "ff"
_SAMPLED = 0x01
_SHARE_DIGITS = 14
"""Hex digits at the end of a trace's id that chance alone made, by which its share is decided: 56 bits."""
_SCOPE = "meshllm"
_STATUS_ERROR = 2


class SpanKind(IntEnum):
    """Which end of a call a span is, as OTLP numbers them."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in which trace something belongs: what `traceparent` says."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits: the span that whatever follows is a child of."""
    is_sampled: bool = True
    """Whoever asked keeps its part of the trace."""

    @property
    def field(self) -> str:
        """Return the value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One thing that was done for a request. Times are nanoseconds since 1970."""

    name: str
    context: TraceContext
    """Its own."""
    parent_id: str = ""
    """Empty for the root of a trace."""
    kind: SpanKind = SpanKind.INTERNAL
    began_ns: int
    ended_ns: int
    attributes: tuple[tuple[str, Value], ...] = ()
    error: str = ""
    """Why it failed; empty where it did not."""


def read_traceparent(text: str) -> TraceContext | None:
    """Return what a field says; None where it is none by the standard, as it wants: then a new trace begins."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    if version == _NO_VERSION or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, is_sampled=bool(int(flags, 16) & _SAMPLED))


def new_context(random_bits: Callable[[int], int], share: float) -> TraceContext:
    """Return the root of a new trace, kept with this chance: 0 for none, 1 for all."""
    trace_id = f"{random_bits(128) or 1:032x}"
    is_sampled = int(trace_id[-_SHARE_DIGITS:], 16) < share * 16**_SHARE_DIGITS
    return TraceContext(trace_id, new_span_id(random_bits), is_sampled=is_sampled)


def child_of(parent: TraceContext, random_bits: Callable[[int], int]) -> TraceContext:
    """Return a new place below another one of the same trace."""
    return TraceContext(parent.trace_id, new_span_id(random_bits), is_sampled=parent.is_sampled)


def new_span_id(random_bits: Callable[[int], int]) -> str:
    """Return an id that nothing else in its trace has, save by a chance of one in 2^64."""
    return f"{random_bits(64) or 1:016x}"


def otlp(spans: Iterable[Span], resource: Mapping[str, Value]) -> dict[str, object]:
    """Return spans of one node as the body of `POST /v1/traces`; `resource` says which node it is."""
    scope = {"scope": {"name": _SCOPE}, "spans": [_document(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(resource.items())}, "scopeSpans": [scope]}]}


def _document(span: Span) -> dict[str, object]:
    document: dict[str, object] = {
        "traceId": span.context.trace_id, "spanId": span.context.span_id, "name": span.name, "kind": int(span.kind),
        "startTimeUnixNano": str(span.began_ns), "endTimeUnixNano": str(span.ended_ns),
        "attributes": _attributes(span.attributes), "status": {},
    }  # fmt: skip
    if span.parent_id:
        document["parentSpanId"] = span.parent_id
    if span.error:
        document["status"] = {"code": _STATUS_ERROR, "message": span.error}
    return document


def _attributes(pairs: Iterable[tuple[str, Value]]) -> list[dict[str, object]]:
    return [{"key": key, "value": _value(value)} for key, value in pairs]


def _value(value: Value) -> dict[str, object]:
    """Return a value as OTLP writes it: whole numbers of 64 bits are text in JSON."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
