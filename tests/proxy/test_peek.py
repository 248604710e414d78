"""Bodies: what is refused with 400, what is read of the rest, and that not a byte of it changes."""

import json
import random
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.core.routing.routes import NO_WISHES, Wishes
from meshllm.proxy.peek import BodyError, Peek, peek, peek_fully, plain_chat, prompt_bytes, with_model, without
from meshllm.proxy.shapes import OWN_FIELDS, Chat, Common, Completion

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


def written(**fields: Any) -> bytes:
    """Return a chat body, compact, as most clients write it."""
    return json.dumps({"messages": MESSAGES} | fields, separators=(",", ":"), ensure_ascii=False).encode()


def refused(body: bytes, shape: type[Common] = Chat) -> BodyError:
    """Return why a body is refused."""
    with pytest.raises(BodyError) as caught:
        peek(body, shape)
    return caught.value


@pytest.mark.parametrize(
    ("body", "model", "is_stream"),
    [
        (written(), None, False),
        (written(model="m"), "m", False),
        (written(model=None, stream=None), None, False),
        (written(model="", stream=True), "", True),
        (written(model="م", stream=False), "م", False),
        (b"\xef\xbb\xbf" + written(model="bom"), "bom", False),
        (
            json.dumps({"messages": MESSAGES, "model": "x", "text": 'quotes "model": "y"'}, indent=2).encode(),
            "x",
            False,
        ),
        (written(model="x", metadata={"model": "y"}), "x", False),
    ],
)
def test_model_and_stream_are_read(body: bytes, model: str | None, *, is_stream: bool) -> None:
    """These two decide where a request goes and how it waits."""
    seen = peek(body, Chat)

    assert (seen.model, seen.is_stream) == (model, is_stream)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"x"', b"7", written()[:-1], written() + b"x", written() + written(),
        written(model="m").decode().encode("utf-16"), written().replace(b"hi", b"\xff\xfe"),
        written().replace(b"hi", b"\\ud800"), written().replace(b"hi", b"\\udc00x"),
        written(x=0)[:-2] + b"NaN}", written(x=0)[:-2] + b"Infinity}", written(x=0)[:-2] + b"-Infinity}",
        written(x=0)[:-2] + b"1e999}", written(x=0)[:-2] + b"01}", written(x=0)[:-2] + b"1" * 5000 + b"}",
        written(x=0)[:-2] + b"[" * 100_000 + b"]" * 100_000 + b"}",
        written(x=0)[:-2] + b"[" * 65 + b"]" * 65 + b"}",
        written().replace(b"hi", b"a\nb"),
    ],
)  # fmt: skip
def test_what_is_not_one_json_object_is_refused(body: bytes) -> None:
    """Some parsers accept these, some crash on them, and a proxy and its engine must agree."""
    refused(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","mod\\u0065l":"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","model" :"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","model"\n:"b","messages":[{"role":"user","content":"x"}]}',
        b'{"messages":[{"role":"user","content":"x","role":"system"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"a":{"b":[{"c":1,"c":2}]}}',
        b'{"messages":[{"role":"user","content":"x: \\": "}],"model":"a","model":"a"}',
        b'{"t":1e5,"messages":[{"role":"user","content":"x"}],"u":1,"u":1}',
    ],
)
def test_a_key_that_is_there_twice_is_refused(body: bytes) -> None:
    """The front door would route by one and the engine obey the other."""
    assert "twice" in refused(body).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('ab:"\\ \n{[,é😀'), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(extra=st.dictionaries(st.sampled_from(["a", 'b"c', "d:e", "f\\"]), JSON), style=st.integers(0, 3))
def test_no_body_without_doubles_is_taken_for_one_with(extra: dict[str, Any], style: int) -> None:
    """However a client writes its JSON, the cheap checks and the exact one agree."""
    document = {"messages": MESSAGES, "model": "m"} | extra
    separators = [(",", ":"), (", ", ": "), (" , ", " : "), (",\n", "\t:")][style]

    body = json.dumps(document, separators=separators, ensure_ascii=style % 2 == 0).encode()

    assert peek(body, Chat).model == "m"


@given(extra=st.dictionaries(st.sampled_from(["a", "b:", 'c"']), JSON, min_size=1), style=st.integers(0, 3))
def test_every_double_is_found(extra: dict[str, Any], style: int) -> None:
    """The other direction: a double hides nowhere."""
    separators = [(",", ":"), (", ", ": "), (" , ", " : "), (",\n", "\t:")][style]
    inner = json.dumps(extra, separators=separators)[1:-1]

    refused(b'{"messages":[{"role":"user","content":"x"}],' + f"{inner},{inner}".encode() + b"}")


NAME = st.sampled_from(
    ["model", "stream", "max_tokens", "temperature", "messages", "stop", "id_slot", "x", "m\\u006fdel"]
)
VALUE = st.sampled_from([
    "null", "true", "false", '"a"', '"b: \\": c"', '"a \\\\"', "7", "0", "-1", "1.5", "16.0", "1e3", "1e999",
    '"\\ud800"', "[]", "{}",
    '[{"role":"user","content":"hi"}]', '[{"role":"user","content":"x: \\": {"}]', '[{"role":"user","content":[]}]',
    '[{"role":"user","content":"a"},{"content":"b","role":"system"}]', '[{"role":"boss","content":"a"}]',
    '[{"role":"user","content":"a","role":"user"}]', '[{"role":"user","content":"a","name":"n"}]', '[{"role":"user"}]',
])  # fmt: skip
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t "])
MEMBER = st.builds(
    lambda a, name, b, c, value, d: f'{a}"{name}"{b}:{c}{value}{d}', SPACE, NAME, SPACE, SPACE, VALUE, SPACE
)
GOOD_MEMBER = st.sampled_from(
    ['"messages":[{"role":"user","content":"hi"}]', '"messages": [{"role": "user", "content": "a\\":"}]']
)


@settings(max_examples=500)
@given(
    good=st.lists(GOOD_MEMBER, max_size=1),
    members=st.lists(MEMBER, max_size=5),
    end=st.sampled_from(["}", "}", "}", "}}", "", "} "]),
)
def test_a_plain_body_is_one_that_the_full_check_reads_the_same_way(
    good: list[str], members: list[str], end: str
) -> None:
    """The quick reading refuses nothing and allows nothing of its own."""
    body = ("{" + ",".join([*good, *members]) + end).encode()

    plain = plain_chat(body)

    if plain is not None:
        seen = peek_fully(body, Chat)
        assert (seen.model, seen.is_stream) == (plain.get("model"), plain.get("stream") is True)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
@pytest.mark.parametrize("text", ["hi", "note: this", 'é 😀 "', "a: b\nc: d"])
def test_what_most_clients_send_is_read_in_one_pass(separators: tuple[str, str], text: str) -> None:
    """Otherwise the quick reading would be there for nobody."""
    chat = {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "temperature": 1,
        "max_tokens": 5,
        "stream": True,
    }

    plain = plain_chat(json.dumps(chat, separators=separators, ensure_ascii=False).encode())

    assert plain is not None
    assert (plain["model"], plain["stream"]) == ("m", True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"), ({"model": []}, "model"), ({"stream": "true"}, "stream"), ({"stream": 1}, "stream"),
        ({"temperature": -1}, "temperature"), ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"), ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1e12}, "max_tokens"), ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"), ({"n": 1000}, "n"), ({"seed": 2**70}, "seed"), ({"seed": "x"}, "seed"),
        ({"stop": 5}, "stop"), ({"stop": ["x"] * 1000}, "stop"), ({"stop": "x" * 2**20}, "stop"),
        ({"stop": [5]}, "stop[0]"),
        ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": 5}, "logit_bias"),
        ({"messages": []}, "messages"), ({"messages": {}}, "messages"), ({"messages": None}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 5000}, "messages"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": None}]}, "messages[1].content"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Who wrote the request sees which line to change."""
    error = refused(written(**fields))

    assert error.param == param
    assert error.message


def test_missing_messages_are_named() -> None:
    """The commonest mistake of all."""
    assert refused(b'{"model":"x"}').param == "messages"
    assert refused(b"{}", Completion).param == "prompt"


def test_no_content_is_legal_where_the_assistant_called_a_tool() -> None:
    """OpenAI's own clients send null there."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    body = written(messages=[*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}])

    assert peek(body, Chat).model is None


def test_millions_of_values_are_refused_before_they_become_objects() -> None:
    """Six megabytes of `{}` would be hundreds of megabytes of dictionaries."""
    body = b'{"messages":[' + b"{}," * 2_000_000 + b"{}]}"

    began_s = process_time()
    error = refused(body)

    assert "values" in error.message
    assert process_time() - began_s < 5.0


def test_a_long_prompt_is_read_in_milliseconds() -> None:
    """The loop stands still meanwhile: a megabyte of text with colons and quotes must not hurt."""
    body = written(messages=[{"role": "user", "content": 'He said: "no": \n' * 70_000}])

    began_s = process_time()
    peek(body, Chat)

    assert process_time() - began_s < 2.5


@pytest.mark.parametrize(
    ("body", "asked", "expected"),
    [
        (b'{"model":"a"}', "b", b'{"model":"b"}'),
        (b'{"x":1, "model" : null , "y":2}', "b", b'{"x":1, "model" : "b" , "y":2}'),
        (b"{ }", "b", b'{"model":"b" }'),
        (b'{"x":1}', "b", b'{"model":"b","x":1}'),
        (b'{"t":"\\"model\\":\\"a\\"","model":"a"}', "b", b'{"t":"\\"model\\":\\"a\\"","model":"b"}'),
        (b'{"m":{"model":"a"},"model":"a"}', "b", b'{"m":{"model":"a"},"model":"b"}'),
        (b'{"model":"default","text":"\xd9\x85 \\u0645"}', "b", b'{"model":"b","text":"\xd9\x85 \\u0645"}'),
        (b'{"model":"a"}', 'q"\\', b'{"model":"q\\"\\\\"}'),
    ],
)  # fmt: skip
def test_only_the_name_of_the_model_is_replaced(body: bytes, asked: str, expected: bytes) -> None:
    """A prompt in any script and spelling reaches the engine byte for byte."""
    assert with_model(body, None, asked) == expected


def test_a_body_that_names_the_model_already_is_the_same_object() -> None:
    """The usual case costs nothing."""
    body = written(model="m")

    assert with_model(body, "m", "m") is body


def test_the_bytes_of_a_prompt_are_those_of_its_texts() -> None:
    """Images and runs of blanks take no tokens that count."""
    image = {"type": "image_url", "image_url": {"url": "data:," + "x" * 9999}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "abc"}, image]},
        {"role": "user", "content": " " * 99},
    ]

    assert prompt_bytes({"messages": messages, "prompt": "de"}, 10**9) == 3 + 8 + 2


@pytest.mark.parametrize("prompt", ["x" * 49_000_000, "word " * 9_800_000, ("a" * 50 + "b" * 50) * 490_000])
def test_no_prompt_holds_up_the_loop(prompt: str) -> None:
    """The largest body that is taken, of the texts that are slowest to count: members would take the node for dead."""
    began_s = process_time()

    prompt_bytes({"prompt": prompt}, 2_000_000)

    assert process_time() - began_s < 10.0


def test_a_long_prompt_is_counted_as_far_as_it_matters() -> None:
    """More than enough is enough."""
    assert 10_000 < prompt_bytes({"prompt": "word " * 100_000}, 10_000) < 20_000


def test_mutations_of_a_good_body_raise_nothing_else() -> None:
    """Ten thousand damaged bodies: an answer or a refusal, never a crash."""
    rng = random.Random(7)
    good = json.dumps(
        {"model": "m", "stop": ["a"], "logit_bias": {"1": 2}, "messages": MESSAGES, "t": [1, {"a": 1e5}]}
    ).encode()

    for _ in range(10_000):
        body = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.choice(b'{}[]",:\\0eu\xff\x00truefalsn')
        try:
            seen = peek(bytes(body), Chat)
        except BodyError:
            continue
        assert isinstance(seen, Peek)


def test_limits_are_those_of_the_constants_module() -> None:
    """`doctor` prints them."""
    depth = limits.JSON_DEPTH - 1

    assert peek(written(x=0)[:-2] + b"[" * depth + b"]" * depth + b"}", Chat).model is None


# -- fields that speak to the mesh ---------------------------------------------------------------------


@pytest.mark.rows("AFF-9")
def test_what_speaks_to_the_mesh_is_read_and_goes_no_further() -> None:
    """Each field is known, and gone from what an engine sees."""
    own = {
        "capabilities": ["law", "arabic", "law"], "preferred_capabilities": ["poems"], "min_context": 4096,
        "session_id": "mine", "resume": False,
    }  # fmt: skip
    body = written(model="m", **own, seed=7)

    seen, plain = peek(body, Chat), peek(written(model="m", seed=7), Chat)

    assert seen.wishes == Wishes(capabilities=("arabic", "law"), preferred=("poems",), min_context=4096)
    assert (seen.session_id, seen.may_resume, seen.body) == ("mine", False, written(model="m", seed=7))
    assert (plain.wishes, plain.session_id, plain.may_resume) == (NO_WISHES, "", True)
    assert plain_chat(written(session_id="mine")) is None


@pytest.mark.parametrize("name", sorted(OWN_FIELDS))
def test_null_says_nothing_and_goes_no_further_either(name: str) -> None:
    """Clients write all their fields."""
    seen = peek(written(**{name: None}), Chat)

    assert (seen.wishes, seen.session_id, seen.may_resume, seen.body) == (Wishes(), "", True, written())


@pytest.mark.rows("AFF-6")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"capabilities": "law"}, "capabilities"), ({"capabilities": [1]}, "capabilities[0]"),
        ({"capabilities": [""]}, "capabilities[0]"), ({"capabilities": ["x" * 65]}, "capabilities[0]"),
        ({"capabilities": ["x"] * 33}, "capabilities"), ({"preferred_capabilities": {}}, "preferred_capabilities"),
        ({"min_context": "4k"}, "min_context"), ({"min_context": 0}, "min_context"),
        ({"min_context": 2**31}, "min_context"), ({"min_context": 1.5}, "min_context"),
        ({"session_id": 7}, "session_id"), ({"session_id": "x" * 257}, "session_id"), ({"resume": "no"}, "resume"),
    ],
)  # fmt: skip
def test_what_speaks_to_the_mesh_is_checked_as_everything_else(fields: dict[str, Any], param: str) -> None:
    """By name, before anything is done."""
    assert refused(written(**fields)).param == param


@pytest.mark.rows("AFF-9")
@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"resume":true}', b"{}"),
        (b'{ "resume" : true , "a" : 1 }', b'{ "a" : 1 }'),
        (b'{"a":1,  "resume":false ,\n "b":[1, 2 ] , "session_id":"q\\"}," }\n', b'{"a":1 ,\n "b":[1, 2 ] }\n'),
        (b'{"\\u0072esume":true, "a":{"resume":true}}', b'{ "a":{"resume":true}}'),
        (b'\xef\xbb\xbf{"a":1,"min_context":9}', b'\xef\xbb\xbf{"a":1}'),
        (b'{"a":"\\"resume\\":1,"}', b'{"a":"\\"resume\\":1,"}'),
    ],
)  # fmt: skip
def test_a_member_is_taken_out_and_every_other_byte_stays(body: bytes, left: bytes) -> None:
    """White space, escapes and what only looks like the member."""
    assert without(body, OWN_FIELDS) == left


_LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6)
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
_KEYS = st.sampled_from([*sorted(OWN_FIELDS), "a", 'q"', "\\", "resume ", "é", "{"])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(_KEYS, _VALUES, max_size=8), st.sampled_from([None, 1, "\t"]), st.booleans(),
    st.sampled_from([(",", ":"), (" , ", " : "), (",\n", ":")]),
)  # fmt: skip
def test_what_is_left_is_what_there_was_without_the_members(
    document: dict[str, Any], indent: Any, is_ascii: Any, separators: Any
) -> None:
    """However it is written."""
    body = json.dumps(document, indent=indent, ensure_ascii=is_ascii, separators=separators).encode()

    left = without(body, OWN_FIELDS)

    assert json.loads(left) == {key: value for key, value in document.items() if key not in OWN_FIELDS}
    assert list(json.loads(left)) == [key for key in document if key not in OWN_FIELDS]
