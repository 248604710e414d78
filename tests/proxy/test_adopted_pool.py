"""Adopted servers behind the front door: asked in their own way, answering in ours; and three kinds of engine alike."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.events import RemoteDoubted
from meshllm.core.ids import ModelId
from meshllm.core.remotes import place_of
from meshllm.core.view import LocalModel
from meshllm.testing.fake_openai_server import SEEN, FakeOpenAIServer, a_server
from tests.core.builders import a_failure
from tests.proxy.builders import (
    STREAM_HEAD,
    Answer,
    EngineDouble,
    House,
    Reply,
    Request,
    a_chat,
    a_house,
    a_model,
    a_post,
    answer_ok,
    event,
    until,
    whole,
)
from tests.proxy.certificates import a_certificate
from tests.proxy.tunnels import a_mesh

REMOTE = "remote-model"


def adopted(
    url: str, name: str = REMOTE, *, key: str = "", served_name: str = REMOTE, state: EngineState = EngineState.READY
) -> LocalModel:
    """Return a model at a server, as a view shows it."""
    place = place_of(url)
    endpoint = EngineEndpoint(
        address=(place.host, place.port), key=key, served_name=served_name, is_tls=place.is_tls,
        authority=place.authority, prefix=place.prefix,
    )  # fmt: skip
    is_ready = state is EngineState.READY
    return LocalModel(
        id=ModelId(name), spec=None, state=state, wanted=True, endpoint=endpoint if is_ready else None, slots=4,
        adopted_from="box", failure=None if is_ready else a_failure(message="the server is gone"),
    )  # fmt: skip


@asynccontextmanager
async def a_house_of(*servers: FakeOpenAIServer, name: str = REMOTE, **config: Any) -> AsyncIterator[House]:
    """Open a front door before servers; with more than one, models are called by their number."""
    names = [name] if len(servers) == 1 else [f"{name}-{number}" for number in range(len(servers))]
    models = tuple(adopted(server.url, each, key=server.ways.key) for each, server in zip(names, servers, strict=True))
    async with a_house(models=lambda _: models, **config) as house:
        yield house


def events_of(reply: Reply) -> list[Any]:
    """Return the events of a stream; the last word as it is."""
    data = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


# -- asked in its own way, answering in ours ---------------------------------------------------------


@pytest.mark.rows("CFG-16", "T24")
@pytest.mark.parametrize("framing", ["sized", "chunked", "closed"])
async def test_a_server_is_asked_by_its_own_name_path_and_key(framing: str) -> None:
    """The client's own key stays here; the answer names the model as it was asked for."""
    async with (
        a_server(prefix="/api", key="sk-box", framing=framing) as server,
        a_house_of(server, name="our-name", api_key="sk-client") as house,
    ):
        body = a_chat(model="our-name", max_tokens=3)
        reply = await house.ask(a_post(body, "/v1/chat/completions", "Authorization: Bearer sk-client", "Cookie: c=d"))

        seen = reply.json[SEEN]
        assert (reply.status, reply.json["model"]) == (200, "our-name")
        assert seen == {
            "path": "/api/v1/chat/completions", "host": f"localhost:{server.port}",
            "authorization": "Bearer sk-box", "asked_for": REMOTE,
        }  # fmt: skip
        assert (reply.headers["x-mesh-model"], reply.headers["x-mesh-attempts"]) == ("our-name", "1")
        assert "set-cookie" not in reply.headers
        assert "cookie" not in server.requests[0].headers


@pytest.mark.parametrize("framing", ["chunked", "closed"])
@pytest.mark.parametrize("name", [REMOTE, "our-name"])
async def test_a_stream_names_the_model_as_it_was_asked_for(framing: str, name: str) -> None:
    """In every event, whatever the server calls itself."""
    async with (
        a_server(framing=framing, calls_itself="vendor/internal") as server,
        a_house_of(server, name=name) as house,
    ):
        reply = await house.ask(a_post(a_chat(model=name, stream=True, max_tokens=5)))

        *events, last = events_of(reply)
        assert last == "[DONE]"
        assert {event["model"] for event in events} == {name}
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
        assert text == "0 1 2 3 4 "
        assert "set-cookie" not in reply.headers


async def test_a_message_in_the_other_dialect_is_renamed_inside() -> None:
    """Its first event carries a whole message with a model of its own."""
    async with a_server() as server, a_house_of(server, name="our-name") as house:
        body = {"model": "our-name", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": True}
        reply = await house.ask(a_post(body, "/v1/messages"))

        assert events_of(reply)[0]["message"]["model"] == "our-name"


async def test_connections_are_kept_and_the_straight_lane_is_left_alone() -> None:
    """The lane sends requests as they came, and these need a word changed."""
    async with a_server() as server, a_house_of(server) as house:
        client = await house.connect()
        for _ in range(5):
            await client.send(a_post(a_chat(model=REMOTE)))
            assert (await client.receive()).json["model"] == REMOTE

        assert server.connections == 1
        assert house.door.routes.known == {}


async def test_an_engine_of_our_own_beside_it_stays_on_the_lane() -> None:
    """What is fast stays fast."""
    async with (
        a_server() as server,
        a_house(models=lambda socket: (a_model(socket=socket), adopted(server.url))) as house,
    ):
        assert await house.is_well()
        await house.ask(a_post(a_chat(model=REMOTE)))

        assert [target.model for target in house.door.routes.known.values()] == ["tiny"]


async def test_a_connection_that_the_server_closed_meanwhile_costs_nothing() -> None:
    """Some servers keep them for five seconds."""
    async with a_server() as server, a_house_of(server) as house:
        first = await house.ask(a_post(a_chat(model=REMOTE)))
        await server.stop()
        await server.start()
        second = await house.ask(a_post(a_chat(model=REMOTE)))

        assert (first.status, second.status) == (200, 200)


# -- slow, gone, wrong -------------------------------------------------------------------------------


@pytest.mark.rows("T24")
async def test_a_slow_server_does_not_delay_another() -> None:
    """Nor the models here."""
    async with a_server(trouble="hang") as slow, a_server() as fast, a_house_of(slow, fast) as house:
        stuck = [await house.connect() for _ in range(8)]
        for client in stuck:
            await client.send(a_post(a_chat(model=f"{REMOTE}-0")))
        await until(lambda: len(slow.requests) == 8, "the slow server having eight requests")

        replies = [await house.ask(a_post(a_chat(model=f"{REMOTE}-1"))) for _ in range(3)]

        assert [reply.status for reply in replies] == [200] * 3
        assert [request.body["model"] for request in fast.requests] == [REMOTE] * 3


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_leaves_frees_the_server(is_stream: bool) -> None:
    """Its connection is closed: the only sign that every server understands."""
    async with a_server(token_s=60.0) as server, a_house_of(server) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(model=REMOTE, stream=is_stream)))
        await until(lambda: server.requests, "the request arriving")

        client.writer.transport.abort()

        await until(lambda: server.open == 0, "the server's connection being closed", limits.DISCONNECT_GRACE_S * 2)


@pytest.mark.parametrize("framing", ["chunked", "closed"])
async def test_a_server_that_dies_in_a_stream_ends_it_with_an_error(framing: str) -> None:
    """Never silently, whatever the framing; the next good request is served."""
    async with a_server(trouble="die_mid_stream", framing=framing) as server, a_house_of(server) as house:
        reply = await house.ask(a_post(a_chat(model=REMOTE, stream=True)))
        server.ways.trouble = ""
        after = await house.ask(a_post(a_chat(model=REMOTE)))

        *events, last = events_of(reply)
        assert last["error"]["code"] == "host_lost"
        assert [event["choices"][0]["delta"].get("content") for event in events[1:]] == ["0 ", "1 ", "2 "]
        assert after.status == 200
        assert RemoteDoubted(model=ModelId(REMOTE)) in house.events


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ("refuse", 502, "engine_error"), ("move", 502, "engine_error"), ("fail", 500, "engine_error"),
        ("overload", 429, "overloaded"), ("close", 502, "host_lost"), ("garbage", 502, "host_lost"),
    ],
)  # fmt: skip
async def test_a_servers_troubles_are_told_in_our_words(
    trouble: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused key is this node's affair, a redirect nobody's; and the next good request is served."""
    monkeypatch.setattr(limits, "ENGINE_LOST_WAIT_S", 0.1)
    async with a_server(trouble=trouble) as server, a_house_of(server) as house:
        reply = await house.ask(a_post(a_chat(model=REMOTE)))
        server.ways.trouble = ""
        after = await house.ask(a_post(a_chat(model=REMOTE)))

        assert (reply.status, reply.error["code"]) == (status, code)
        assert ("retry-after" in reply.headers) == (status == 429)
        assert "location" not in reply.headers
        assert after.status == 200


async def test_a_path_that_a_server_does_not_have_is_told_in_its_words() -> None:
    """Not every server ranks."""
    async with a_server() as server, a_house_of(server) as house:
        body = {"model": REMOTE, "query": "a", "documents": ["b"]}
        reply = await house.ask(a_post(body, "/v1/rerank"))

        assert (reply.status, reply.error["message"]) == (404, "Not Found")


async def test_a_server_that_is_gone_is_doubted_and_told_of_when_the_node_knows() -> None:
    """The request waits for the node to notice, which it does as soon as it asks."""
    async with a_server() as server:
        url = server.url
    async with a_house(models=lambda _: (adopted(url),)) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(model=REMOTE)))
        await until(lambda: RemoteDoubted(model=ModelId(REMOTE)) in house.events, "the doubt")
        house.views.publish(adopted(url, state=EngineState.FAILED))
        reply = await client.receive()

        assert (reply.status, reply.error["code"]) == (503, "model_failed")
        assert "the server is gone" in reply.error["message"]
        assert "retry-after" in reply.headers


async def test_a_server_that_says_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits for ever."""
    monkeypatch.setattr(limits, "REMOTE_SILENCE_S", 0.1)
    monkeypatch.setattr(limits, "ENGINE_LOST_WAIT_S", 0.1)
    async with a_server(trouble="hang") as server, a_house_of(server) as house:
        reply = await house.ask(a_post(a_chat(model=REMOTE)))

        assert (reply.status, reply.error["code"]) == (502, "host_lost")
        await until(lambda: server.open == 0, "the connections being closed")


async def test_a_server_that_goes_on_speaking_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the whole answer takes."""
    monkeypatch.setattr(limits, "REMOTE_SILENCE_S", 0.5)
    async with a_server(token_s=0.1) as server, a_house_of(server) as house:
        reply = await house.ask(a_post(a_chat(model=REMOTE, stream=True, max_tokens=8)))

        assert events_of(reply)[-1] == "[DONE]"


# -- TLS ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_a_server_behind_tls_has_to_be_trusted(
    is_trusted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By this machine's certificates: no key and no prompt goes to a stranger."""
    monkeypatch.setattr(limits, "ENGINE_LOST_WAIT_S", 0.1)
    certificate, key = a_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with a_server(tls=tls, key="sk-box") as server, a_house_of(server) as house:
        whole_reply = await house.ask(a_post(a_chat(model=REMOTE)))
        stream_reply = await house.ask(a_post(a_chat(model=REMOTE, stream=True)))

        assert [whole_reply.status, stream_reply.status] == ([200, 200] if is_trusted else [502, 502])
        assert len(server.requests) == (2 if is_trusted else 0)


# -- one contract for three kinds of engine ----------------------------------------------------------


@asynccontextmanager
async def an_engine_here(answer: Answer) -> AsyncIterator[tuple[House, EngineDouble]]:
    """Open a front door before an engine of its own."""
    async with a_house(answer) as house:
        yield house, house.engine


@asynccontextmanager
async def an_engine_of_a_peer(answer: Answer) -> AsyncIterator[tuple[House, EngineDouble]]:
    """Open a front door with a tunnel to another node's engine."""
    async with a_mesh(answer) as (entry, mesh):
        (far,) = mesh.houses.values()
        yield entry, far.engine


@asynccontextmanager
async def an_adopted_server(answer: Answer) -> AsyncIterator[tuple[House, EngineDouble]]:
    """Open a front door before the same double behind a port."""
    double = EngineDouble(Path("unused"), answer)
    listener = await asyncio.start_server(double._serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        stack.push_async_callback(double.stop)
        model = adopted(f"http://127.0.0.1:{port}", "tiny", served_name="tiny")
        yield await stack.enter_async_context(a_house(models=lambda _: (model,))), double


Kind = Callable[[Answer], Any]
KINDS = pytest.mark.parametrize("kind", [an_engine_here, an_engine_of_a_peer, an_adopted_server])


@pytest.mark.rows("GEN-3")
@KINDS
async def test_every_kind_of_engine_answers_whole_and_in_a_stream(kind: Kind) -> None:
    """A client cannot tell them apart."""
    async with kind(answer_ok) as (house, _):
        reply = await house.chat()
        stream = await house.chat(stream=True)

        assert (reply.status, reply.json["model"], reply.json["path"]) == (200, "tiny", "/v1/chat/completions")
        assert events_of(stream) == [{"n": 0}, {"n": 1}, {"n": 2}, "[DONE]"]
        assert stream.headers["content-type"] == "text/event-stream"


@pytest.mark.rows("GEN-3")
@KINDS
async def test_every_kind_of_engine_has_its_errors_told_alike(kind: Kind) -> None:
    """One shape, one code."""

    async def fail(request: Request, writer: asyncio.StreamWriter) -> None:
        error = {"error": {"message": "out of pencils", "type": "server_error", "code": 500}}
        writer.write(whole(error, "500 Internal Server Error"))

    async with kind(fail) as (house, _):
        reply = await house.chat()

        assert (reply.status, reply.error["code"], reply.error["message"]) == (500, "engine_error", "out of pencils")


@pytest.mark.rows("GEN-3")
@KINDS
async def test_every_kind_of_engine_is_left_when_its_client_leaves(kind: Kind) -> None:
    """Its slot is free within a second."""

    async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with kind(hang) as (house, double):
        client = await house.connect()
        await client.send(a_post(a_chat()))
        await until(lambda: double.requests, "the request arriving")
        double.hung_up.clear()
        client.writer.transport.abort()

        await until(lambda: house.door.traffic.in_flight == 0, "the slot being free", limits.DISCONNECT_GRACE_S)
        # The double reads nothing while it hangs, so its own side closes when it is stopped.


@pytest.mark.rows("GEN-3")
@KINDS
async def test_every_kind_of_engine_that_breaks_off_ends_a_stream_with_an_error(kind: Kind) -> None:
    """Never silently."""

    async def break_off(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + event(0))
        await writer.drain()
        writer.transport.close()

    async with kind(break_off) as (house, _):
        reply = await house.chat(stream=True)

        assert events_of(reply)[-1]["error"]["code"] == "host_lost"
