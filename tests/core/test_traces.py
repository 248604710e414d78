"""Spans, the field that carries a trace from program to program, and what collectors are sent."""

import json
import random

import pytest

from meshllm.core.traces import Span, SpanKind, TraceContext, child_of, new_context, otlp, read_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(("flags", "is_sampled"), [("01", True), ("00", False), ("03", True), ("02", False)])
def test_a_field_says_where_in_which_trace_a_request_belongs(flags: str, is_sampled: bool) -> None:
    """The lowest flag alone says whether whoever asked keeps its part."""
    found = read_traceparent(f"00-{TRACE}-{SPAN}-{flags}")

    assert found == TraceContext(TRACE, SPAN, is_sampled=is_sampled)


def test_a_field_that_is_read_and_written_is_the_same() -> None:
    """What comes in and what goes on are one form."""
    field = f"00-{TRACE}-{SPAN}-01"

    found = read_traceparent(field)

    assert found is not None
    assert found.field == field


@pytest.mark.parametrize(
    "text",
    ["", "x", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}",
     f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more"],
)  # fmt: skip
def test_a_field_that_is_none_by_the_standard_is_none(text: str) -> None:
    """The standard wants a new trace to begin then."""
    found = read_traceparent(text)

    assert found is None


def test_a_field_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    """Versions to come keep the first four parts."""
    found = read_traceparent(f"01-{TRACE}-{SPAN}-01")

    assert found == TraceContext(TRACE, SPAN)


def test_new_traces_are_kept_by_their_share() -> None:
    """All of 1, none of 0, and about as many between as said."""
    bits = random.Random(7).getrandbits

    kept = {share: sum(new_context(bits, share).is_sampled for _ in range(2000)) for share in (0.0, 0.25, 1.0)}

    assert (kept[0.0], kept[1.0]) == (0, 2000)
    assert 400 < kept[0.25] < 600


def test_ids_are_never_all_zeros() -> None:
    """Such an id is none."""
    context = new_context(lambda _: 0, 1.0)

    assert read_traceparent(context.field) is not None


def test_a_child_is_in_the_same_trace_at_a_place_of_its_own() -> None:
    """And kept where its parent is."""
    parent = TraceContext(TRACE, SPAN, is_sampled=False)

    child = child_of(parent, random.Random(7).getrandbits)

    assert (child.trace_id, child.is_sampled) == (TRACE, False)
    assert child.span_id != SPAN


def test_collectors_get_spans_in_their_form() -> None:
    """64-bit numbers as text, ids as hex digits, an error with its reason; JSON all of it."""
    root = Span(
        name="request", context=TraceContext(TRACE, SPAN), kind=SpanKind.SERVER, began_ns=1, ended_ns=2**62,
        attributes=(("a", "text"), ("b", 7), ("c", 0.5), ("d", True)), error="host_lost",
    )  # fmt: skip
    child = Span(name="engine", context=TraceContext(TRACE, "1" * 16), parent_id=SPAN, began_ns=1, ended_ns=2)

    document = json.loads(json.dumps(otlp([root, child], {"service.name": "mesh-llm"})))

    (of_node,) = document["resourceSpans"]
    assert of_node["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "mesh-llm"}}]
    first, second = of_node["scopeSpans"][0]["spans"]
    assert first == {
        "traceId": TRACE, "spanId": SPAN, "name": "request", "kind": 2, "startTimeUnixNano": "1",
        "endTimeUnixNano": str(2**62), "status": {"code": 2, "message": "host_lost"},
        "attributes": [
            {"key": "a", "value": {"stringValue": "text"}}, {"key": "b", "value": {"intValue": "7"}},
            {"key": "c", "value": {"doubleValue": 0.5}}, {"key": "d", "value": {"boolValue": True}},
        ],
    }  # fmt: skip
    assert (second["parentSpanId"], second["status"], second["kind"]) == (SPAN, {}, 1)
