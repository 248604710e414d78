"""What of requests and answers routing depends on."""

import json
from dataclasses import replace
from typing import Any

import pytest

from meshllm.core.routing.prefix_index import NO_PROMPT
from meshllm.core.routing.route_memory import Ask, Report
from meshllm.core.routing_config import DEFAULT, RoutingConfig, Strategy
from meshllm.proxy.asks import ask_of, report_of, report_of_events, tokens_of, tokens_of_events
from meshllm.proxy.framing import chunk
from meshllm.proxy.http1 import parse_head
from meshllm.proxy.intake import Intake, take_in

LONG = "word " * 400


def an_intake(path: str = "/v1/chat/completions", *lines: str) -> Intake:
    """Return the verdict on a head with these fields."""
    fields = "".join(f"{line}\r\n" for line in lines)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n{fields}\r\n"
    return take_in(parse_head(head.encode()), None, "")


def asked(
    document: object, *lines: str, path: str = "/v1/chat/completions", config: RoutingConfig = DEFAULT, named: str = ""
) -> Ask:  # fmt: skip
    """Return what a request says; `named` is its session as its body had it."""
    return ask_of(an_intake(path, *lines), json.dumps(document).encode(), b"req-1", config, named)


def turns(*contents: Any) -> dict[str, Any]:
    """Return a conversation whose turns change between user and assistant."""
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def test_a_conversation_that_goes_on_begins_with_what_it_was() -> None:
    """So its host is found by its blocks."""
    first, second = asked(turns(LONG)), asked(turns(LONG, "answer", "more " * 200))

    assert (first.is_first, second.is_first) == (True, False)
    assert second.prompt.blocks[: len(first.prompt.blocks)] == first.prompt.blocks
    assert len(second.prompt.blocks) > len(first.prompt.blocks) > 0
    assert first.request_id == "req-1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (turns(LONG), turns([{"type": "text", "text": LONG}])),
        ({"prompt": LONG}, {"prompt": [LONG]}),
        ({"system": LONG, **turns("a")}, {"system": [{"type": "text", "text": LONG}], **turns("a")}),
    ],
)
def test_a_text_in_parts_is_the_same_text(one: object, other: object) -> None:
    """Clients write it either way."""
    assert asked(one).prompt == asked(other).prompt != NO_PROMPT


@pytest.mark.parametrize("key", ["tools", "system", "instructions"])
def test_what_templates_put_first_is_part_of_the_beginning(key: str) -> None:
    """Another set of tools is another prompt from its first token on."""
    one, other = (asked({key: [{"text": name}], **turns(LONG)}).prompt for name in ("a", "b"))

    assert one.blocks[0] != other.blocks[0]


def test_images_are_part_of_a_prompt() -> None:
    """Two pictures are not the same question."""
    one, other = (
        asked(turns([{"type": "image_url", "image_url": {"url": f"data:{name}"}}, {"type": "text", "text": LONG}]))
        for name in "ab"
    )

    assert one.prompt.blocks[0] != other.prompt.blocks[0]


def test_lines_for_billing_do_not_change_a_prompt() -> None:
    """Some clients change one at every call."""
    one, other = (
        asked({"system": f"x-anthropic-billing-header: {number}\n{LONG}", **turns("a")}).prompt for number in (1, 2)
    )

    assert one == other


@pytest.mark.parametrize("path", ["/v1/embeddings", "/tokenize", "/v1/messages/count_tokens"])
def test_what_fills_no_cache_has_no_prompt(path: str) -> None:
    """Counting a conversation's tokens does not read it."""
    assert asked({"input": LONG, "content": LONG, **turns(LONG)}, path=path).prompt == NO_PROMPT


@pytest.mark.rows("RTE-17")
def test_without_the_optimisation_nothing_is_hashed() -> None:
    """`enable_cache_optimization` false."""
    assert asked(turns(LONG), config=replace(DEFAULT, optimizes_cache=False)).prompt == NO_PROMPT


@pytest.mark.parametrize(
    ("lines", "named", "fields", "from_user", "expected"),
    [
        (("X-Session-ID: user-abc-123",), "other", {}, False, "user-abc-123"),
        ((), "s", {"user": "u"}, True, "s"),
        ((), "", {"user": "u", "prompt_cache_key": "k"}, False, ""),
        ((), "", {"user": "u", "prompt_cache_key": "k"}, True, "k"),
        ((), "", {"user": "u"}, True, "u"),
        ((), "", {"prompt_cache_key": 7, "user": None}, True, ""),
    ],
)
def test_a_session_is_named_by_header_then_by_fields(
    lines: tuple[str, ...], named: str, fields: dict[str, Any], from_user: bool, expected: str
) -> None:
    """OpenAI's own fields only where the configuration says so."""
    config = replace(DEFAULT, affinity_from_user=from_user)

    assert asked(turns("a") | fields, *lines, config=config, named=named).session == expected


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_header_names_the_strategy_of_one_request(strategy: Strategy) -> None:
    """Any of the eight."""
    assert asked(turns("a"), f"X-Mesh-Strategy: {strategy}").strategy is strategy
    assert asked(turns("a")).strategy is None


@pytest.mark.rows("RTE-1")
def test_an_unknown_strategy_is_refused_with_the_list_of_all() -> None:
    """Before the body is read."""
    refusal = an_intake("/v1/chat/completions", "X-Mesh-Strategy: fastest").refusal

    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "invalid_strategy")
    assert all(strategy in refusal.message for strategy in Strategy)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages":5}', b'{"messages":[5]}', b"\xff", b'{"tools":'])
def test_odd_bodies_say_nothing(body: bytes) -> None:
    """They are refused elsewhere, or are none of ours."""
    ask = ask_of(an_intake(), body, b"r", DEFAULT)

    assert (ask.prompt, ask.session, ask.is_first) == (NO_PROMPT, "", True)


# -- answers ---------------------------------------------------------------------------------------------

USAGE = {"usage": {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 60}}}
TIMINGS = {"timings": {"prompt_n": 40, "cache_n": 60, "prompt_ms": 80.5, "predicted_n": 5, "predicted_ms": 250.0}}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (USAGE, Report(prompt_tokens=100, cached_tokens=60, made_tokens=5)),
        (TIMINGS, Report(prompt_tokens=100, cached_tokens=60, made_tokens=5, read_s=0.0805, wrote_s=0.25)),
        (USAGE | TIMINGS, Report(prompt_tokens=100, cached_tokens=60, made_tokens=5, read_s=0.0805, wrote_s=0.25)),
        ({"usage": {"prompt_tokens": 100}}, Report(prompt_tokens=100)),
        ({"usage": {"prompt_tokens": -5}}, Report()),
        ({"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}}, Report()),
        ({"usage": "much"}, Report()),
        ({}, Report()),
    ],
)
def test_an_answer_reports_its_prompt(said: dict[str, Any], expected: Report) -> None:
    """Numbers that cannot be are no report."""
    assert report_of(json.dumps({"choices": [], **said}).encode()) == expected


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_stream_reports_in_one_of_its_last_events(is_chunked: bool) -> None:
    """Whatever comes behind it."""
    events = [
        b'data: {"choices":[{"delta":{"content":"\\"timings\\""}}]}\n\n',
        b"data: " + json.dumps(TIMINGS).encode() + b"\n\n",
        b"data: [DONE]\n\n",
    ]
    pieces = [chunk(event) for event in events] + [b"0\r\n\r\n"] if is_chunked else events

    assert report_of_events(pieces, is_chunked=is_chunked).cached_tokens == 60
    assert report_of_events(pieces[:1], is_chunked=is_chunked) == Report()
    assert report_of_events([], is_chunked=is_chunked) == Report()


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}, 7),
        ({"usage": {"prompt_tokens": 3}}, 3), ({"usage": {"input_tokens": 3, "output_tokens": 5}}, 8),
        ({"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}, 3),
        ({"timings": {"prompt_n": 2, "cache_n": 3, "predicted_n": 4}}, 9),
        ({"usage": None, "timings": None}, None), ({"usage": {"output_tokens": 5}}, None), ({"usage": 3}, None),
        ([], None),
    ],
)  # fmt: skip
def test_what_a_request_took_is_read_from_any_kind_of_answer(document: object, tokens: int | None) -> None:
    """Whole ones and the last events of streams; what says nothing of it, says nothing."""
    body = json.dumps(document).encode()

    assert tokens_of(body) == tokens
    events = chunk(b'data: {"x":1}\n\n'), chunk(b"data: " + body + b"\n\n"), chunk(b"data: [DONE]\n\n")
    assert tokens_of_events(events, is_chunked=True) == tokens
