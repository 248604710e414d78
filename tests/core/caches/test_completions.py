"""Which answers are told again, to whom, and which are forgotten: the pure part of kept completions."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.cache_limits import COMPLETION_BYTES_SHARE
from meshllm.core.caches.completions import (
    Completions,
    events_told_again,
    recipe_of,
    request_digest,
    told_again,
    told_by_digest,
)
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineBuild, EngineOptions, EnginePlan, EngineState, MemoryNeed
from meshllm.core.ids import ModelId
from meshllm.core.view import LocalModel
from tests.core.builders import a_spec

PATH = b"/v1/chat/completions"
BUILD = EngineBuild(kind="fake", version="b1", uses_gpu=False)
ANSWER = {"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]}
CHANCES = (None, 0.1, 1, True, False, "0", 2.0)
SEEDS = (None, -1, -7, 2**32 - 1, 2**40, True, "7", 1.0)


def a_plan(spec: ModelSpec, **more: Any) -> EnginePlan:
    """Return how a model is run."""
    memory = MemoryNeed(weights_bytes=1, kv_bytes=1, overhead_bytes=1)
    facts: dict[str, Any] = {"context_tokens": 2048, "slots": 2, "gpu_layers": 0, "threads": 1, "memory": memory} | more
    return EnginePlan(model=spec, **facts)


def a_model(options: EngineOptions | None = None, digest: str | None = None, **more: Any) -> LocalModel:
    """Return a model in memory."""
    spec = a_spec("tiny") if digest is None else replace(a_spec("tiny"), digest=digest)
    plan = a_plan(spec, options=options or EngineOptions())
    facts: dict[str, Any] = {"plan": plan, "ready_since_s": 5.0, "pid": 9} | more
    return LocalModel(id=ModelId("tiny"), spec=spec, state=EngineState.READY, wanted=True, **facts)


def a_chat(**fields: Any) -> dict[str, Any]:
    """Return a request that leaves nothing to chance, unless `fields` say otherwise."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0} | fields


def digest(**fields: Any) -> bytes | None:
    """Return the digest of such a request."""
    return request_digest(PATH, a_chat(**fields))


# -- which requests ------------------------------------------------------------------------------------


@pytest.mark.rows("T28", "CAC-8")
@given(temperature=st.sampled_from(CHANCES), seed=st.sampled_from(SEEDS), more=st.dictionaries(st.text(), st.text()))
def test_a_request_that_leaves_something_to_chance_is_never_told_again(
    temperature: object, seed: object, more: dict[str, str]
) -> None:
    """No seed, or one that means any, and no temperature of zero."""
    fields = {key: value for key, value in more.items() if key not in {"temperature", "seed"}}
    assert request_digest(PATH, fields | {"temperature": temperature, "seed": seed}) is None


@pytest.mark.parametrize("field", ["samplers", "mirostat", "dynatemp_range", "xtc_probability"])
def test_what_brings_chance_back_at_temperature_zero_needs_a_seed(field: str) -> None:
    """An engine may be told to draw all the same."""
    assert digest(**{field: 1}) is None
    assert digest(**{field: 1}, seed=7) is not None


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.0}, {"temperature": 1, "seed": 0}, {"seed": 2**32 - 2}])
def test_greedy_and_seeded_requests_are_told_again(fields: dict[str, Any]) -> None:
    """Both give the same each time."""
    assert digest(**fields) is not None


def test_pictures_are_not_told_again() -> None:
    """What an address shows may change."""
    picture = [{"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}]
    text = [{"type": "text", "text": "hi"}]

    assert digest(messages=[{"role": "user", "content": picture}]) is None
    assert digest(messages=[{"role": "user", "content": text}]) is not None
    assert request_digest(b"/v1/completions", {"prompt": "hi", "temperature": 0}) is not None


@pytest.mark.rows("CAC-8")
@given(st.permutations(sorted(a_chat(top_p=0.5, max_tokens=3))))
def test_the_order_of_fields_makes_no_difference(order: list[str]) -> None:
    """Nor what no answer depends on: the model's other names, who asks, what is said to be nothing."""
    chat = a_chat(top_p=0.5, max_tokens=3)
    same = {key: chat[key] for key in order} | {"model": "other name", "user": "me", "stop": None, "stream": False}

    assert request_digest(PATH, same) == request_digest(PATH, chat)


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": "hi!"}]}, {"max_tokens": 4}, {"seed": 1}, {"stream": True},
        {"tools": [{"type": "function", "function": {"name": "a"}}]}, {"response_format": {"type": "json_object"}},
    ],
)  # fmt: skip
def test_another_request_is_another_one(other: dict[str, Any]) -> None:
    """Whatever it is that differs; the path too."""
    assert digest(**other) != digest()
    assert request_digest(b"/v1/completions", a_chat()) != digest()


def test_the_order_below_the_top_makes_a_difference() -> None:
    """A template shows it to the model."""
    one, other = {"type": "object", "title": "x"}, {"title": "x", "type": "object"}
    assert digest(json_schema=one) != digest(json_schema=other)


# -- recipes -------------------------------------------------------------------------------------------


@pytest.mark.rows("T28", "CAC-10")
@pytest.mark.parametrize(
    ("model", "build"),
    [
        (a_model(digest="sha256:" + "1" * 64), BUILD),
        (a_model(), replace(BUILD, version="b2")), (a_model(), replace(BUILD, kind="other")),
        (a_model(EngineOptions(chat_template="/t.jinja")), BUILD), (a_model(EngineOptions(has_jinja=False)), BUILD),
        (a_model(plan=a_plan(a_spec("tiny"), context_tokens=4096)), BUILD),
    ],
)  # fmt: skip
def test_another_file_build_or_template_is_another_recipe(model: LocalModel, build: EngineBuild) -> None:
    """So nothing that was kept before is found."""
    assert recipe_of(model, build) not in {"", recipe_of(a_model(), BUILD)}


@pytest.mark.rows("CAC-10")
def test_a_template_that_lies_in_a_file_is_read_at_each_load() -> None:
    """Its path does not tell what it holds now; the model's own template is a part of its file."""
    options = EngineOptions(chat_template="/t.jinja")

    assert recipe_of(a_model(options), BUILD) == recipe_of(a_model(options), BUILD)
    assert recipe_of(a_model(options), BUILD) != recipe_of(a_model(options, ready_since_s=6.0), BUILD)
    assert recipe_of(a_model(), BUILD) == recipe_of(a_model(ready_since_s=6.0, pid=10), BUILD)


@pytest.mark.parametrize("model", [a_model(digest=""), a_model(plan=None), a_model(adopted_from="s")])
def test_what_is_not_known_has_no_recipe(model: LocalModel) -> None:
    """A file that is still hashed, a server that nobody here started."""
    assert recipe_of(model, BUILD) == ""
    assert recipe_of(a_model(), None) == ""


# -- answers -------------------------------------------------------------------------------------------


@pytest.mark.rows("CAC-8")
def test_a_whole_answer_says_that_it_was_kept() -> None:
    """And nothing else of it changes."""
    told = told_again(json.dumps(ANSWER).encode())

    assert told is not None
    assert json.loads(told) == ANSWER | {"cached": True}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b'{"choices": []}', b'{"choices": 3}', b'{"choices": [{"index": 0}]}', b"[" * 100_000,
        json.dumps(ANSWER | {"error": {}}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_good_answer_is_not_kept(body: bytes) -> None:
    """Errors, halves, and what is no JSON."""
    assert told_again(body) is None
    assert events_told_again(b"data: " + body + b"\n\ndata: [DONE]\n\n") is None


def an_event(finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """Return an event of a stream."""
    document = {"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": finish}]} | more
    return b"data: %b\n\n" % json.dumps(document).encode()


USAGE = b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_a_stream_is_told_with_all_its_events() -> None:
    """Comments apart; each event says that it was kept."""
    told = events_told_again(b": waiting\n\n" + an_event() + an_event("stop") + USAGE + DONE) or b""
    *events, done, end = told.split(b"\n\n")

    assert (done, end) == (b"data: [DONE]", b"")
    documents = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert all(document["cached"] is True for document in documents)
    assert documents[2]["usage"] == {"total_tokens": 3}


@pytest.mark.parametrize(
    "events",
    [
        b"", DONE, an_event("stop"), an_event() + DONE, an_event("stop") + an_event(index=1) + DONE,
        an_event("stop", error={}) + DONE, b"event: error\n" + an_event("stop") + DONE, an_event("stop") + DONE + DONE,
    ],
)  # fmt: skip
def test_a_stream_that_did_not_end_well_is_not_kept(events: bytes) -> None:
    """Without its end, without the end of a choice, with an error, or with something after the end."""
    assert events_told_again(events) is None


# -- memory --------------------------------------------------------------------------------------------


def a_key(number: int) -> tuple[str, str, bytes]:
    """Return one of many keys."""
    return "tiny", "recipe", bytes([number])


@given(
    st.integers(0, 20_000),
    st.lists(st.tuples(st.sampled_from(["keep", "find", "resize"]), st.integers(0, 9), st.integers(0, 4000))),
)
def test_the_memory_never_has_more_than_it_may(most_bytes: int, steps: list[tuple[str, int, int]]) -> None:
    """And what is found is what was kept last."""
    memory, kept = Completions(), dict[int, bytes]()
    memory.resize(most_bytes)

    for what, number, size in steps:
        if what == "resize":
            memory.resize(size * 8)
        elif what == "keep":
            if memory.keep(a_key(number), bytes(size)):
                kept[number] = bytes(size)
        elif (found := memory.find(a_key(number))) is not None:
            assert found == kept[number]
        assert 0 <= memory.size_bytes <= memory.most_bytes
        assert (memory.size_bytes == 0) == (len(memory) == 0)


def test_what_was_told_longest_ago_is_forgotten_first() -> None:
    """Not what was kept first."""
    memory = Completions()
    memory.resize(8000)
    for number in range(8):
        memory.keep(a_key(number), bytes(700))

    memory.find(a_key(0))
    memory.keep(a_key(8), bytes(700))

    assert memory.find(a_key(0)) is not None
    assert memory.find(a_key(1)) is None
    assert (memory.hits, memory.misses, memory.evictions) == (2, 1, 1)


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    """It would drive out most others."""
    memory = Completions()
    memory.resize(8000)

    assert not memory.keep(a_key(1), bytes(int(8000 * COMPLETION_BYTES_SHARE)))
    assert memory.keep(a_key(1), bytes(700))
    assert memory.find(a_key(2), a_key(1)) == bytes(700)


# -- answers of other nodes ----------------------------------------------------------------------------


@given(text=st.text(), number=st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_what_was_told_again_comes_out_as_it_went_in(text: str, number: float) -> None:
    """So another node's word can be read as an engine's, whatever is in it."""
    answer = {"x": number, "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
    told = told_again(json.dumps(answer).encode())
    events = events_told_again(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(answer).encode())

    assert told is not None
    assert events is not None
    assert told_again(told) == told
    assert events_told_again(events) == events


@pytest.mark.parametrize("value", ['"\\ud800"', "NaN", "Infinity", "1e999", "-Infinity"])
def test_what_is_no_json_is_not_told(value: str) -> None:
    """Half a character, and numbers that JSON does not have; nothing breaks of them."""
    answer = json.dumps(ANSWER)[:-1].encode() + b', "x": %b}' % value.encode()

    assert told_again(answer) is None
    assert events_told_again(b"data: %b\n\ndata: [DONE]\n\n" % answer) is None


def test_an_answer_is_read_in_the_form_that_was_asked_for() -> None:
    """The digest of a request says which; the other form is none."""
    whole, stream = digest(), digest(stream=True)
    assert whole is not None
    assert stream is not None
    text = json.dumps(ANSWER).encode()
    events = b"data: %b\n\ndata: [DONE]\n\n" % text

    assert told_by_digest(whole, text) == told_again(text)
    assert told_by_digest(stream, events) == events_told_again(events)
    assert told_by_digest(stream, text) is None
    assert told_by_digest(whole, events) is None
    assert (whole[:1], stream[:1], digest(stream=False)) == (b"w", b"s", whole)
