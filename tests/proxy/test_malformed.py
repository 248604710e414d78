"""The tables of malformed requests, over real sockets: each gets its answer, and the next good request works."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from meshllm.core import limits
from meshllm.core.engines import EngineState
from tests.core.builders import a_spec
from tests.proxy.builders import CHAT, Client, House, a_chat, a_get, a_house, a_model, a_post, until

BODY = json.dumps(a_chat()).encode()
MESSAGES = [{"role": "user", "content": "hi"}]
A_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
A_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """Open a front door with short deadlines."""
    async with a_house(header_timeout_s=0.6, body_timeout_s=0.6) as open_house:
        yield open_house


def raw(*lines: str, body: bytes = BODY, first: str = f"POST {CHAT} HTTP/1.1", host: str | None = "Host: x") -> bytes:
    """Return a request of exactly those lines."""
    named = [host.replace("x", "localhost")] if host else []
    return "\r\n".join((first, *named, "Content-Type: application/json", *lines, "", "")).encode("latin-1") + body


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

FRAMING: dict[str, tuple[bytes, set[int]]] = {
    "length then chunked": (raw(LENGTH, CHUNKED, body=ONE_CHUNK), {400}),
    "chunked then length": (raw(CHUNKED, LENGTH, body=ONE_CHUNK), {400}),
    "two lengths": (raw(LENGTH, "Content-Length: 1"), {400}),
    **{f"length {value!r}": (raw(f"Content-Length: {value}"), {400})
       for value in ("+5", "-1", "0x10", "7_2", "", "9" * 30)},
    "length over the limit": (raw(f"Content-Length: {limits.HTTP_BODY_BYTES + 1}", body=b""), {413}),
    "identity, chunked": (raw("Transfer-Encoding: identity, chunked", body=ONE_CHUNK), {400, 501}),
    "chunked in 1.0": (raw(CHUNKED, first=f"POST {CHAT} HTTP/1.0", body=ONE_CHUNK), {400}),
    "17 digits": (raw(CHUNKED, body=b"00000000000000001\r\n"), {400, 413}),
    "bare LF in chunks": (raw(CHUNKED, body=b"%x\n%b\n0\n\n" % (len(BODY), BODY)), {400}),
    "200 kB extension": (raw(CHUNKED, body=b"5;x=" + b"a" * 200_000 + b"\r\n"), {400, 413}),
    "chunks over the limit": (raw(CHUNKED, body=b"%x\r\n" % (limits.HTTP_BODY_BYTES + 1)), {413}),
    "no host": (raw(LENGTH, host=None), {400}),
    "two hosts": (raw("Host: localhost", LENGTH), {400}),
    "obs-fold": (raw("X-A: b\r\n c", LENGTH), {400}),
    "70 kB header": (raw(f"X-A: {'a' * 70_000}", LENGTH), {431, 400}),
    "1,000 headers": (raw(*[f"X-{number}: 1" for number in range(1000)], LENGTH), {431, 400}),
    "HTTP/9.9": (raw(LENGTH, first=f"POST {CHAT} HTTP/9.9"), {505}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400}),
    "bare LF": (raw(LENGTH).replace(b"\r\n", b"\n", 2), {400}),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    "rebinding host": (raw(LENGTH, host="Host: evil.e{x}ample".replace("{x}", "x")), {403}),
    "cross-origin": (raw("Origin: https://evil.example", LENGTH), {403}),
    "cross-origin text/plain": (
        raw("Origin: https://evil.example", LENGTH).replace(b"application/json", b"text/plain"), {403}
    ),
    "gzip": (raw("Content-Encoding: gzip", LENGTH), {415}),
    "60 MiB expected": (raw("Expect: 100-continue", f"Content-Length: {60 * limits.MIB}", body=b""), {413}),
    "NUL in the path": (raw(LENGTH, first="POST /v1/%00 HTTP/1.1"), {400}),
    "dots in the path": (raw(LENGTH, first="POST /v1/%2e%2e%2fetc HTTP/1.1"), {400}),
    "backslash in the path": (raw(LENGTH, first="POST /v1\\x HTTP/1.1"), {400}),
    "8 KiB query": (raw(LENGTH, first=f"POST {CHAT}?{'q' * 9000} HTTP/1.1"), {414}),
    "CR in a request id": (raw("X-Request-ID: a\rSet-Cookie: b", LENGTH), {400}),
    "a word before the length": (raw("Content-Length : 5"), {400}),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMING)
async def test_malformed_framing_is_answered_and_harms_nobody(house: House, case: str) -> None:
    """Typed error or close, never a hang, never a crash, and the next good request works."""
    data, expected = FRAMING[case]

    reply = await house.ask(data)

    assert reply.status in expected
    assert reply.error["message"]
    assert reply.headers["content-type"] == "application/json"
    assert house.engine.requests == []
    assert await house.is_well()


JSON: dict[str, tuple[Any, set[int]]] = {
    "empty": (b"", {400}), "null": (b"null", {400}), "list": (b"[]", {400}), "string": (b'"x"', {400}),
    "truncated": (BODY[:-1], {400}), "trailing": (BODY + b"x", {400}), "two documents": (BODY + BODY, {400}),
    "invalid UTF-8": (BODY.replace(b"hi", b"\xff\xfe"), {400}), "BOM": (b"\xef\xbb\xbf" + BODY, {200, 400}),
    "UTF-16": (BODY.decode().encode("utf-16"), {400}),
    "lone surrogate": (BODY.replace(b"hi", b"\\ud800"), {400}),
    "NaN": (b'{"temperature":NaN,' + BODY[1:], {400}), "Infinity": (b'{"x":Infinity,' + BODY[1:], {400}),
    "1e999": (b'{"x":1e999,' + BODY[1:], {400}), "5,000 digits": (b'{"seed":' + b"1" * 5000 + b"," + BODY[1:], {400}),
    "100,000 brackets": (b'{"x":' + b"[" * 100_000 + BODY[1:], {400}),
    "duplicate model": (b'{"model":"tiny",' + BODY[1:], {400}),
    "6 MB of {}": (b'{"messages":[' + b"{}," * 2_000_000 + b"{}]}", {400}),
    "model missing": ({"messages": MESSAGES}, {200}), "model null": (a_chat(model=None), {200}),
    "model empty": (a_chat(model=""), {200}), "model 5": (a_chat(model=5), {400}),
    "model []": (a_chat(model=[]), {400}),
    "model 10 kB": (a_chat(model="x" * 10_000), {404}), "model ../x": (a_chat(model="../x"), {404}),
    "model -m": (a_chat(model="-m"), {404}), "model a\\nb": (a_chat(model="a\nb"), {404}),
    "model CR LF": (a_chat(model="a\r\nSet-Cookie: b"), {404}), "model emoji": (a_chat(model="🦙"), {404}),
    "messages missing": ({"model": "tiny"}, {400}), "messages []": (a_chat(messages=[]), {400}),
    "messages {}": (a_chat(messages={}), {400}),
    "role unknown": (a_chat(messages=[{"role": "boss", "content": "x"}]), {400}),
    "content 5": (a_chat(messages=[{"role": "user", "content": 5}]), {400}),
    "legal null": (
        a_chat(messages=[*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [A_CALL]}]), {200}
    ),
    "5,000 messages": (a_chat(messages=MESSAGES * 5000), {400}),
    **{f"{name} {value!r:.20}": (a_chat(**{name: value}), {400}) for name, value in [
        ("stream", "true"), ("stream", 1), ("temperature", -1), ("temperature", 3), ("temperature", "hot"),
        ("top_p", 2),
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1e12), ("max_tokens", 1.5), ("n", 0), ("n", 1000),
        ("seed", 2**70), ("stop", 5), ("stop", ["x"] * 1000), ("stop", "x" * 2**20), ("logit_bias", {"x": 1}),
        ("n_discard", -1), ("id_slot", 0), ("lora", [{"id": 0}]), ("cache_prompt", "x"),
        ("grammar", "x" * 2**20),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"x": {"$ref": "#"}}}}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"description": "x" * 2**20}}}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"pattern": "(a+)+$"}}}),
    ]},
    **{f"image {url:.20}": (
        a_chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]), {400}
    ) for url in ("http://169.254.169.254/", "file:///etc/passwd")},
    "10 x context": (a_chat(messages=[{"role": "user", "content": "word " * 20_480}]), {400}),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON)
async def test_malformed_json_is_answered_and_harms_nobody(house: House, case: str) -> None:
    """An engine never sees what is refused, and the same connection serves the next request."""
    body, expected = JSON[case]
    client = await house.connect()

    await client.send(a_post(body))
    reply = await client.receive()

    assert reply.status in expected, reply.body
    if reply.status == 200:
        assert reply.json["model"] == "tiny"
    else:
        assert reply.error["message"]
        assert house.engine.requests == []
    await client.send(a_post(a_chat()))
    assert (await client.receive()).status == 200


@pytest.mark.rows("API-7")
@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("application/x-www-form-urlencoded", BODY, 200, ""), ("text/plain", BODY, 200, ""), ("", BODY, 200, ""),
        ("multipart/form-data; boundary=x", BODY, 200, ""), ("application/vnd.api+json; charset=UTF-8", BODY, 200, ""),
        ("application/x-www-form-urlencoded", b"model=tiny", 400, "invalid_json"),
        ("application/json", b"model=tiny", 400, "invalid_json"), ("text/plain", b"{", 400, "invalid_json"),
        ("application/x-www-form-urlencoded", b'{"model":5}', 400, "invalid_request"),
        ("multipart/form-data; boundary=x", b"--x\r\n", 415, "unsupported_media_type"),
        ("image/png", b"\x89PNG", 415, "unsupported_media_type"), ("text/xml", b"<a/>", 415, "unsupported_media_type"),
        ("image/png", b'{"model":5}', 400, "invalid_request"),
        ("application/json; charset=utf-16", BODY, 415, "unsupported_media_type"),
    ],
)  # fmt: skip
async def test_a_body_counts_for_what_it_is(house: House, kind: str, body: bytes, status: int, code: str) -> None:
    """Its type is believed only where it explains why the body is no JSON."""
    reply = await house.ask(a_post(body, CHAT, f"Content-Type: {kind}"))

    assert reply.status == status
    assert status == 200 or reply.error["code"] == code
    assert await house.is_well()


async def test_a_refused_field_is_named(house: House) -> None:
    """`param` is for programs."""
    reply = await house.chat(temperature=3)

    assert (reply.error["param"], reply.error["type"]) == ("temperature", "invalid_request_error")


def answered(call: object) -> dict[str, Any]:
    """Return a chat in which the assistant called a tool."""
    return a_chat(messages=[*MESSAGES, {"role": "assistant", "tool_calls": call}, *MESSAGES])


TOOLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "tools text": (CHAT, a_chat(tools="x"), "tools"),
    "tool text": (CHAT, a_chat(tools=["x"]), "tools[0]"),
    "tool empty": (CHAT, a_chat(tools=[{}]), "tools[0].type"),
    "tool of another type": (CHAT, a_chat(tools=[{"type": "x", "function": {}}]), "tools[0].type"),
    "tool without function": (CHAT, a_chat(tools=[{"type": "function"}]), "tools[0].function"),
    "function without name": (CHAT, a_chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    "parameters text": (
        CHAT, a_chat(tools=[{"type": "function", "function": {"name": "f", "parameters": "x"}}]),
        "tools[0].function.parameters",
    ),
    "choice unknown": (CHAT, a_chat(tools=[A_TOOL], tool_choice="always"), "tool_choice"),
    "choice 5": (CHAT, a_chat(tools=[A_TOOL], tool_choice=5), "tool_choice"),
    "choice nameless": (CHAT, a_chat(tools=[A_TOOL], tool_choice={"type": "function"}), "tool_choice.function"),
    "calls text": (CHAT, answered("x"), "messages[1].tool_calls"),
    "call text": (CHAT, answered(["x"]), "messages[1].tool_calls[0]"),
    "call without type": (CHAT, answered([{"id": "1"}]), "messages[1].tool_calls[0].type"),
    "call without arguments": (
        CHAT, answered([{"type": "function", "function": {"name": "f"}}]),
        "messages[1].tool_calls[0].function.arguments",
    ),
    "reasoning format": (CHAT, a_chat(reasoning_format="bogus"), "reasoning_format"),
    "reasoning format null": (CHAT, a_chat(reasoning_format=None), "reasoning_format"),
    "template tools": ("/apply-template", a_chat(tools=["x"]), "tools[0]"),
    "Anthropic tool text": ("/v1/messages", a_chat(max_tokens=1, tools=["x"]), "tools[0]"),
    "Anthropic tool nameless": ("/v1/messages", a_chat(max_tokens=1, tools=[{}]), "tools[0].name"),
    "Anthropic choice": ("/v1/messages", a_chat(max_tokens=1, tool_choice="auto"), "tool_choice"),
    "Anthropic choice unknown": ("/v1/messages", a_chat(max_tokens=1, tool_choice={"type": "x"}), "tool_choice.type"),
    "Responses tool text": ("/v1/responses", {"input": "x", "tools": ["x"]}, "tools[0]"),
    "token -1": ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
    "token 2**40": ("/detokenize", {"tokens": [2**40]}, "tokens[0]"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOOLS)
async def test_what_an_engine_would_call_its_own_failure_is_refused_with_its_field(house: House, case: str) -> None:
    """llama.cpp answers most of these with 500 and passes over the rest."""
    path, body, param = TOOLS[case]

    reply = await house.ask(a_post(body, path))

    assert (reply.status, reply.json["error"]["param"]) == (400, param)
    assert house.engine.requests == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, a_chat(tools=[A_TOOL], tool_choice="required", parallel_tool_calls=False)),
        (CHAT, a_chat(tools=[A_TOOL], tool_choice={"type": "function", "function": {"name": "f"}})),
        (CHAT, a_chat(tools=None, tool_choice=None, reasoning_format="deepseek")),
        (CHAT, answered([A_CALL])),
        (CHAT, answered([A_CALL | {"function": {"name": "f", "arguments": {"a": 1}}}])),
        ("/v1/messages", a_chat(max_tokens=1, tools=[{"name": "f", "input_schema": {}}], tool_choice={"type": "any"})),
        ("/v1/messages", a_chat(max_tokens=1, tools=[{"type": "bash_20250124", "name": "bash"}])),
        ("/v1/responses", {"model": "tiny", "input": "x", "tools": [{"type": "function", "name": "f"}]}),
        ("/detokenize", {"model": "tiny", "tokens": [0, 2**31 - 1]}),
    ],
)
async def test_well_formed_tools_pass_through_as_they_came(house: House, path: str, body: dict[str, Any]) -> None:
    """What is checked is not changed."""
    reply = await house.ask(a_post(body, path))

    assert reply.status == 200
    assert house.engine.requests[0].json == body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
        (
            "/v1/messages",
            {"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        ),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}),
    ],
)
async def test_an_image_is_refused_before_an_engine_that_cannot_see(path: str, body: dict[str, Any]) -> None:
    """Also while it is not even loaded; one that sees gets it."""
    blind, seeing = ({"chat", "completion"}, {"chat", "completion", "vision"})
    specs = [replace(a_spec("tiny"), capabilities=frozenset(able)) for able in (blind, seeing)]
    async with a_house(models=lambda _: (a_model(spec=specs[0], state=EngineState.STOPPED),)) as house:
        refused = await house.ask(a_post(body, path))
        events = list(house.events)
        house.views.publish(a_model(spec=specs[1], socket=house.engine.socket))
        seen = await house.ask(a_post(body, path))

    assert (refused.status, refused.json["error"]["code"]) == (400, "capability_not_supported")
    assert (events, seen.status) == ([], 200)


async def test_a_prompt_that_cannot_fit_is_refused_at_once_with_both_numbers(house: House) -> None:
    """Without an engine, before anything is computed."""
    data = a_post(a_chat(messages=[{"role": "user", "content": "word " * 20_480}]))

    reply = await house.ask(data)

    assert house.engine.requests == []
    assert reply.error["code"] == "context_length_exceeded"
    assert "2048" in reply.error["message"]


@pytest.mark.rows("PRX-2")
async def test_a_data_url_over_the_body_limit_is_413(house: House) -> None:
    """Said at the length; the 100 MB need not come."""
    reply = await house.ask(raw(f"Content-Length: {100 * limits.MIB}", body=b'{"messages":'))

    assert reply.status == 413


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    """Three at once: an engine's, our own, an engine's."""
    client = await house.connect()

    await client.send(a_post(a_chat()) + a_get("/v1/models") + a_post(a_chat(stream=True)))

    replies = [await client.receive() for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert replies[0].json["model"] == "tiny"
    assert replies[1].json["object"] == "list"
    assert replies[2].body.endswith(b"data: [DONE]\n\n")


async def test_many_pipelined_requests_are_answered_in_order(house: House) -> None:
    """More than are held: reading pauses and goes on."""
    client = await house.connect()

    await client.send(b"".join(a_post(a_chat(), CHAT, f"X-Request-ID: r{number}") for number in range(200)))

    assert [(await client.receive()).headers["x-request-id"] for _ in range(200)] == [
        f"r{number}" for number in range(200)
    ]


async def test_no_continue_is_said_to_a_body_that_is_too_large(house: House) -> None:
    """A client that was told to go on would send its 60 MiB."""
    client = await house.connect()

    await client.send(raw("Expect: 100-continue", f"Content-Length: {60 * limits.MIB}", body=b""))

    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")


async def test_continue_is_said_to_a_body_that_is_welcome(house: House) -> None:
    """Curl waits a second for it."""
    client = await house.connect()

    await client.send(raw("Expect: 100-continue", LENGTH, body=b""))
    interim = await client.receive()
    await client.send(BODY)

    assert interim.status == 100
    assert (await client.receive()).status == 200


async def test_the_body_of_a_get_is_ignored(house: House) -> None:
    """And the connection stays in step."""
    client = await house.connect()

    for data in (raw(LENGTH, first="GET /v1/models HTTP/1.1"), raw(CHUNKED, first="GET /x HTTP/1.1", body=ONE_CHUNK)):
        await client.send(data)
        assert (await client.receive()).status == 200
    await client.send(a_post(a_chat()))

    assert (await client.receive()).json["model"] == "tiny"
    assert house.management.requests[0].body == b""


async def test_head_has_no_body(house: House) -> None:
    """From memory or from the management app: the next answer follows the head at once."""
    client = await house.connect()

    for path in ("/v1/models", "/api/x"):
        await client.send(a_get(path, method="HEAD") + a_get("/v1/models/tiny"))
        head = await client.receive(is_head=True)
        assert (head.status, int(head.headers["content-length"]) > 0) == (200, True)
        assert (await client.receive()).json["id"] == "tiny"


async def trickle(client: Client, data: bytes) -> None:
    """Send a byte at a time until the other side closes."""
    for byte in data:
        try:
            await client.send(bytes([byte]))
        except ConnectionError:
            return
        await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.02)


async def test_a_head_that_trickles_in_is_closed(house: House) -> None:
    """Ten seconds in earnest, less here."""
    client = await house.connect()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(trickle(client, a_get("/v1/models", f"X-A: {'a' * 200}")))
        reply = await client.receive()
        task.cancel()

    assert reply.status == 408
    assert await client.rest() == b""


async def test_a_body_that_trickles_in_gets_408(house: House) -> None:
    """A byte a second is progress, and still nobody's slot."""
    client = await house.connect()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(trickle(client, raw("Content-Length: 5000", body=b"{" + b" " * 400)[-300:]))
        task.cancel()
        await client.send(raw("Content-Length: 5000", body=b"{"))
        task = group.create_task(trickle(client, b" " * 300))
        reply = await client.receive()
        task.cancel()

    assert reply.status == 408


async def test_a_client_that_only_stopped_sending_gets_its_answer(house: House) -> None:
    """`nc -N` and shell scripts do that."""
    client = await house.connect()

    await client.send(a_post(a_chat()))
    client.writer.write_eof()

    assert (await client.receive()).status == 200
    assert await client.rest() == b""


async def test_a_reset_in_an_upload_is_no_event(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It happens all day; nobody needs a line about it."""
    client = await house.connect()
    await client.send(raw("Content-Length: 5000", body=b"{"))
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    client.writer.transport.abort()
    await until(lambda: house.door.connections == 0, "the front door noticing")

    assert [record for record in caplog.records if record.name.startswith("meshllm")] == []
    assert await house.is_well()


@pytest.mark.parametrize("line", ["Connection: Authorization", "Connection: close, X-API-Key"])
async def test_naming_the_key_in_connection_does_not_strip_it(line: str) -> None:
    """CVE-2022-31813 and its kind."""
    async with a_house(api_key="k") as house:
        reply = await house.ask(a_post(a_chat(), CHAT, "Authorization: Bearer k", "X-API-Key: k", line))

        assert reply.status == 200
        assert house.engine.requests[0].headers["authorization"] == "Bearer engine-key"


async def test_trailer_fields_are_dropped(house: House) -> None:
    """They would be headers that nobody checked."""
    body = ONE_CHUNK[:-2] + b"Authorization: Bearer x\r\nX-Evil: 1\r\n\r\n"

    reply = await house.ask(raw(CHUNKED, body=body))

    assert reply.status == 200
    assert "x-evil" not in house.engine.requests[0].headers
    assert house.engine.requests[0].body == BODY


async def test_a_long_or_wild_request_id_is_replaced(house: House) -> None:
    """Ours is short and visible."""
    for wild in ("x" * 10_000, "a\tb", "é"):
        reply = await house.ask(a_post(a_chat(), CHAT, f"X-Request-ID: {wild}"))
        assert reply.headers["x-request-id"].startswith("req-")
    assert (await house.ask(a_post(a_chat(), CHAT, "X-Request-ID: mine-1"))).headers["x-request-id"] == "mine-1"


async def test_paths_nobody_serves_go_to_the_management_app_as_they_are(house: House) -> None:
    """Double slashes mean nothing to us."""
    await house.ask(a_get("//v1//models?x=%0d%0a"))

    assert house.management.requests[0].line == "GET //v1//models?x=%0d%0a HTTP/1.1"


async def test_random_bytes_are_refused_or_closed(house: House) -> None:
    """No input ends the daemon."""
    rng = random.Random(3)
    good = a_post(a_chat())
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        client = await house.connect()
        await client.send(bytes(data))
        client.writer.write_eof()
        answer = await client.rest()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer[:80]
        await client.close()

    assert await house.is_well()
