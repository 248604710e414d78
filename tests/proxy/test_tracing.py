"""What is told of a request while somebody watches: its spans, over two nodes too, and its lines in the log."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from meshllm.core.traces import Span, read_traceparent
from meshllm.proxy.front_door import FrontDoor
from meshllm.proxy.tracing import ONLY_WAY, Collecting
from meshllm.wire.tunnel_frames import TunnelRefusal
from tests.proxy.builders import CHAT, TINY, House, Reply, a_chat, a_house, a_model, a_post, answer_ok, until
from tests.proxy.test_metering import quotas
from tests.proxy.tunnels import FIRST, SECOND, a_mesh, a_served_model

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = f"traceparent: 00-{TRACE}-{CALLER}-01"
STEPS = ["routing_decision", "cache_lookup", "quota_check", "model_execution"]
LONG = "word " * 200


def spans_of(door: FrontDoor, share: float = 1.0) -> list[Span]:
    """Return where a front door's spans come together from here on."""
    spans: list[Span] = []
    door.watch(Collecting(take=spans.append, share=share))
    return spans


def named(spans: list[Span], name: str) -> Span:
    """Return the one span of a name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def fact(span: Span, name: str) -> object:
    """Return what a span says."""
    return dict(span.attributes)[name]


async def ask(house: House, *lines: str, **fields: Any) -> Reply:
    """Ask the model something, with these header fields."""
    return await house.ask(a_post(a_chat(**fields), CHAT, *lines))


async def until_on_lane(house: House) -> None:
    """Ask until a request took the straight lane: the first of all does not, nor one every few seconds."""
    while not sum(count for _, count in house.door.traffic.on_lane()):
        assert (await ask(house)).status == 200


def by_start(spans: list[Span]) -> list[str]:
    """Return the names of the steps below the root in the order in which they began."""
    root = named(spans, "request").context.span_id
    steps = sorted((span for span in spans if span.parent_id == root), key=lambda span: span.began_ns)
    return [span.name for span in steps]


@pytest.mark.rows("TRC-2", "RTE-24")
async def test_a_request_has_its_spans_in_the_order_of_its_steps() -> None:
    """Routing, cache, quotas, execution: each begins after the one before, inside the whole."""
    async with a_house() as house:
        spans = spans_of(house.door)
        reply = await ask(house)
        await until(lambda: len(spans) == 5, "all spans")

    assert reply.status == 200
    assert by_start(spans) == STEPS
    root = named(spans, "request")
    assert {span.context.trace_id for span in spans} == {root.context.trace_id}
    assert len({span.context.span_id for span in spans}) == 5
    assert all(root.began_ns <= span.began_ns <= span.ended_ns <= root.ended_ns for span in spans)
    assert fact(root, "http.response.status_code") == 200
    assert fact(root, "meshllm.request_id") == reply.headers["x-request-id"]
    assert (fact(root, "meshllm.model"), fact(root, "url.path")) == (TINY, CHAT)


@pytest.mark.rows("TRC-2", "RTE-24")
async def test_hosts_quotas_and_caches_that_count_are_asked_in_the_same_order() -> None:
    """Also where each of the steps has something to do."""
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        entry.views.newest = replace(entry.views.newest, quotas=quotas(hourly_request_limit=3))
        spans = spans_of(entry.door)
        await ask(entry, messages=[{"role": "user", "content": LONG}])
        await until(lambda: any(span.name == "request" for span in spans), "all spans")

    assert by_start(spans) == STEPS
    assert fact(named(spans, "routing_decision"), "meshllm.hosts") == 2
    assert fact(named(spans, "cache_lookup"), "meshllm.prompt_bytes") >= len(LONG)  # type: ignore[operator]
    assert fact(named(spans, "quota_check"), "meshllm.limited") is True


@pytest.mark.rows("TRC-1", "TRC-2")
async def test_a_trace_goes_on_at_the_node_that_answers() -> None:
    """One trace from the client's own span to the engine of another node; each span below the one that asked for it."""
    async with a_mesh(answer_ok) as (entry, mesh):
        spans, far = spans_of(entry.door), spans_of(mesh.doors[FIRST])
        await ask(entry, TRACED)
        await until(lambda: len(spans) == 5 and len(far) == 2, "all spans of both nodes")

    root, execution = named(spans, "request"), named(spans, "model_execution")
    tunnel, engine = named(far, "tunnel"), named(far, "engine")
    assert {span.context.trace_id for span in (*spans, *far)} == {TRACE}
    assert (root.parent_id, execution.parent_id) == (CALLER, root.context.span_id)
    assert (tunnel.parent_id, engine.parent_id) == (execution.context.span_id, tunnel.context.span_id)
    assert (fact(execution, "meshllm.node"), fact(execution, "meshllm.tunnelled")) == (FIRST, True)
    assert execution.began_ns <= tunnel.began_ns <= engine.began_ns <= engine.ended_ns <= tunnel.ended_ns


async def test_a_stream_is_traced_to_its_end_and_says_when_it_began() -> None:
    """Not only to its first byte."""
    async with a_mesh(answer_ok) as (entry, mesh):
        spans, far = spans_of(entry.door), spans_of(mesh.doors[FIRST])
        await ask(entry, stream=True)
        await until(lambda: len(spans) == 5 and len(far) == 2, "all spans of both nodes")

    for span in (named(spans, "model_execution"), named(far, "engine")):
        assert 0 < fact(span, "meshllm.first_byte_ms") <= (span.ended_ns - span.began_ns) / 1e6  # type: ignore[operator]


async def test_every_host_that_was_tried_has_its_own_execution() -> None:
    """The one that refused is an error, the whole is none."""
    async with a_mesh(answer_ok, answer_ok) as (entry, mesh):
        mesh.refusals[FIRST] = mesh.refusals[SECOND] = TunnelRefusal(code="busy", message="no")
        spans = spans_of(entry.door)
        refused = await ask(entry)
        mesh.refusals.clear()
        await until(lambda: any(span.name == "request" for span in spans), "the end of the first")
        tried = [span for span in spans if span.name == "model_execution"]

    assert refused.status == 429
    assert {fact(span, "meshllm.node") for span in tried} == {FIRST, SECOND}
    assert all(span.error for span in tried)
    assert [fact(span, "meshllm.attempt") for span in tried] == [1, 2]


async def test_a_request_that_is_refused_at_once_is_one_span() -> None:
    """Nobody was asked for it."""
    async with a_house() as house:
        spans = spans_of(house.door)
        reply = await ask(house, model="nobody")

    assert reply.status == 404
    assert [(span.name, fact(span, "http.response.status_code"), span.error) for span in spans] == [
        ("request", 404, "")
    ]


async def test_a_request_above_a_quota_says_so_in_its_spans() -> None:
    """It was routed, and never executed."""
    async with a_house() as house:
        spans = spans_of(house.door)
        house.views.newest = replace(house.views.newest, quotas=quotas(hourly_token_limit=8000), epoch=2)
        reply = await ask(house, max_tokens=9000)

    assert reply.status == 429
    assert by_start(spans) == STEPS[:-1]
    assert named(spans, "quota_check").error == reply.error["code"]


async def test_a_client_that_leaves_ends_its_spans() -> None:
    """Neither the execution nor the whole stays open."""
    begun = asyncio.Event()

    async def never(_request: object, _writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with a_house(never) as house:
        spans = spans_of(house.door)
        client = await house.connect()
        await client.send(a_post(a_chat()))
        await begun.wait()
        await client.close()
        await until(lambda: len(spans) == 5, "all spans")

    assert fact(named(spans, "request"), "http.response.status_code") == 499


async def test_what_its_client_does_not_trace_nobody_traces() -> None:
    """Nor what the share leaves out; the trace is passed on all the same."""
    async with a_mesh(answer_ok) as (entry, mesh):
        spans, far = spans_of(entry.door, share=0.0), spans_of(mesh.doors[FIRST], share=1.0)
        await ask(entry, f"traceparent: 00-{TRACE}-{CALLER}-00")
        await ask(entry)
        passed = [read_traceparent(head.traceparent) for _, head in mesh.heads]

    assert (spans, far) == ([], [])
    assert passed[0] is not None
    assert (passed[0].trace_id, passed[0].is_sampled) == (TRACE, False)
    assert passed[1] is not None
    assert not passed[1].is_sampled


async def test_a_node_that_does_not_trace_passes_the_field_on_as_it_came() -> None:
    """The next node's spans are then right below the client's."""
    async with a_mesh(answer_ok) as (entry, mesh):
        far = spans_of(mesh.doors[FIRST])
        await ask(entry, TRACED)
        await ask(entry)
        await until(lambda: len(far) == 2, "the spans of the far end")

    assert [head.traceparent for _, head in mesh.heads] == [TRACED.partition(": ")[2], ""]
    assert named(far, "tunnel").parent_id == CALLER


async def test_without_a_watch_the_straight_lane_is_used_and_with_one_it_is_not() -> None:
    """Nobody pays for what nobody sees."""
    async with a_house(models=lambda socket: (a_model(socket=socket),)) as house:
        await until_on_lane(house)
        lane_before = sum(count for _, count in house.door.traffic.on_lane())
        house.views.publish(a_model(socket=house.engine.socket))
        spans_of(house.door)
        await ask(house)
        await ask(house)
        lane = sum(count for _, count in house.door.traffic.on_lane())

    assert lane == lane_before > 0


@pytest.mark.rows("LOG-1", "LOG-3", "RTE-23")
async def test_debug_shows_every_decision_with_its_scores(caplog: pytest.LogCaptureFixture) -> None:
    """Of requests with several ways and of those with one; with the ids by which spans and lines are found."""
    caplog.set_level(logging.DEBUG, "meshllm.request_router")
    async with a_mesh(answer_ok, models=lambda socket: (a_served_model(socket),)) as (entry, _):
        entry.door.watch(None)
        await ask(entry, TRACED, "X-Session-Id: s1", "X-Request-ID: r1")
        entry.views.publish(a_model(socket=entry.engine.socket))
        await ask(entry)

    records: list[Any] = [record for record in caplog.records if record.name == "meshllm.request_router"]
    assert {record.getMessage() for record in records} == {"Routed request to model"}
    several, single = (record.fields for record in records)
    assert (several["model_id"], several["request_id"], several["trace_id"]) == (TINY, "r1", TRACE)
    assert (several["session"], several["strategy"]) == ("s1", "affinity_based")
    assert several["routing_time_us"] > 0
    assert len(several["scores"]) == 2
    assert several["score"] == several["scores"][several["picked"]]
    assert len(several["span_id"]) == 16
    assert (single["strategy"], single["score"], single["model_id"]) == (ONLY_WAY, None, TINY)


@pytest.mark.rows("LOG-3")
async def test_debug_shows_what_was_looked_up_in_caches(caplog: pytest.LogCaptureFixture) -> None:
    """The second of two alike is known to be cached where the first one went."""
    caplog.set_level(logging.DEBUG, "meshllm")
    async with a_mesh(answer_ok, answer_ok) as (entry, _):
        entry.door.watch(None)
        for _ in range(2):
            await ask(entry, messages=[{"role": "user", "content": LONG}])

    records: list[Any] = [record for record in caplog.records if record.name == "meshllm.prompt_cache"]
    first, second = (record.fields for record in records)
    assert set(first["hit_shares"].values()) == {0.0}
    assert max(second["hit_shares"].values()) > 0.5
    assert second["size_bytes"] >= len(LONG)


@pytest.mark.rows("LOG-3")
async def test_debug_shows_what_quotas_were_calculated(caplog: pytest.LogCaptureFixture) -> None:
    """What the request would take, what is left, and the verdict."""
    caplog.set_level(logging.DEBUG, "meshllm")
    async with a_house() as house:
        house.door.watch(None)
        house.views.newest = replace(house.views.newest, quotas=quotas(hourly_token_limit=8000), epoch=2)
        await ask(house, max_tokens=4000)
        refused = await ask(house, max_tokens=9000)

    assert refused.status == 429
    records: list[Any] = [record for record in caplog.records if record.name == "meshllm.quota_check"]
    verdicts = [(one.fields["said"], one.fields["limited"]) for one in records if one.getMessage() == "Checked quotas"]
    assert verdicts[0] == ("admitted", True)
    sums = [one.fields for one in records if one.getMessage() == "Calculated quotas"]
    assert sums[0]["prompt_tokens"] > 0
    assert (sums[0]["admitted"], sums[0]["answer_tokens"], sums[0]["why"]) == (True, 4000, "")
    assert sums[0]["left"] == 1.0
    assert (sums[-1]["admitted"], sums[-1]["answer_tokens"]) == (False, 9000)
    assert "hour" in sums[-1]["why"]
