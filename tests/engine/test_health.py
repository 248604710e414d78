"""Questions to an engine over its own HTTP. The answers are llama.cpp's, recorded."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshllm.core.engines import EngineEndpoint
from meshllm.engine import health
from meshllm.engine.health import Health, Offer, ProbeError, SlotsReading

WITHIN_S = 30.0
IDLE_SLOT = {"id": 0, "n_ctx": 2048, "speculative": False, "is_processing": False}
BUSY_SLOT = {
    "id": 1, "n_ctx": 2048, "speculative": False, "is_processing": True, "id_task": 77, "n_prompt_tokens": 59,
    "n_prompt_tokens_processed": 2, "n_prompt_tokens_cache": 0,
    "next_token": [{"has_next_token": True, "has_new_line": False, "n_remain": 143, "n_decoded": 57}],
}  # fmt: skip
PROPS = {"default_generation_settings": {"params": {}, "n_ctx": 2048}, "total_slots": 2, "model_alias": "m"}


def answer(body: object, status: int = 200) -> bytes:
    """Return an HTTP answer with a JSON body."""
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n\r\n".encode() + data


@asynccontextmanager
async def an_engine(
    folder: Path, said: bytes | None, *, closes: bool = True
) -> AsyncIterator[tuple[EngineEndpoint, list[bytes]]]:
    """Yield the endpoint of an engine that says one thing to everybody; None: nothing, ever. And what it was asked."""
    asked: list[bytes] = []
    path = str(folder / "e.sock")
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(said or b"")
        if said is None or not closes:
            await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(connected, path):
        yield EngineEndpoint(socket_path=path, key="secret"), asked
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (answer({"status": "ok"}), Health.READY),
        (answer({"error": {"message": "Loading model", "code": 503}}, 503), Health.LOADING),
        (answer({}, 500), Health.SILENT),
        (b"", Health.SILENT),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Health.SILENT),
        (b"HTTP/1.1\r\n\r\n", Health.SILENT),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000, Health.SILENT),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (health.ANSWER_BYTES + 1), Health.SILENT),
    ],
    ids=["ready", "loading", "error", "closed", "not http", "no status", "long head", "long body"],
)
async def test_any_answer_to_health_means_something(runtime_dir: Path, said: bytes, expected: Health) -> None:
    """Whatever listens there, a probe ends and doesn't raise."""
    async with an_engine(runtime_dir, said) as (endpoint, _):
        assert await health.health(endpoint, WITHIN_S) is expected


async def test_nobody_and_no_answer_are_silence(runtime_dir: Path) -> None:
    """A stopped process still accepts connections: only the deadline tells."""
    absent = EngineEndpoint(socket_path=str(runtime_dir / "none.sock"))

    assert await health.health(absent, WITHIN_S) is Health.SILENT
    async with an_engine(runtime_dir, None) as (endpoint, _):
        assert await health.health(endpoint, 0.05) is Health.SILENT


async def test_length_of_the_answer_is_enough(runtime_dir: Path) -> None:
    """An engine may keep the connection open, whatever it was asked."""
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    async with an_engine(runtime_dir, said, closes=False) as (endpoint, _):
        assert await health.health(endpoint, WITHIN_S) is Health.READY


async def test_key_is_shown(runtime_dir: Path) -> None:
    """Everything but `/health` needs it."""
    async with an_engine(runtime_dir, answer(PROPS)) as (endpoint, asked):
        assert await health.offer(endpoint, WITHIN_S) == Offer(slots=2, context_tokens=2048)

    assert b"Authorization: Bearer secret\r\n" in asked[0]
    assert asked[0].startswith(b"GET /props ")


@pytest.mark.rows("MET-9")
async def test_metrics_are_text(runtime_dir: Path) -> None:
    """Whatever it says comes back; an engine without the page is a failed probe."""
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nllamacpp:x 1.0\n"
    async with an_engine(runtime_dir, said, closes=False) as (endpoint, asked):
        text = await health.metrics(endpoint, WITHIN_S)
    async with an_engine(runtime_dir, answer({}, 501)) as (endpoint, _):
        with pytest.raises(ProbeError, match="/metrics answered 501"):
            await health.metrics(endpoint, WITHIN_S)

    assert text == "llamacpp:x 1.0\n"
    assert asked[0].startswith(b"GET /metrics ")


async def test_slots_are_read(runtime_dir: Path) -> None:
    """What moves while a slot works: the task, prompt tokens done, tokens made."""
    async with an_engine(runtime_dir, answer([IDLE_SLOT, BUSY_SLOT])) as (endpoint, _):
        reading = await health.slots(endpoint, WITHIN_S)

    assert reading == SlotsReading(busy=1, counters=((-1, 0, 0), (77, 2, 57)))


@pytest.mark.parametrize("body", [{}, [], {"default_generation_settings": {}}, {"total_slots": "x"}, None, 3])
async def test_strange_properties_are_no_offer(runtime_dir: Path, body: object) -> None:
    """The plan's numbers are used instead."""
    async with an_engine(runtime_dir, answer(body)) as (endpoint, _):
        with pytest.raises(ProbeError):
            await health.offer(endpoint, WITHIN_S)


@pytest.mark.parametrize("said", [answer([{}]), answer(3), answer([], 501), b"HTTP/1.1 200 OK\r\n\r\nnope"])
async def test_strange_slots_are_unread(runtime_dir: Path, said: bytes) -> None:
    """Unread is not the same as idle."""
    async with an_engine(runtime_dir, said) as (endpoint, _):
        with pytest.raises(ProbeError):
            await health.slots(endpoint, WITHIN_S)


async def test_older_slot_shape_is_read(runtime_dir: Path) -> None:
    """`next_token` was an object before it was a list."""
    slot = {**BUSY_SLOT, "next_token": {"n_decoded": 9}}

    async with an_engine(runtime_dir, answer([slot])) as (endpoint, _):
        assert (await health.slots(endpoint, WITHIN_S)).counters == ((77, 2, 9),)


async def test_address_is_an_endpoint_too() -> None:
    """Where Unix sockets don't exist, engines listen on loopback."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer({"status": "ok"}))
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()

        assert await health.health(EngineEndpoint(address=address), WITHIN_S) is Health.READY


async def test_conversations_are_read_from_slots(runtime_dir: Path) -> None:
    """One that nobody used has none, and no request."""
    async with an_engine(runtime_dir, answer([IDLE_SLOT, BUSY_SLOT])) as (endpoint, _):
        found = await health.conversations(endpoint, WITHIN_S)

    assert found == [(0, 0, -1, False), (1, 59, 77, True)]


@pytest.mark.parametrize("said", [answer([{}]), answer(3), answer([3]), answer([], 501), b"HTTP/1.1 200 OK\r\n\r\nx"])
async def test_strange_slots_have_no_conversations(runtime_dir: Path, said: bytes) -> None:
    """Nothing is saved then."""
    async with an_engine(runtime_dir, said) as (endpoint, _):
        with pytest.raises(ProbeError):
            await health.conversations(endpoint, WITHIN_S)


async def test_a_slot_is_saved_and_restored_by_name(runtime_dir: Path) -> None:
    """The engine says how many tokens that were."""
    told = answer({"id_slot": 3, "filename": "a.slot", "n_saved": 59, "n_restored": 60})
    async with an_engine(runtime_dir, told) as (endpoint, asked):
        saved = await health.slot_action(endpoint, 3, "save", "a.slot", WITHIN_S)
        restored = await health.slot_action(endpoint, 3, "restore", "a.slot", WITHIN_S)

    assert (saved, restored) == (59, 60)
    assert [one.split(b" HTTP")[0] for one in asked] == [
        b"POST /slots/3?action=save", b"POST /slots/3?action=restore",
    ]  # fmt: skip


@pytest.mark.parametrize("said", [answer({}), answer(3), answer({"n_saved": "x"}), answer({"error": {}}, 400)])
async def test_a_slot_that_cannot_be_saved_says_so(runtime_dir: Path, said: bytes) -> None:
    """Or an engine that does not know how."""
    async with an_engine(runtime_dir, said) as (endpoint, _):
        with pytest.raises(ProbeError):
            await health.slot_action(endpoint, 0, "save", "a.slot", WITHIN_S)
