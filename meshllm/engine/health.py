"""Questions to an engine over its own HTTP: is it ready, what does it offer, how far is it.

Owns the probes and their bounds: a deadline and a size for each answer. Decides nothing about what an
answer means for the engine's life. Doesn't know processes.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from meshllm.core import limits
from meshllm.core.engines import EngineEndpoint

ANSWER_BYTES = 4 * limits.MIB
"""`/props` carries a chat template and `/slots` the parameters of every slot; nothing is near this."""
OK, UNAVAILABLE = 200, 503
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)


class ProbeError(Exception):
    """An engine gave no usable answer to a probe. The message says which and why."""


class Health(Enum):
    """What an engine says of itself."""

    READY = "ready"
    LOADING = "loading"
    SILENT = "silent"  # nobody listens, or no answer came in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a ready engine offers."""

    slots: int
    context_tokens: int
    """Of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsReading:
    """How far the slots of an engine are. Equal counters mean that nothing moved."""

    busy: int
    counters: tuple[tuple[int, ...], ...]


async def health(endpoint: EngineEndpoint, within_s: float) -> Health:
    """Return what an engine says of itself. Never raises for anything that an engine does."""
    try:
        status, _ = await _get(endpoint, "/health", within_s)
    except ProbeError:
        return Health.SILENT
    return {OK: Health.READY, UNAVAILABLE: Health.LOADING}.get(status, Health.SILENT)


async def offer(endpoint: EngineEndpoint, within_s: float) -> Offer:
    """Return what a ready engine offers. Raises ProbeError."""
    told = await _get_json(endpoint, "/props", within_s)
    try:
        context = told["default_generation_settings"]["n_ctx"]
        return Offer(slots=int(told["total_slots"]), context_tokens=int(context))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"/props has no {error}"
        raise ProbeError(msg) from error


async def slots(endpoint: EngineEndpoint, within_s: float) -> SlotsReading:
    """Return how far an engine's slots are. Raises ProbeError."""
    told = await _get_json(endpoint, "/slots", within_s)
    try:
        return SlotsReading(
            busy=sum(bool(slot["is_processing"]) for slot in told),
            counters=tuple(_counters(slot) for slot in told),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"/slots has no {error}"
        raise ProbeError(msg) from error


async def conversations(endpoint: EngineEndpoint, within_s: float) -> list[tuple[int, int, int, bool]]:
    """Return of each slot its number, the tokens in it, its last request's number, if it is busy. Raises ProbeError."""
    told = await _get_json(endpoint, "/slots", within_s)
    try:
        return [
            (int(slot["id"]), int(slot.get("n_prompt_tokens", 0)), int(slot.get("id_task", -1)),
             bool(slot["is_processing"]))
            for slot in told
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"/slots has no {error}"
        raise ProbeError(msg) from error


async def slot_action(endpoint: EngineEndpoint, slot: int, action: str, name: str, within_s: float) -> int:
    """Have a slot saved to a file of that name, or restored from it; return its tokens. Raises ProbeError."""
    told = await _get_json(
        endpoint, f"/slots/{slot}?action={action}", within_s, json.dumps({"filename": name}).encode()
    )
    try:
        return int(told["n_saved" if action == "save" else "n_restored"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"/slots/{slot} has no {error}"
        raise ProbeError(msg) from error


async def metrics(endpoint: EngineEndpoint, within_s: float) -> str:
    """Return what an engine counts of its work, in the text format of Prometheus. Raises ProbeError."""
    status, body = await _get(endpoint, "/metrics", within_s)
    if status != OK:
        msg = f"/metrics answered {status}"
        raise ProbeError(msg)
    return body.decode(errors="replace")


async def completed(endpoint: EngineEndpoint, prompt: str, tokens: int, within_s: float) -> int:
    """Let an engine continue a prompt by so many tokens and return how many it made. Raises ProbeError."""
    body = json.dumps({"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True}).encode()
    told = await _get_json(endpoint, "/completion", within_s, body)
    try:
        return int(told["tokens_predicted"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"/completion has no {error}"
        raise ProbeError(msg) from error


async def text(endpoint: EngineEndpoint, path: str, within_s: float) -> str:
    """Return what an engine answers at a path, as text. Raises ProbeError."""
    status, body = await _get(endpoint, path, within_s)
    if status != OK:
        msg = f"{path} answered {status}"
        raise ProbeError(msg)
    return body.decode("utf-8", "replace")


def _counters(slot: dict[str, Any]) -> tuple[int, ...]:
    """Return what moves while a slot works: the task, prompt tokens done, tokens made."""
    made = slot.get("next_token")
    first = made[0] if isinstance(made, list) and made else made
    decoded = first.get("n_decoded", 0) if isinstance(first, dict) else 0
    numbers = (slot.get("id_task", -1), slot.get("n_prompt_tokens_processed", 0), decoded)
    return tuple(number if isinstance(number, int) else 0 for number in numbers)


async def _get_json(endpoint: EngineEndpoint, path: str, within_s: float, told: bytes | None = None) -> Any:  # noqa: ANN401 - JSON of another program
    status, body = await _get(endpoint, path, within_s, told)
    if status != OK:
        msg = f"{path} answered {status}"
        raise ProbeError(msg)
    try:
        return json.loads(body)
    except ValueError as error:
        msg = f"{path} answered no JSON"
        raise ProbeError(msg) from error


async def _get(endpoint: EngineEndpoint, path: str, within_s: float, told: bytes | None = None) -> tuple[int, bytes]:
    """Return the status and body of one GET, or POST of JSON, on a connection of its own. Raises ProbeError."""
    try:
        async with asyncio.timeout(within_s):
            return await _exchange(endpoint, _request(endpoint, path, told))
    except TimeoutError as error:
        msg = f"{path} did not answer in {within_s:g} s"
        raise ProbeError(msg) from error
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        msg = f"{path} did not answer: {error}"
        raise ProbeError(msg) from error


def _request(endpoint: EngineEndpoint, path: str, told: bytes | None) -> bytes:
    """Return a request. HTTP/1.0: nothing is chunked, and without a length the body ends with the connection."""
    shown = f"HTTP/1.0\r\nHost: engine\r\nAuthorization: Bearer {endpoint.key}\r\n"
    if told is None:
        return f"GET {path} {shown}\r\n".encode()
    length = f"Content-Type: application/json\r\nContent-Length: {len(told)}\r\n"
    return f"POST {path} {shown}{length}\r\n".encode() + told


async def _exchange(endpoint: EngineEndpoint, request: bytes) -> tuple[int, bytes]:
    """Ask and read the answer to the end of the connection. Raises OSError, EOFError, ValueError."""
    if endpoint.address is not None:
        reader, writer = await asyncio.open_connection(*endpoint.address, limit=limits.HTTP_HEADER_BLOCK_BYTES)
    else:
        reader, writer = await asyncio.open_unix_connection(endpoint.socket_path, limit=limits.HTTP_HEADER_BLOCK_BYTES)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head)
        wanted = int(length[1]) if length else ANSWER_BYTES + 1
        body = bytearray()
        while len(body) < wanted and (piece := await reader.read(limits.HTTP_HEADER_BLOCK_BYTES)):
            body += piece
            if len(body) > ANSWER_BYTES:
                msg = "the answer is too long"
                raise ValueError(msg)
        return status, bytes(body)
    except IndexError as error:
        msg = "no HTTP"
        raise ValueError(msg) from error
    finally:
        writer.transport.abort()
