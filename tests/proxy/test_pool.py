"""Connections to engines are used again, in turn, and never out of step."""

import asyncio

import pytest

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId
from meshllm.proxy.framing import AnswerHead
from meshllm.proxy.pool import EngineConnection, EnginePool
from meshllm.proxy.traffic import ModelTraffic
from tests.proxy.builders import (
    STREAM_END,
    STREAM_HEAD,
    Request,
    TransportDouble,
    a_chat,
    a_get,
    a_house,
    a_model,
    a_post,
    event,
    until,
    whole,
)


async def test_a_connection_is_used_again() -> None:
    """Opening one costs more than a short answer."""
    async with a_house() as house:
        for _ in range(5):
            assert await house.is_well()

    assert house.engine.connections == 1


async def test_no_more_connections_idle_than_there_are_slots() -> None:
    """Each costs llama.cpp's server a thread, and it has few."""
    gate = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(whole({"model": "tiny"}))

    async with a_house(answer, models=lambda socket: (a_model(socket=socket, slots=2),)) as house:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(house.chat())
            await until(lambda: len(house.engine.requests) == 10, "all requests arriving")
            gate.set()
        await until(lambda: house.engine.open == 2, "the others being closed")

        assert await house.is_well()
    assert house.engine.connections == 10


async def test_an_answer_that_closes_is_the_last_on_its_connection() -> None:
    """`Connection: close` is the engine's to say."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"model": "tiny"}, Connection="close"))

    async with a_house(answer) as house:
        for _ in range(3):
            assert (await house.chat()).headers["x-mesh-attempts"] == "1"

    assert house.engine.connections == 3


async def test_bytes_that_nobody_asked_for_end_a_connection() -> None:
    """The next client would take them for its answer."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(whole({"model": "tiny"}))
        await writer.drain()
        if len(house.engine.requests) == 1:
            await asyncio.sleep(0)
            writer.write(whole({"model": "smuggled"}))
            await writer.drain()

    async with a_house(answer) as house:
        await house.chat()
        await house.engine.hung_up.wait()

        assert (await house.chat()).json["model"] == "tiny"


async def test_the_answer_to_head_is_known_to_have_no_body() -> None:
    """Its length is that of the body it would have had."""
    async with a_house() as house:
        client = await house.connect()
        for _ in range(2):
            await client.send(a_get("/x", method="HEAD"))
            reply = await client.receive(is_head=True)
            assert (reply.status, reply.headers["content-length"]) == (200, "2")

    assert house.management.connections == 1


async def test_a_head_without_end_is_given_up() -> None:
    """Buffers are bounded."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * limits.ENGINE_HEAD_BYTES)

    async with a_house(answer) as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.chat())
        await until(lambda: len(house.engine.requests) == 2, "the second try")
        house.views.publish(a_model(socket=house.engine.socket, key="new"))
        reply = await task

    assert reply.status == 502


async def test_interim_answers_without_end_are_given_up() -> None:
    """1xx for ever is a loss."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        interim = 2 if len(house.engine.requests) > 1 else 100
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * interim + whole({"model": "tiny"}))

    async with a_house(answer) as house:
        assert (await house.chat()).headers["x-mesh-attempts"] == "2"


class RelayDouble:
    """Cannot keep up with the last piece of an answer."""

    is_head = False

    def __init__(self, connection: EngineConnection) -> None:
        self.connection = connection
        self.has_ended = False

    def on_head(self, head: AnswerHead) -> "RelayDouble":
        """Take the body, too."""
        return self

    def on_piece(self, data: bytes) -> None:
        """Have too much now."""
        self.connection.pause()

    def on_end(self) -> None:
        """Know that all came."""
        self.has_ended = True


def test_a_connection_that_was_paused_at_the_end_is_read_again() -> None:
    """A client that did not keep up with the end of a stream must not stop the next one's answer."""
    pool = EnginePool(EngineEndpoint(socket_path="/x"), 4, ModelTraffic(ModelId("tiny")))
    connection, transport = EngineConnection(pool), TransportDouble()
    connection.connection_made(transport)
    relay = RelayDouble(connection)
    connection.send(relay, b"request")

    connection.data_received(STREAM_HEAD + event(1) + STREAM_END)

    assert relay.has_ended
    assert pool.take() is connection
    assert transport.is_read


async def test_a_pool_that_retired_keeps_nothing() -> None:
    """Its engine is gone from the view."""
    pool = EnginePool(EngineEndpoint(socket_path="/x"), 4, ModelTraffic(ModelId("tiny")))
    connection = EngineConnection(pool)

    assert pool.keep(connection)
    pool.retire()

    assert not pool.keep(connection)
    assert pool.take() is None


@pytest.mark.rows("LIF-12")
async def test_requests_in_flight_outlive_their_engines_place_in_the_view() -> None:
    """LIF-12: draining lets streams end."""
    gate = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(whole({"model": "tiny"}))

    async with a_house(answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat()))
        await until(lambda: len(house.engine.requests) == 1, "the request arriving")
        house.views.publish(a_model("other"))
        assert (await house.chat(model="nobody")).status == 404
        gate.set()

        assert (await client.receive()).status == 200
