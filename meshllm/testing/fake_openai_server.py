"""A double of servers that people already run: OpenAI's HTTP over TCP or TLS, and what goes wrong with them.

Owns a server for tests, in their own loop or as `python -m meshllm.testing.fake_openai_server '{"port": …}'`. Decides
nothing: what it lists, how it frames its answers and how it fails stands in `Ways`. Text is `0 1 2 …`, as that of the
engine double. Doesn't know any node.

An answer says in `seen` what came: path, host, key and model. A process prints its port as its first line; given `tls`,
the paths of a certificate and its key, it speaks that.
"""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from meshllm.core.limits import HTTP_HEADER_BLOCK_BYTES
from meshllm.testing.fake_answers import STYLES, Counts, Json, Style, error, event
from meshllm.testing.fake_engine import Request, read_request, wanted_tokens
from meshllm.testing.fake_prompts import last_text

SEEN = "seen"
FRAMINGS = ("sized", "chunked", "closed")
STATUS_TROUBLES = {"refuse": 401, "overload": 429, "fail": 500, "move": 302}
"""Troubles that are a status: of every request and of the list."""


@dataclass(slots=True, kw_only=True)
class Ways:
    """How the server behaves; may change while it runs. Times are seconds."""

    models: list[str] = field(default_factory=lambda: ["remote-model"])
    context_tokens: int = 0
    """Told with every model, if not 0."""
    key: str = ""
    """Whoever brings another gets 401; empty for none."""
    prefix: str = ""
    """Before `/v1`."""
    framing: str = "sized"
    """Of whole answers: `sized`, `chunked`, or ended by `closed` connections; streams are chunked or closed."""
    list_body: str = ""
    """What the list is instead."""
    list_status: int = 200
    list_s: float = 0.0
    """Until the list is answered."""
    first_token_s: float = 0.0
    token_s: float = 0.0
    trouble: str = ""
    """A key of `STATUS_TROUBLES`, `hang`, `close` or `garbage` instead of an answer, `die_mid_stream` within one."""
    calls_itself: str = ""
    """The model in its answers, where that is not what was asked for."""


@dataclass(slots=True)
class FakeOpenAIServer:
    """The server. `requests` are those that came, other than for the list."""

    ways: Ways = field(default_factory=Ways)
    requests: list[Request] = field(default_factory=list)
    lists: int = 0
    """How often the list was asked for."""
    port: int = 0
    open: int = 0
    """Connections that are open."""
    connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _tls: ssl.SSLContext | None = None

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen on loopback; started again without a port, on the same one as before."""
        self._tls = tls or self._tls
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port or self.port, ssl=self._tls, limit=HTTP_HEADER_BLOCK_BYTES
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Return what a configuration says of it."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}{self.ways.prefix}/v1"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it is closed, by either side."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - always within one
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._answered(request, reader, writer):
                    return
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError):
            return
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _answered(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, unless its client leaves before; return whether the connection goes on."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._answer(request, writer), name="answer")
            gone = group.create_task(reader.read(1), name="client")
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                work.cancel()
            await asyncio.wait({work})
            gone.cancel()
        return not work.cancelled() and work.result()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether its connection goes on."""
        ways = self.ways
        path = request.path.removeprefix(ways.prefix)
        if ways.key and request.headers.get("authorization") != f"Bearer {ways.key}":
            return await self._send(writer, 401, error("Invalid API Key", 401))
        if path == "/v1/models" and request.path == ways.prefix + path:
            return await self._list(writer)
        self.requests.append(request)
        if ways.trouble and ways.trouble != "die_mid_stream":
            return await self._make_trouble(writer)
        style = STYLES.get(path)
        if style is None or request.path != ways.prefix + path:
            return await self._send(writer, 404, {"detail": "Not Found"})
        if request.body.get("model") not in ways.models:
            return await self._send(writer, 404, error(f"model {request.body.get('model')!r} not found", 404))
        if request.body.get("stream"):
            return await self._stream(request, writer, style)
        words = [word async for word in self._words(request)]
        whole = style.whole(self._model(request), "".join(words), _counts(request, len(words)), request.body)
        return await self._send(writer, 200, whole | {SEEN: self._seen(request)})

    async def _make_trouble(self, writer: asyncio.StreamWriter) -> bool:
        """Do what was ordered instead of an answer."""
        trouble = self.ways.trouble
        if (status := STATUS_TROUBLES.get(trouble)) is not None:
            return await self._send(writer, status, error(f"the server was told to {trouble}", status))
        if trouble == "hang":
            await asyncio.Event().wait()
        if trouble == "garbage":
            writer.write(b"SSH-2.0-nothing of HTTP\r\n")
            await writer.drain()
        return False

    async def _list(self, writer: asyncio.StreamWriter) -> bool:
        """Answer which models there are."""
        ways = self.ways
        self.lists += 1
        await asyncio.sleep(ways.list_s)
        if ways.trouble in STATUS_TROUBLES:
            return await self._send(writer, STATUS_TROUBLES[ways.trouble], error("no", STATUS_TROUBLES[ways.trouble]))
        more = {"context_length": ways.context_tokens} if ways.context_tokens else {}
        data = [{"id": name, "object": "model", "owned_by": "library", **more} for name in ways.models]
        body = ways.list_body.encode() or json.dumps({"object": "list", "data": data}).encode()
        return await self._send(writer, ways.list_status, body)

    async def _words(self, request: Request) -> AsyncIterator[str]:
        """Yield the words of an answer, with their pauses."""
        await asyncio.sleep(self.ways.first_token_s)
        for number in range(wanted_tokens(request.body)):
            yield f"{number} "
            await asyncio.sleep(self.ways.token_s)

    async def _stream(self, request: Request, writer: asyncio.StreamWriter, style: Style) -> bool:
        """Answer with server-sent events."""
        is_chunked, model = self.ways.framing != "closed", self._model(request)
        coding = "Transfer-Encoding: chunked" if is_chunked else "Connection: close"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: a=b\r\n{coding}\r\n\r\n"
        writer.write(head.encode())

        async def say(data: Json | str) -> None:
            text = event(data)
            writer.write(b"%x\r\n%b\r\n" % (len(text), text) if is_chunked else text)
            await writer.drain()

        for opening in style.opening(model):
            await say(opening)
        made = 0
        async for word in self._words(request):
            if self.ways.trouble == "die_mid_stream" and made == 3:
                return False
            await say(style.piece(model, word))
            made += 1
        for ending in style.ending(model, _counts(request, made), request.body):
            await say(ending)
        if is_chunked:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return is_chunked

    async def _send(self, writer: asyncio.StreamWriter, status: int, body: object) -> bool:
        """Send a whole answer in the framing that is wanted; return whether the connection goes on."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        framing = self.ways.framing
        coding = {
            "sized": f"Content-Length: {len(data)}", "chunked": "Transfer-Encoding: chunked",
            "closed": "Connection: close",
        }[framing]  # fmt: skip
        moved = "Location: http://127.0.0.1:9/elsewhere\r\n" if status == 302 else ""
        about = f"Content-Type: application/json\r\nSet-Cookie: a=b\r\n{moved}{coding}"
        payload = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if framing == "chunked" else data
        writer.write(f"HTTP/1.1 {status} Fake\r\n{about}\r\n\r\n".encode() + payload)
        await writer.drain()
        return framing != "closed"

    def _model(self, request: Request) -> str:
        return self.ways.calls_itself or str(request.body.get("model"))

    def _seen(self, request: Request) -> Json:
        headers = request.headers
        return {
            "path": request.path, "host": headers.get("host", ""), "authorization": headers.get("authorization", ""),
            "asked_for": request.body.get("model"),
        }  # fmt: skip


def _counts(request: Request, made: int) -> Counts:
    prompt_tokens = max(len(last_text(request.body).split()), 1)
    return Counts(prompt_tokens=prompt_tokens, cached_tokens=0, made_tokens=made, took_ms=1.0)


@asynccontextmanager
async def a_server(tls: ssl.SSLContext | None = None, **ways: Any) -> AsyncIterator[FakeOpenAIServer]:  # noqa: ANN401
    """Run a server in this loop while it is used."""
    server = FakeOpenAIServer(Ways(**ways))
    await server.start(tls=tls)
    try:
        yield server
    finally:
        await server.stop()


async def run(told: Mapping[str, Any]) -> None:
    """Be a server until something ends the process."""
    given = dict(told)
    port, shown = int(given.pop("port", 0)), given.pop("tls", None)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if shown else None
    if tls is not None:
        tls.load_cert_chain(*shown)
    server = FakeOpenAIServer(Ways(**given))
    await server.start(port, tls)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")))
