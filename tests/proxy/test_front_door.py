"""The house as a whole: who may come in, what is answered from memory, and how it closes."""

import asyncio
import errno
import subprocess
import sys
import textwrap
from pathlib import Path
from time import process_time
from typing import Any
from urllib.parse import quote

import pytest
from anthropic import Anthropic
from anthropic import APIStatusError as AnthropicStatusError
from openai import APIError, AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from meshllm.core.engines import EngineState
from meshllm.core.events import TrafficMeasured
from meshllm.core.ids import ModelId
from meshllm.core.view import LocalModel
from meshllm.proxy.front_door import FrontDoor, FrontDoorConfig
from tests.core.builders import a_spec
from tests.proxy.builders import (
    CHAT,
    NODE,
    STREAM_HEAD,
    TINY,
    Answer,
    EngineDouble,
    House,
    Request,
    ViewsDouble,
    a_chat,
    a_get,
    a_house,
    a_model,
    a_post,
    a_view,
    event,
    until,
    whole,
)

ROOT = Path(__file__).parents[2]


async def test_models_are_listed_from_memory() -> None:
    """Neither engine nor management app is asked."""
    async with a_house() as house:
        first = await house.ask(a_get("/v1/models"))
        client = await house.connect()
        began_s = process_time()
        for _ in range(100):
            await client.send(a_get("/v1/models"))
            await client.receive()
        each_s = (process_time() - began_s) / 100
        house.views.publish(a_model("other"))
        second = await house.ask(a_get("/v1/models"))

    assert [entry["id"] for entry in first.json["data"]] == ["default", "tiny"]
    assert [entry["id"] for entry in second.json["data"]] == ["default", "other"]
    assert each_s < 0.05
    assert house.engine.requests == house.management.requests == []


@pytest.mark.parametrize(
    ("path", "status", "model"),
    [
        ("/v1/models/tiny", 200, "tiny"), ("/v1/models/TINY", 200, "tiny"), ("/v1/models/default", 200, "default"),
        ("/v1/models/user%2Frepo", 200, "user/repo"), ("/v1/models/user/repo", 200, "user/repo"),
        ("/v1/models/nobody", 404, ""), ("/v1/models/a%0D%0Ab", 404, ""),
    ],
)  # fmt: skip
async def test_one_model_is_shown(path: str, status: int, model: str) -> None:
    """LST-8: ids hold slashes, plain or escaped."""
    async with a_house(models=lambda socket: (a_model(), a_model("user/repo"))) as house:
        reply = await house.ask(a_get(path))

    assert reply.status == status
    assert reply.json["id"] == model if status == 200 else reply.error["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["tini", "nothing-like-it", "two", "/models/tiny.gguf", "~/x.gguf", "Tiny.gguf"])
async def test_a_wrong_name_is_answered_alike_wherever_it_stands(name: str) -> None:
    """In a path or in a body, with the same names that were perhaps meant."""
    models = (a_model(), a_model("Two-Q4"), a_model("Two-Q8"))
    async with a_house(models=lambda socket: models) as house:
        shown = await house.ask(a_get(f"/v1/models/{quote(name, safe='')}"))
        asked = await house.chat(model=name)

    assert (shown.status, shown.error) == (asked.status, asked.error)
    assert shown.status == (409 if name == "two" else 404)


@pytest.mark.rows("LOG-4")
@pytest.mark.parametrize(
    ("config", "by"),
    [
        ({}, "local"), ({"is_owner": lambda *ends: all(ends)}, "owner"), ({"is_owner": lambda *_: False}, "stranger"),
        ({"api_key": "k"}, "api_key"), ({"admin_key": "k"}, "admin_key"), ({"admin_key": "other"}, "unkeyed"),
    ],
)  # fmt: skip
async def test_the_management_app_is_told_who_changes_something(config: dict[str, object], by: str) -> None:
    """By the front door, whatever a client says of itself."""
    async with a_house(**config) as house:
        lines = ("X-Mesh-Caller: somebody else", "Authorization: Bearer k")
        await house.ask(a_post({}, "/v1/models/rescan", *lines))
        await house.ask(a_get("/api/status", *lines))

    changed, read = (request.headers.get("x-mesh-caller") for request in house.management.requests)
    assert (changed, read) == (f"127.0.0.1 {by}", None)


async def test_everything_else_is_the_management_apps() -> None:
    """Spliced like an engine, without its key."""
    async with a_house(api_key="k") as house:
        reply = await house.ask(a_post({"model_id": "x"}, "/v1/models/unload?a=b", "X-API-Key: k", "Accept: a/b"))

    (request,) = house.management.requests
    assert reply.status == 200
    assert (request.line, request.headers["accept"]) == ("POST /v1/models/unload?a=b HTTP/1.1", "a/b")
    assert "x-api-key" not in request.headers
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200), ("/healthz", 200), ("/readyz", 200), ("/", 200), ("/assets/app-C0ffee12.js", 200),
        ("/v1/models", 401), ("/api/status", 401),
    ],
)  # fmt: skip
async def test_the_key_is_asked_for_except_by_watchers_and_for_the_console(path: str, status: int) -> None:
    """A load balancer needs no secret, and nobody can type one before the page is there."""
    async with a_house(api_key="k") as house:
        reply = await house.ask(a_get(path))

    assert reply.status == status
    assert ("www-authenticate" in reply.headers) is (status == 401)


@pytest.mark.parametrize(
    ("fields", "status", "kind", "param"),
    [
        ({}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": 5, "model": "nope"}, 404, "not_found_error", "model"),
        ({"max_tokens": 5}, 200, "", None),
    ],
)
async def test_messages_are_refused_in_anthropics_words(
    fields: dict[str, Any], status: int, kind: str, param: str | None
) -> None:
    """Its SDK raises `BadRequestError` and `NotFoundError`, as people know them."""
    async with a_house() as house:
        reply = await house.ask(a_post(a_chat(**fields), "/v1/messages"))
        counted = await house.ask(a_post(a_chat(), "/v1/messages/count_tokens"))

    assert (reply.status, counted.status) == (status, 200)
    if status != 200:
        assert (reply.json["type"], reply.error["type"], reply.error["param"]) == ("error", kind, param)


async def test_a_preflight_is_answered_for_allowed_origins() -> None:
    """And the answer after it may be read there."""
    async with a_house(api_key="k", allowed_origins=("https://chat.example/",)) as house:
        asked = "Access-Control-Request-Method: POST"
        good = await house.ask(a_get(CHAT, "Origin: https://chat.example", asked, method="OPTIONS"))
        bad = await house.ask(a_get(CHAT, "Origin: https://evil.example", asked, method="OPTIONS"))
        reply = await house.ask(a_post(a_chat(), CHAT, "Origin: https://chat.example", "Authorization: Bearer k"))

    assert (good.status, bad.status, reply.status) == (204, 403, 200)
    assert "POST" in good.headers["access-control-allow-methods"]
    for each in (good, reply):
        assert each.headers["access-control-allow-origin"] == "https://chat.example"
        assert each.headers["vary"] == "Origin"


@pytest.mark.rows("API-7", "API-8")
async def test_curls_default_type_is_accepted_when_the_body_is_json() -> None:
    """API-7, API-8: `curl -d` and nothing else."""
    form = "Content-Type: application/x-www-form-urlencoded"
    async with a_house() as house:
        assert (await house.ask(a_post(a_chat(), CHAT, form))).status == 200
        assert (await house.ask(a_post(b"model=tiny", CHAT, form))).status == 400
        untyped = a_post(a_chat()).replace(b"Content-Type: application/json\r\n", b"")
        assert (await house.ask(untyped)).status == 200


@pytest.mark.rows("PRX-2", "PRX-9", "T19")
async def test_every_request_of_a_connection_is_routed_on_its_own() -> None:
    """PRX-9, T19: two models, a decoy, a body in three pieces."""
    async with a_house(models=lambda socket: (a_model("one", socket=socket), a_model("two", socket=socket))) as house:
        client = await house.connect()
        for model in ("one", "two", "one"):
            filler = [{"role": "user", "content": '"model":"two" ' + "x" * 70_000}]
            data = a_post({"messages": filler, "model": model})
            for piece in (data[:50], data[50:40_000], data[40_000:]):
                await client.send(piece)
                await asyncio.sleep(0)
            house.door.traffic.models.clear()
            assert (await client.receive()).json["model"] == model


@pytest.mark.rows("PRX-2", "PRX-9", "T19")
async def test_each_engine_gets_its_own_requests_however_they_arrive(tmp_path: Path) -> None:
    """T19: two engines that say who they are, one connection; the name comes late, cut in two, or behind decoys."""

    def named(name: str) -> Answer:
        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(whole({"engine": name, "model": request.json["model"]}))

        return answer

    engines = [EngineDouble(tmp_path / f"{name}.sock", named(name)) for name in ("one", "two")]
    for engine in engines:
        await engine.start()
    text = '"model":"two" \\"model\\":\\"two\\" ' + "x" * 70_000
    decoys = [{"role": "user", "content": text}, {"role": "user", "content": '{"model":"two"}'}]
    seen = []
    async with a_house(models=lambda _: tuple(a_model(one.socket.stem, socket=one.socket) for one in engines)) as house:
        client = await house.connect()
        for model in ("one", "two", "one", "one", "two"):
            other = "two" if model == "one" else "one"
            data = a_post({"messages": decoys, "metadata": {"model": other}, "user": other, "model": model})
            cut = data.rindex(b'"model"')
            for piece in (data[:50], data[50 : cut + 3], data[cut + 3 : -4], data[-4:]):
                await client.send(piece)
                await asyncio.sleep(0)
            seen.append((model, (await client.receive()).json))
        both = a_post(a_chat(model="one")) + a_post(a_chat(model="two"))
        await client.send(both)
        seen += [("one", (await client.receive()).json), ("two", (await client.receive()).json)]
    for engine in engines:
        await engine.stop()

    assert seen == [(model, {"engine": model, "model": model}) for model, _ in seen]


# -- what a model has to be like -----------------------------------------------------------------------


def eyed_and_blind(socket: Path) -> tuple[LocalModel, ...]:
    """Return two ready models, of which the second one sees."""
    seeing = a_spec("eyed", capabilities=frozenset({"chat", "completion", "vision"}))
    return (a_model("blind", socket=socket), a_model("eyed", socket=socket, spec=seeing, context_tokens=4096))


@pytest.mark.rows("AFF-9")
async def test_what_speaks_to_the_mesh_does_not_reach_an_engine() -> None:
    """Every other byte of the body does, as it came."""
    own = b'{"model":"tiny", "capabilities" : ["chat"],"session_id":"s","resume":false,"min_context":9, "messages":[]}'
    body = own.replace(b"[]", b'[{"role":"user","content":"hi"}]')
    async with a_house() as house:
        reply = await house.ask(a_post(body))
        (request,) = house.engine.requests

    assert reply.status == 200
    assert request.body == b'{"model":"tiny", "messages":[{"role":"user","content":"hi"}]}'


@pytest.mark.rows("AFF-6", "AFF-7", "T13")
async def test_capabilities_choose_the_model_or_refuse_with_a_reason() -> None:
    """`auto` among those that can; a named one can or cannot; a picture is a wish, too."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    look = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, picture]}]
    async with a_house(models=eyed_and_blind) as house:
        plain = await house.chat(model="auto")
        seen = await house.chat(model="auto", capabilities=["vision"])
        looked = await house.chat(model="auto", messages=look)
        large = await house.chat(model="auto", min_context=4096)
        named = await house.chat(model="blind", capabilities=["vision"])
        shown = await house.chat(model="blind", messages=look)
        none = await house.chat(model="auto", capabilities=["arabic_nlp"])
        small = await house.chat(model="eyed", min_context=5000)
        assert await house.ask(a_post(a_chat(model="blind"))) is not None

    assert [reply.json["model"] for reply in (plain, seen, looked, large)] == ["blind", "eyed", "eyed", "eyed"]
    assert [(reply.status, reply.error["code"], reply.error["param"]) for reply in (named, shown, none, small)] == [
        (400, "capability_not_supported", "capabilities"), (400, "capability_not_supported", "model"),
        (400, "no_capable_model", "capabilities"), (400, "context_length_exceeded", "min_context"),
    ]  # fmt: skip
    assert "blind (chat, completion); eyed (chat, completion, vision)" in none.error["message"]
    assert ("5000" in small.error["message"], "4096" in small.error["message"]) == (True, True)


# -- room ----------------------------------------------------------------------------------------------


async def test_connections_beyond_the_limit_are_told_and_closed() -> None:
    """And when others leave there is room again."""
    async with a_house(connections_max=3) as house:
        clients = [await house.connect() for _ in range(3)]
        await until(lambda: house.door.connections == 3, "three being in")
        reply = await (extra := await house.connect()).receive()
        await extra.rest()
        await extra.close()
        await clients[0].close()
        await until(lambda: house.door.connections == 2, "one leaving")

        assert (reply.status, reply.error["code"]) == (503, "too_many_connections")
        assert "retry-after" in reply.headers
        assert await house.is_well()


async def test_a_flood_of_connections_is_closed_without_a_word() -> None:
    """Even a refusal takes a descriptor."""
    async with a_house(connections_max=2) as house:
        clients = [await house.connect() for _ in range(30)]
        await until(lambda: house.door.connections <= 4, "the flood being closed")
        for client in clients:
            await client.close()
        await until(lambda: house.door.connections == 0, "all being gone")

        assert await house.is_well()


async def test_loopback_has_no_limit_of_its_own() -> None:
    """A reverse proxy on this machine speaks for many."""
    async with a_house(connections_per_address_max=1) as house:
        clients = [await house.connect() for _ in range(3)]
        for client in clients:
            await client.send(a_post(a_chat()))
            assert (await client.receive()).status == 200


FEW_DESCRIPTORS = """
    import asyncio, logging, resource, socket, sys
    from pathlib import Path
    import uvloop
    sys.path.insert(0, {root!r})
    from tests.proxy.builders import a_house, a_get
    from meshllm.proxy import front_door
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    front_door.descriptors_for_clients = lambda: 10_000  # let the system's limit strike, not ours
    logging.basicConfig(stream=sys.stderr)

    async def main():
        async with a_house() as house:
            socks, outcomes = [], []
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", {flood!r}, str(house.port), stdout=asyncio.subprocess.PIPE)
            out, _ = await asyncio.wait_for(child.communicate(), 60)
            print(out.decode().strip())
            print("well", await house.is_well())
    uvloop.run(main())
"""
FLOOD = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
socks = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) for _ in range(150)]
request = b"GET /v1/models HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
served = closed = hung = 0
for sock in socks:
    try:
        sock.sendall(request)
        data = sock.recv(100)
        served, closed = served + data.startswith(b"HTTP/1.1"), closed + (data == b"")
    except TimeoutError:
        hung += 1
    except OSError:
        closed += 1
print("served", served, "closed", closed, "hung", hung)
for sock in socks:
    sock.close()
"""


def test_no_descriptors_left_means_closed_connections_and_never_a_hang() -> None:
    """F27: those who are in are served, the others are closed, the log stays quiet, and it recovers."""
    script = textwrap.dedent(FEW_DESCRIPTORS).format(root=str(ROOT), flood=FLOOD)

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150, check=False)

    words = run.stdout.split()
    assert run.returncode == 0, run.stderr
    served, closed, hung = int(words[1]), int(words[3]), int(words[5])
    assert served > 10
    assert closed > 10
    assert (served + closed, hung) == (150, 0)
    assert words[6:] == ["well", "True"]
    assert len(run.stderr.splitlines()) <= 5


# -- the end -------------------------------------------------------------------------------------------


async def test_a_taken_port_is_the_callers_to_explain() -> None:
    """The error comes as it is."""
    async with a_house() as house:
        config = FrontDoorConfig(host="127.0.0.1", port=house.port, node=NODE)
        second = FrontDoor(config, ViewsDouble(a_view()), house.events.append, Path("/x"))

        with pytest.raises(OSError, match="in use") as caught:
            await second.start()

    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.rows("CLI-16")
async def test_the_same_is_to_be_had_at_a_second_port() -> None:
    """The console has an address of its own, with all that it asks for; it closes with the door."""
    async with a_house() as house:
        host, port = await house.door.listen(0)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /v1/models HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await house.door.close()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)

    assert answer.startswith(b"HTTP/1.1 200 ")


class Gate:
    """An engine that holds its answers until it is told."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Begin at once, end later."""
        if request.json.get("stream"):
            writer.write(STREAM_HEAD + event(0))
        await self.open.wait()
        writer.write(whole({"model": "tiny"}))


async def in_flight(house: House, count: int) -> None:
    """Wait until so many requests are at the engine."""
    await until(lambda: house.door.in_flight(TINY) == count, f"{count} requests in flight")


async def test_closing_tells_those_who_still_wait() -> None:
    """Whatever draining has left: an answer or an event, never silence, and no new connection."""
    gate = Gate()
    async with a_house(gate.answer) as house:
        plain, stream = await house.connect(), await house.connect()
        await plain.send(a_post(a_chat()))
        await stream.send(a_post(a_chat(stream=True)))
        await in_flight(house, 2)
        await stream.until(event(0))

        await house.door.close()

        with pytest.raises(ConnectionRefusedError):
            await house.connect()
        assert (await plain.receive()).error["code"] == "leaving"
        ending = await stream.rest()
        assert b'"code":"leaving"' in ending
        assert b"[DONE]" not in ending
        assert ending.endswith(b"0\r\n\r\n")


@pytest.mark.rows("LIF-12")
async def test_one_model_can_be_waited_for() -> None:
    """An unload drains its engine and no other."""
    gate = Gate()
    async with a_house(gate.answer) as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.chat())
        await in_flight(house, 1)

        assert await house.door.idle(TINY, 0.05) == 1
        assert await house.door.idle(ModelId("other"), 0.05) == 0
        waiting = group.create_task(house.door.idle(TINY, 5))
        gate.open.set()

        assert await waiting == 0
        assert (await task).status == 200


async def test_traffic_is_reported_once_a_second() -> None:
    """Batched: never an event for each request."""
    loop = asyncio.get_running_loop()
    async with a_house() as house:
        began_s = loop.time()
        for _ in range(20):
            await house.chat()

        await until(lambda: house.events, "the report")
        took_s = loop.time() - began_s
        reported = sum(
            count for each in house.events if isinstance(each, TrafficMeasured) for _, count in each.finished
        )
        await until(lambda: reported or house.events, "the report")
        counters = house.door.counters()

    assert all(isinstance(each, TrafficMeasured) for each in house.events)
    assert len(house.events) <= took_s + 2
    assert (counters["requests"], counters["answers_2xx"], counters["connections"]) == (20, 20, 20)


async def test_progress_is_the_time_of_the_last_byte() -> None:
    """The engine's watchdog looks at it."""
    async with a_house() as house:
        assert house.door.last_progress_s(TINY) == 0.0
        await house.chat()
        first = house.door.last_progress_s(TINY)
        await house.chat(stream=True)

        assert house.door.last_progress_s(TINY) > first > 0.0


async def test_our_own_mistake_is_a_500_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ends by a mistake answers its request first."""
    async with a_house(models=lambda socket: (a_model(state=EngineState.STARTING),)) as house:
        monkeypatch.setattr(house.door._pursuit, "_ask_for", lambda *_: 1 / 0)

        reply = await house.chat()

    assert (reply.status, reply.error["code"]) == (500, "internal_error")


# -- the SDKs that people use --------------------------------------------------------------------------


def an_sdk(house: House) -> AsyncOpenAI:
    """Return OpenAI's client with some key, as people use it with local servers."""
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{house.port}/v1", api_key="any", max_retries=0)


@pytest.mark.rows("API-6")
async def test_openais_sdk_raises_what_its_users_catch() -> None:
    """API-6: the classes, the code and the parameter."""
    async with a_house() as house, an_sdk(house) as client:
        listed = [model.id async for model in client.models.list()]
        shown = (await client.models.retrieve("tiny")).id
        with pytest.raises(NotFoundError) as unknown:
            await client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(BadRequestError) as bad:
            await client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], top_p=2)

    assert (listed, shown) == (["default", "tiny"], "tiny")
    assert unknown.value.code == "model_not_found"
    assert (bad.value.param, bad.value.type) == ("top_p", "invalid_request_error")


async def test_openais_sdk_raises_in_a_stream_that_broke() -> None:
    """A clean end without `[DONE]` would look complete to it."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await writer.drain()
        writer.close()

    async with a_house(answer) as house, an_sdk(house) as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(APIError, match="was lost after 1 events"):
            async for _ in stream:
                pass


@pytest.mark.rows("API-6")
async def test_openais_sdk_knows_a_wrong_key() -> None:
    """401 is a class of its own there."""
    async with a_house(api_key="k") as house, an_sdk(house) as client:
        with pytest.raises(AuthenticationError):
            await client.models.list()


async def test_anthropics_sdk_raises_what_its_users_catch() -> None:
    """The same document serves both."""
    async with a_house() as house:

        def ask() -> AnthropicStatusError:
            sdk = Anthropic(base_url=f"http://127.0.0.1:{house.port}", api_key="any", max_retries=0)
            with sdk as client, pytest.raises(AnthropicStatusError) as caught:
                client.messages.create(model="nobody", max_tokens=5, messages=[{"role": "user", "content": "x"}])
            return caught.value

        error = await asyncio.to_thread(ask)

    assert error.status_code == 404
    assert error.body["type"] == "error"  # type: ignore[index]
    assert "nobody" in error.message
