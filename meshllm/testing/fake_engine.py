"""An engine double that speaks llama.cpp's HTTP, with a switch for everything that goes wrong with engines.

Owns a child process for tests: `python -m meshllm.testing.fake_engine`, told by one JSON line on standard
input as our xllamacpp child, or by llama-server's arguments. Decides nothing: text is `0 1 2 …`, one token
for each word, and troubles come as ordered, for the process by `Switches`, for one request by its header
`x-fake`, its field `x_fake` or a last message that begins with `!`. Doesn't know any model.

Troubles instead of an answer: `die`, `hang`, `close`, `error_500`. Troubles within one: `die_mid_stream`,
`hang_mid_stream`, `close_mid_stream`, `burn` (all of a core, and no progress), `freeze` (SIGSTOP) and `oom`;
with a number after a colon (`die_mid_stream:5`), that many tokens come first, else three.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from meshllm.core.limits import HTTP_BODY_BYTES, HTTP_HEADER_BLOCK_BYTES
from meshllm.testing.fake_answers import STYLES, TURN, Counts, Json, Style, error, event, said_already
from meshllm.testing.fake_prompts import SeenPrompts, last_text, words_of
from meshllm.testing.fake_slots import acted, slot_number
from meshllm.testing.fake_split import Workers
from meshllm.testing.fake_switches import LOAD_ENDS, Switches, end, load_trouble, read_switches, say

DEFAULT_TOKENS = 16
TROUBLE_TOKENS = 3


@dataclass(slots=True)
class Slot:
    """The counters that `/slots` shows of one place to compute."""

    id: int
    is_processing: bool = False
    id_task: int = -1
    n_prompt_tokens: int = 0
    n_cached: int = 0
    n_decoded: int = 0
    words: list[str] = field(default_factory=list)
    """Of the last prompt in it."""


@dataclass(slots=True)
class Request:
    """One HTTP request, read whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    query: str = ""
    trouble: str = ""
    after: int = TROUBLE_TOKENS
    """Tokens before the trouble."""


@dataclass(slots=True)
class FakeEngine:
    """The server. `told` is what an engine child is told: socket, key, alias, slots, context."""

    told: dict[str, Any]
    switches: Switches
    is_ready: bool = False
    slots: list[Slot] = field(default_factory=list)
    tasks: int = 0
    hit_tokens: int = 0
    """Of all prompts; likewise those that were computed."""
    miss_tokens: int = 0
    prompts: SeenPrompts = field(default_factory=SeenPrompts)
    free: asyncio.Condition = field(default_factory=asyncio.Condition)
    workers: Workers = field(default_factory=Workers)

    async def serve(self) -> None:
        """Listen, load, and answer until the process ends."""
        self.slots = [Slot(number) for number in range(self.told["slots"])]
        say(f"loading model '{self.told['model']}'")
        trouble = load_trouble(self.switches)
        if self.switches.refuse:
            await asyncio.Event().wait()
        server = await asyncio.start_unix_server(self.connected, self.told["socket"], limit=HTTP_HEADER_BLOCK_BYTES)
        say(f"listening on unix://{self.told['socket']}")
        async with server:
            await asyncio.sleep(self.switches.load_s)
            await self.workers.connect(self.told.get("rpc_ports") or (), self.switches.share_gate)
            if trouble == "hang":
                await asyncio.Event().wait()
            if trouble == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if trouble:
                line, code = LOAD_ENDS[trouble]
                end(code, line)
            self.is_ready = True
            say("model loaded")
            await server.serve_forever()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other, until its client leaves."""
        early = b""
        try:
            while (request := await read_request(reader, early)) is not None:
                async with asyncio.TaskGroup() as group:
                    work = group.create_task(self.answered(request, writer), name="answer")
                    more = group.create_task(read_early(reader), name="client")
                    await asyncio.wait({work, more}, return_when=asyncio.FIRST_COMPLETED)
                    if more.done() and not more.result():
                        work.cancel()  # the client left: what it asked for is not wanted any more
                    await asyncio.wait({work})
                    more.cancel()
                    await asyncio.wait({more})
                early = b"" if more.cancelled() else more.result()
                is_kept = not work.cancelled() and work.result()
                if not is_kept or request.headers.get("connection") == "close":
                    return
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    async def answered(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether its connection can take another."""
        try:
            await self.answer(request, writer)
        except (OSError, ValueError):
            return False
        return True

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or do what it orders instead."""
        if request.path == "/health":
            status, body = (200, {"status": "ok"}) if self.is_ready else (503, error("Loading model", 503))
            await send_json(writer, status, body)
        elif not self.is_ready:
            await send_json(writer, 503, error("Loading model", 503))
        elif request.headers.get("authorization") != f"Bearer {self.told['key']}":
            await send_json(writer, 401, error("Invalid API Key", 401))
        elif request.path.startswith("/slots/"):
            await act_on_slot(self, request, writer)
        elif (answer := ROUTES.get((request.method, request.path))) is not None:
            request.trouble, request.after = trouble_of(request, self.switches)
            await answer(self, request, writer)
        else:
            await send_json(writer, 404, error("File Not Found", 404))

    @property
    def model(self) -> str:
        """Return the name that answers give."""
        return self.switches.model or str(self.told["alias"])

    @contextlib.asynccontextmanager
    async def slot(self, prompt_tokens: int) -> AsyncIterator[Slot]:
        """Wait for a free slot and occupy it."""
        async with self.free:
            await self.free.wait_for(lambda: any(not slot.is_processing for slot in self.slots))
            slot = next(slot for slot in self.slots if not slot.is_processing)
            self.tasks += 1
            slot.is_processing, slot.id_task = True, self.tasks
            slot.n_prompt_tokens, slot.n_decoded = prompt_tokens, 0
        try:
            yield slot
        finally:
            slot.is_processing = False
            async with self.free:
                self.free.notify()

    async def tokens(self, request: Request, slot: Slot) -> AsyncIterator[str]:
        """Yield the words of an answer, with the pauses and the trouble that were ordered."""
        await asyncio.sleep(self.switches.first_token_s)
        first = said_already(last_text(request.body))
        for number in range(first, first + wanted_tokens(request.body)):
            if number == request.after:
                await make_trouble(request.trouble)
            await self.workers.compute()
            slot.n_decoded += 1
            yield f"{number} "
            await asyncio.sleep(self.switches.token_s)


# -- what a request is -----------------------------------------------------------------------------


async def read_request(reader: asyncio.StreamReader, early: bytes = b"") -> Request | None:
    """Read one request that begins with `early`; None at the connection's end. Raises ValueError, EOFError, OSError."""
    try:
        head = (early + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise
        return None
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = int(headers.get("content-length", "0"))
    if length > HTTP_BODY_BYTES:
        msg = "the body is too long"
        raise ValueError(msg)
    raw = await reader.readexactly(length)
    body = json.loads(raw) if raw else {}
    path, _, query = target.partition("?")
    return Request(method, path, headers, body if isinstance(body, dict) else {}, query)


async def read_early(reader: asyncio.StreamReader) -> bytes:
    """Read the first byte of a request that comes before the last one is answered; nothing when the client left."""
    try:
        return await reader.read(1)
    except OSError:
        return b""


def trouble_of(request: Request, switches: Switches) -> tuple[str, int]:
    """Return (trouble, tokens before it) that a request or the process is told to make."""
    text = last_text(request.body)
    in_text = text[1:].split()[0] if text.startswith("!") and len(text) > 1 and TURN not in text else ""
    told = request.headers.get("x-fake") or request.body.get("x_fake") or in_text or switches.trouble
    name, _, after = str(told).partition(":")
    return name, int(after) if after else TROUBLE_TOKENS


def wanted_tokens(body: Mapping[str, Any]) -> int:
    """Return how many tokens a request asks for."""
    left = max(DEFAULT_TOKENS - said_already(last_text(body)), 0)
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
    return next((int(body[name]) for name in names if isinstance(body.get(name), int)), left)


async def make_trouble(name: str) -> None:
    """Do to the process or the connection what a switch orders; the mid-stream ones."""
    if name == "die_mid_stream":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "oom":
        end(1, "E ggml_cuda: CUDA error: out of memory")
    if name == "hang_mid_stream":
        await asyncio.Event().wait()
    if name == "close_mid_stream":
        raise ConnectionAbortedError
    if name == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if name == "burn":
        burn()


async def make_early_trouble(request: Request, writer: asyncio.StreamWriter) -> bool:
    """Do what a switch orders instead of an answer; return whether the request is answered by it."""
    if request.trouble == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if request.trouble == "hang":
        await asyncio.Event().wait()
    if request.trouble == "close":
        raise ConnectionAbortedError
    if request.trouble == "error_500":
        await send_json(writer, 500, error("the double was told to fail", 500))
        return True
    return False


def burn() -> NoReturn:
    """Take all of a core and get nowhere."""
    while True:
        pass


# -- answers ----------------------------------------------------------------------------------------


async def completion(engine: FakeEngine, request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer a chat or text completion in the style of OpenAI, or a message in that of Anthropic."""
    prompt_tokens, cached = (
        max(len(last_text(request.body).replace(TURN, " ").split()), 1),
        engine.switches.cached_tokens,
    )
    if cached < 0:
        prompt_tokens, cached = engine.prompts.read(request.body)
    async with engine.slot(prompt_tokens) as slot:
        slot.n_cached, slot.words = cached, words_of(request.body)
        engine.hit_tokens += min(cached, prompt_tokens)
        engine.miss_tokens += prompt_tokens - min(cached, prompt_tokens)
        if await make_early_trouble(request, writer):
            return
        style = STYLES[request.path]
        began_s = time.monotonic()
        if request.body.get("stream"):
            await stream(engine, request, writer, slot, style)
            return
        words = [word async for word in engine.tokens(request, slot)]
        counts = count(slot, began_s)
        await send_json(writer, 200, style.whole(engine.model, "".join(words), counts, request.body))


async def stream(engine: FakeEngine, request: Request, writer: asyncio.StreamWriter, slot: Slot, style: Style) -> None:
    """Answer with server-sent events, one for each token, in chunks."""
    began_s = time.monotonic()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for first in style.opening(engine.model):
        await send_chunk(writer, event(first))
    async for word in engine.tokens(request, slot):
        await send_chunk(writer, event(style.piece(engine.model, word)))
    for last in style.ending(engine.model, count(slot, began_s), request.body):
        await send_chunk(writer, event(last))
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def count(slot: Slot, began_s: float) -> Counts:
    """Return what an answer took."""
    return Counts(
        prompt_tokens=slot.n_prompt_tokens,
        cached_tokens=min(slot.n_cached, slot.n_prompt_tokens),
        made_tokens=slot.n_decoded,
        took_ms=max((time.monotonic() - began_s) * 1000, 0.001),
    )


async def embeddings(engine: FakeEngine, request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with one small vector for each input."""
    if await make_early_trouble(request, writer):
        return
    given = request.body.get("input", "")
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(str(text))), 1.0, 0.0]}
        for index, text in enumerate(given if isinstance(given, list) else [given])
    ]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    await send_json(writer, 200, {"object": "list", "model": engine.model, "data": data, "usage": usage})


async def tokenize(_: FakeEngine, request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with a number for each word."""
    await send_json(writer, 200, {"tokens": list(range(len(str(request.body.get("content", "")).split())))})


async def count_tokens(_: FakeEngine, request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with the number of words of the last message."""
    await send_json(writer, 200, {"input_tokens": len(last_text(request.body).split())})


async def show_props(engine: FakeEngine, _: Request, writer: asyncio.StreamWriter) -> None:
    """Answer what the engine offers."""
    settings = {"n_ctx": engine.told["context_tokens"]}
    body = {"total_slots": len(engine.slots), "model_alias": engine.model, "default_generation_settings": settings}
    await send_json(writer, 200, body)


async def show_slots(engine: FakeEngine, _: Request, writer: asyncio.StreamWriter) -> None:
    """Answer how far every slot is."""
    body = [
        {
            "id": slot.id,
            "n_ctx": engine.told["context_tokens"],
            "is_processing": slot.is_processing,
            "id_task": slot.id_task,
            "n_prompt_tokens": slot.n_prompt_tokens,
            "n_prompt_tokens_processed": slot.n_prompt_tokens,
            "next_token": [{"n_decoded": slot.n_decoded}],
        }
        for slot in engine.slots
    ]
    await send_json(writer, 200, body)


async def act_on_slot(engine: FakeEngine, request: Request, writer: asyncio.StreamWriter) -> None:
    """Save the prompt of a slot to a file, or read one back, as llama-server does."""
    number, action = slot_number(request.path, len(engine.slots)), request.query.removeprefix("action=")
    folder, name = str(engine.told.get("slots_folder", "")), str(request.body.get("filename", ""))
    words = None if number is None else acted(action, folder, name, engine.slots[number].words)
    if words is None or number is None:
        await send_json(writer, 400, error("Unable to save or restore this slot", 400))
        return
    engine.slots[number].words = words
    engine.prompts.learn(words)
    told = "n_saved" if action == "save" else "n_restored"
    await send_json(writer, 200, {"id_slot": number, "filename": name, told: len(words)})


async def show_metrics(engine: FakeEngine, _request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer what was counted, as llama-server does."""
    busy = sum(slot.is_processing for slot in engine.slots)
    text = (
        "# HELP llamacpp:requests_processing Number of requests processing.\n"
        f"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing {busy}\n"
        "# HELP llamacpp:tasks_total Number of tasks.\n"
        f"# TYPE llamacpp:tasks_total counter\nllamacpp:tasks_total {engine.tasks}\n"
        f"llamacpp:prompt_tokens_total {engine.miss_tokens}\n"
        f"llamacpp:prompt_tokens_cached_total {engine.hit_tokens}\n"
    )
    head = f"HTTP/1.1 200 Fake\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write((head + text).encode())
    await writer.drain()


async def show_request(engine: FakeEngine, request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with the prompt and what came, for tests of what a front door sends; and how many tasks there were."""
    told = {"headers": dict(request.headers), "body": request.body, "tasks": engine.tasks}
    await send_json(writer, 200, {"prompt": last_text(request.body) + TURN, **told})


Answer = Callable[[FakeEngine, Request, asyncio.StreamWriter], Awaitable[None]]
ROUTES: dict[tuple[str, str], Answer] = {
    **{("POST", path): completion for path in STYLES},
    ("POST", "/v1/embeddings"): embeddings,
    ("POST", "/tokenize"): tokenize,
    ("POST", "/v1/messages/count_tokens"): count_tokens,
    ("GET", "/props"): show_props,
    ("GET", "/slots"): show_slots,
    ("GET", "/metrics"): show_metrics,
    ("POST", "/apply-template"): show_request,
}


# -- bytes -------------------------------------------------------------------------------------------


async def send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send one chunk of a streamed answer."""
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


async def send_json(writer: asyncio.StreamWriter, status: int, body: object) -> None:
    """Send a whole answer."""
    data = json.dumps(body).encode()
    about = f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(data)}"
    writer.write(f"HTTP/1.1 {status} Fake\r\n{about}\r\n\r\n".encode() + data)
    await writer.drain()


# -- the process ---------------------------------------------------------------------------------------


def read_arguments(arguments: list[str]) -> Json:
    """Return what llama-server's arguments tell, in the words of our children. Options without a meaning pass."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("host", "model", "alias", "api-key-file", "slot-save-path"):
        parser.add_argument(f"--{name}", default="")
    for name in ("ctx-size", "parallel"):
        parser.add_argument(f"--{name}", type=int, default=1)
    known, _ = parser.parse_known_args(arguments)
    key = Path(known.api_key_file).read_text(encoding="ascii").strip() if known.api_key_file else ""
    return {
        "socket": known.host, "model": known.model, "alias": known.alias, "key": key,
        "context_tokens": known.ctx_size // known.parallel, "slots": known.parallel,
        "slots_folder": known.slot_save_path,
    }  # fmt: skip


async def _until_orphaned() -> None:
    """End the process when its standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    os._exit(0)


async def run(told: Json, *, watches_stdin: bool) -> None:
    """Be an engine until something ends the process."""
    switches = read_switches(told.get("fake") or {})
    if switches.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    async with asyncio.TaskGroup() as group:
        if watches_stdin:
            group.create_task(_until_orphaned(), name="stdin")
        await FakeEngine(told, switches).serve()


def main(arguments: list[str]) -> None:
    """Read what to be, and be it."""
    if arguments == ["--version"]:
        sys.stderr.write("version: 0 (fa4e)\nbuilt with nothing for testing\n")
    elif arguments == ["--list-devices"]:
        sys.stdout.write("Available devices:\n")
    elif arguments:
        asyncio.run(run(read_arguments(arguments), watches_stdin=False))
    else:
        asyncio.run(run(json.loads(sys.stdin.readline()), watches_stdin=True))


if __name__ == "__main__":
    main(sys.argv[1:])
