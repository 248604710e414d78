"""What no type can say: nothing is fetched, nothing is compiled for ever, no slot is touched from outside."""

from typing import Any

import msgspec
import pytest

from meshllm.core import limits
from meshllm.proxy.json_rules import RuleError, check
from meshllm.proxy.shapes import AnthropicCount, Chat, Common, Responses

TEXT = {"type": "text", "text": "what is it?"}


def checked(document: dict[str, Any], shape: type[Common] = Chat) -> bool:
    """Check a document as a body would be; return whether there are images in it."""
    document = {"messages": [{"role": "user", "content": "x"}]} | document
    return check(document, msgspec.convert(document, shape))


def refused(document: dict[str, Any], shape: type[Common] = Chat) -> str:
    """Return the field because of which a document is refused."""
    with pytest.raises(RuleError) as caught:
        checked(document, shape)
    return caught.value.param


@pytest.mark.parametrize("name", ["n_discard", "id_slot", "lora", "n_keep", "cache_reuse", "slot_id"])
def test_parameters_that_reach_into_an_engine_are_refused(name: str) -> None:
    """A negative one has corrupted an engine's memory before."""
    assert refused({name: -1}) == name


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": "https://x/a.png"},
        {"type": "image_url", "image_url": {"url": "FILE:///a"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
        {"type": "video_url", "video_url": {"url": "http://x"}},
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]},
    ],
)
def test_nothing_is_fetched_for_a_request(part: dict[str, Any]) -> None:
    """An engine inside the network would be a way into it."""
    param = refused({"messages": [{"role": "user", "content": [TEXT, part]}]}, AnthropicCount)

    assert param.startswith("messages[0].content[1]")


def test_images_inside_the_request_are_welcome() -> None:
    """That is what data URLs are for."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

    assert checked({"messages": [{"role": "user", "content": [TEXT, image]}]})


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([{"role": "user", "content": [{"type": "image"}, TEXT]}, {"role": "user", "content": [TEXT]}], True),
        ([{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}], True),
        ([{"role": "user", "content": [TEXT, {"type": ["image"]}, {"type": "input_audio"}]}], False),
        ([{"role": "user", "content": "image_url"}], False),
    ],
)  # fmt: skip
def test_images_are_noticed_wherever_they_stand(messages: list[object], *, found: bool) -> None:
    """A model has to see for them."""
    assert checked({"messages": messages}) is found


def test_inputs_of_responses_and_system_prompts_are_looked_at_too() -> None:
    """Every place where a part may stand."""
    part = {"type": "input_image", "image_url": "http://x"}

    assert refused({"input": [{"role": "user", "content": [part]}]}, Responses).startswith("input[0]")
    assert refused({"system": [{"type": "image", "source": {"url": "http://x"}}]}, AnthropicCount).startswith("system")


def a_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the field that asks for an answer in a schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"x": {"$ref": "https://example.org/s"}}},
        {"properties": {"x": {"$ref": "#/$defs/missing"}}},
        {"type": "string", "pattern": "(a+)+$"},
        {"type": "string", "pattern": r"^(?:[a-z]*)*x"},
        {"type": "string", "pattern": "(a|b{2,}){3,}"},
        {"description": "x" * (limits.JSON_GRAMMAR_BYTES + 1)},
        {"enum": list(range(limits.JSON_GRAMMAR_BYTES + 1))},
    ],
)
def test_schemas_that_may_take_for_ever_are_refused(schema: dict[str, Any]) -> None:
    """An engine compiles them while everybody else waits."""
    assert refused(a_schema(schema)) == "response_format"


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/a"}}},
        {"type": "string", "pattern": r"^(\d+,)*\d+$"},
        {"type": "string", "pattern": r"^\(\+\)+$"},
        {"properties": {"pattern": {"type": "string"}}},
    ],
)
def test_ordinary_schemas_pass(schema: dict[str, Any]) -> None:
    """Shared definitions and separators are what people write."""
    checked(a_schema(schema))


def test_tools_are_schemas_too() -> None:
    """Their parameters are compiled in the same way."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"$ref": "#"}}}}}

    assert refused({"tools": [tool]}) == "tools"


def test_stop_sequences_have_a_size() -> None:
    """They are compared with every token."""
    assert refused({"stop": ["x" * (limits.JSON_STOP_BYTES // 2 + 1)] * 2}) == "stop"
    checked({"stop": ["\n\n", "END"]})


def test_token_numbers_may_be_biased() -> None:
    """Also none of them."""
    checked({"logit_bias": {"15": -100, "-1": 2}})
    checked({"logit_bias": [[15, -1]]})
