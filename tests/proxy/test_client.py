"""A client's connection: who leaves, who is slow, who sends too much."""

import asyncio
import socket
import struct

import pytest

from meshllm.core import limits
from tests.proxy.builders import (
    CHAT,
    STREAM_END,
    STREAM_HEAD,
    TINY,
    Client,
    House,
    Request,
    a_chat,
    a_get,
    a_house,
    a_post,
    chunk,
    event,
    until,
    whole,
)


class Gate:
    """An engine that answers when it is told to."""

    def __init__(self, *, starts: bool = False) -> None:
        self.open = asyncio.Event()
        self.starts = starts

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Wait, with the beginning of a stream out already if so wished."""
        if self.starts:
            writer.write(STREAM_HEAD + event(0))
        await self.open.wait()
        writer.write(event(1) + STREAM_END if self.starts else whole({"model": "tiny"}))


async def leave(client: Client, how: str) -> None:
    """Close a connection: with FIN, with RST, or after closing the sending half first."""
    if how == "reset":
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
    else:
        await client.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("starts", [False, True], ids=["before the answer", "in the stream"])
async def test_a_client_that_leaves_frees_its_slot(how: str, *, starts: bool) -> None:
    """F30: a closed tab must not compute to its end, even while the engine says nothing, for ever if need be."""
    gate = Gate(starts=starts)
    async with a_house(gate.answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=starts)))
        await until(lambda: house.door.in_flight(TINY) == 1, "the request reaching the engine")
        if starts:
            await client.until(event(0))

        await leave(client, how)
        await until(lambda: house.door.in_flight(TINY) == 0, "the request ending")
        counted = house.door.counters()["clients_gone"]
        gate.open.set()
        await until(lambda: house.engine.open == 0, "the engine's connection closing")

    assert counted == 1


@pytest.mark.parametrize("starts", [False, True])
async def test_a_client_that_only_stopped_sending_is_not_taken_for_gone(*, starts: bool) -> None:
    """It is asked whether it still reads, in a way that every client understands."""
    gate = Gate(starts=starts)
    async with a_house(gate.answer) as house:
        client = await house.connect()
        await client.send(a_post(a_chat(stream=starts)))
        client.writer.write_eof()
        question = await client.until(b": \n\n" if starts else b"100 Continue\r\n\r\n")
        gate.open.set()
        rest = await client.rest()

    assert question
    assert rest.endswith(b"0\r\n\r\n" if starts else b'{"model": "tiny"}')


async def test_a_client_that_stops_sending_in_the_middle_is_closed() -> None:
    """Half a request has no answer."""
    async with a_house() as house:
        for data in (b"POST ", a_post(a_chat())[:-5], b""):
            client = await house.connect()
            await client.send(data)
            client.writer.write_eof()
            assert await client.rest() == b""


async def test_pipelined_requests_before_a_fin_are_all_answered() -> None:
    """`printf … | nc` with two requests."""
    async with a_house() as house:
        client = await house.connect()
        await client.send(a_post(a_chat()) * 3)
        client.writer.write_eof()

        assert (await client.rest()).count(b"HTTP/1.1 200 OK") == 3


async def test_a_slow_client_pauses_its_engine_and_nobody_else() -> None:
    """F29: back-pressure goes all the way through; memory stays bounded."""
    piece = chunk(b"data: " + b"x" * 60_000 + b"\n\n")
    written = [0]

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if not request.json.get("stream"):
            writer.write(whole({"model": "tiny"}))
            return
        writer.write(STREAM_HEAD)
        for _ in range(1000):
            writer.write(piece)
            await writer.drain()
            written[0] += len(piece)
        writer.write(STREAM_END)

    async with a_house(answer) as house:
        client = await small_window(house)
        await client.send(a_post(a_chat(stream=True)))
        stalled = await stands_still(written)
        assert await house.is_well()

        client.reader._transport.resume_reading()  # type: ignore[attr-defined]
        total = 0
        async with asyncio.timeout(30):
            while not (data := await client.reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
                total += len(data)

    assert stalled < 20_000_000
    assert total > 59_000_000


async def small_window(house: House) -> Client:
    """Connect with a small receive buffer and read nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", house.port))
    client = Client(*await asyncio.open_connection(sock=sock, limit=1 << 16))
    house._clients.append(client)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return client


async def stands_still(counter: list[int]) -> int:
    """Wait until a counter has not moved for a while; return it."""
    still, last = 0, -1
    async with asyncio.timeout(30):
        while still < 10:
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.03)
            still = still + 1 if counter[0] == last and last > 0 else 0
            last = counter[0]
    return last


async def test_a_client_that_takes_nothing_at_all_is_cut() -> None:
    """Its engine's slot is somebody else's."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(1000):
            writer.write(chunk(b"data: " + b"x" * 60_000 + b"\n\n"))
            await writer.drain()

    async with a_house(answer, slow_client_timeout_s=0.3) as house:
        client = await small_window(house)
        await client.send(a_post(a_chat(stream=True)))
        await until(lambda: house.door.in_flight(TINY) == 1, "the request reaching the engine")

        await until(lambda: house.door.in_flight(TINY) == 0, "the slow client being cut")
        await until(lambda: house.engine.open == 0, "the engine being freed")


async def test_an_idle_connection_is_closed_in_the_end() -> None:
    """Between requests, without a word."""
    async with a_house(keep_alive_timeout_s=0.2) as house:
        client = await house.connect()
        await client.send(a_get("/v1/models"))
        await client.receive()

        assert await client.rest() == b""


async def test_a_client_that_ignores_its_last_answer_is_cut() -> None:
    """After an error the input is discarded, but not for ever."""
    async with a_house(linger_s=0.2) as house:
        client = await house.connect()
        await client.send(b"nonsense\r\n\r\n")
        await client.until(b"}}")
        assert await client.rest() == b""

        await until(lambda: house.door.connections == 0, "the connection ending")


async def test_an_error_arrives_although_the_body_is_still_coming() -> None:
    """A reset would overtake the answer: the input is read on for a moment."""
    async with a_house() as house:
        client = await house.connect()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {60 * limits.MIB}\r\n\r\n".encode()
        await client.send(head + b"x" * 4_000_000)

        assert (await client.receive()).status == 413


async def test_answers_are_not_mixed_up_between_connections() -> None:
    """Forty clients, three requests each, pipelined, over a handful of engine connections."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)
        writer.write(whole({"said": request.json["messages"][0]["content"]}))

    async def talk(house: House, number: int) -> None:
        client = await house.connect()
        said = [f"{number}-{turn}" for turn in range(3)]
        await client.send(b"".join(a_post(a_chat(messages=[{"role": "user", "content": text}])) for text in said))
        assert [(await client.receive()).json["said"] for _ in said] == said

    async with a_house(answer) as house, asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(talk(house, number))
