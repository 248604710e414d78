"""A front door to test: views, an engine double, a management double, and a client that sees raw bytes.

Builders fill in what a test doesn't say. The engine double is scripted by a function for each test and
speaks HTTP through a raw writer, so that it can misbehave in any way.
"""

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from meshllm.core.announcement import Announcement, Role
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import NameIndex
from meshllm.core.routing_config import DEFAULT, FALL_BACK, RoutingConfig, RoutingRegister
from meshllm.core.view import ColdModel, LocalModel, MeshView, Replica
from meshllm.proxy.front_door import FrontDoor, FrontDoorConfig
from meshllm.proxy.tunnel_pool import TunnelOpener
from tests.core.builders import a_spec

WITHIN_S = 30.0
NODE = NodeId("a" * 64)
TINY = ModelId("tiny")
CHAT = "/v1/chat/completions"


# -- views ---------------------------------------------------------------------------------------------


def a_model(
    name: str = "tiny", *, socket: Path | str | None = None, state: EngineState = EngineState.READY,
    spec: ModelSpec | None = None, slots: int = 2, key: str = "engine-key", **more: Any,
) -> LocalModel:  # fmt: skip
    """Return a model; with a socket it has an endpoint there."""
    endpoint = EngineEndpoint(socket_path=str(socket), key=key) if socket is not None else None
    facts: dict[str, Any] = {"wanted": state is not EngineState.STOPPED, "context_tokens": 2048} | more
    return LocalModel(
        id=ModelId(name), spec=spec or a_spec(name), state=state, endpoint=endpoint, slots=slots, **facts
    )  # fmt: skip


def a_view(
    *models: LocalModel, epoch: int = 1, default: str | None = None, aliases: Mapping[str, str] | None = None,
    leaving: bool = False, replicas: tuple[Replica, ...] = (), node: NodeId = NODE, cold: tuple[ColdModel, ...] = (),
    **facts: Any,
) -> MeshView:  # fmt: skip
    """Return the view of a node that has those models; the first is the default. `facts` are other fields."""
    me = Announcement(node=node, name="n1", incarnation=1, version=1, role=Role.HOST, resources=None)
    elsewhere: dict[ModelId, tuple[Replica, ...]] = {}
    for replica in replicas:
        elsewhere[replica.served.model] = (*elsewhere.get(replica.served.model, ()), replica)
    names = {alias: [ModelId(model)] for alias, model in (aliases or {}).items()}
    first = models[0].id if models else None
    return MeshView(
        epoch=epoch, at_s=0.0, me=me, groups=MappingProxyType({}),
        local=MappingProxyType({model.id: model for model in models}),
        names=NameIndex([*(model.id for model in models), *elsewhere, *(one.model for one in cold)], names),
        replicas=MappingProxyType(elsewhere), cold=MappingProxyType({one.model: one for one in cold}),
        default_model=ModelId(default) if default is not None else first, leaving=leaving,
        **({"has_inventory": True, "members": MappingProxyType({})} | facts),
    )  # fmt: skip


FALLING_BACK = RoutingConfig(unknown_model=FALL_BACK)


class ViewsDouble:
    """Holds a view that a test replaces."""

    def __init__(self, view: MeshView) -> None:
        self.newest = view
        self._changed = asyncio.Event()

    def publish(self, *models: LocalModel, **facts: Any) -> None:
        """Replace the view by one of those models at the next epoch."""
        kept = {"routing": self.newest.routing}
        self.newest = a_view(*models, epoch=self.newest.epoch + 1, **(kept | facts))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self, epoch: int) -> MeshView:
        """Return the newest view as soon as its epoch differs."""
        while self.newest.epoch == epoch:
            await self._changed.wait()
        return self.newest


# -- engine --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a double was asked."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def whole(document: object, status: str = "200 OK", **headers: str) -> bytes:
    """Return a JSON answer."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\nServer: double\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{lines}\r\n".encode() + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: double\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Access-Control-Allow-Origin: *\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    """Return one event of a stream, as a chunk."""
    return chunk(b'data: {"n":%d}\n\n' % number)


STREAM_END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def answer_ok(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with the request's model, or with three events."""
    asked = request.json if request.body else {}
    if request.line.startswith("HEAD"):
        writer.write(whole({}).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    elif asked.get("stream"):
        writer.write(STREAM_HEAD + event(0) + event(1) + event(2) + STREAM_END)
    else:
        writer.write(whole({"model": asked.get("model"), "path": request.line.split()[1]}))
    await writer.drain()


@dataclass
class EngineDouble:
    """An engine, or a management app, on a Unix socket."""

    socket: Path
    answer: Answer = answer_ok
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the other side closes a connection."""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket))

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.socket.unlink(missing_ok=True)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                await self.answer(request, writer)
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            pass
        finally:
            self.open -= 1
            self.hung_up.set()
            self._tasks.discard(task)
            writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read one request with a length; None at the end."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(line, headers, body)


# -- client --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes

    @property
    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Return the error object."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        return dict(error)


class Client:
    """A connection to the front door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, *, is_head: bool = False) -> Reply:
        """Read one answer, whole."""
        async with asyncio.timeout(WITHIN_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
            status = int(line.split()[1])
            if is_head or status in {204, 304} or status < 200:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
            return Reply(status, headers, body, head)

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if size == 0:
                return body
            body += data[:-2]

    async def until(self, text: bytes) -> bytes:
        """Read until some bytes came; return everything up to them."""
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.readuntil(text)

    async def rest(self) -> bytes:
        """Read until the end of the connection."""
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read()

    async def close(self) -> None:
        """Close."""
        self.writer.close()
        try:
            async with asyncio.timeout(WITHIN_S):
                await self.writer.wait_closed()
        except ConnectionError:
            pass


def a_chat(**fields: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]} | fields


def a_post(body: object, path: str = CHAT, *lines: str, host: str = "localhost") -> bytes:
    """Return a POST with a JSON body, as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(data)}"))
    kind = (
        "" if any(line.lower().startswith("content-type") for line in lines) else "Content-Type: application/json\r\n"
    )
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{kind}{fields}\r\n".encode() + data


def a_get(path: str, *lines: str, host: str = "localhost", method: str = "GET") -> bytes:
    """Return a request without a body."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


class TransportDouble:
    """Writes down what is done with it."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.is_open = True
        self.is_read = True

    def write(self, data: bytes) -> None:
        """Write bytes."""
        self.done.append(bytes(data))

    def write_eof(self) -> None:
        """Half-close."""
        self.done.append("eof")

    def close(self) -> None:
        """Close."""
        self.done.append("close")
        self.is_open = False

    def abort(self) -> None:
        """Close at once."""
        self.done.append("abort")
        self.is_open = False

    def is_closing(self) -> bool:
        """Tell whether it closes."""
        return not self.is_open

    def is_reading(self) -> bool:
        """Tell whether it is read."""
        return self.is_read

    def pause_reading(self) -> None:
        """Stop reading."""
        self.done.append("pause")
        self.is_read = False

    def resume_reading(self) -> None:
        """Read again."""
        self.done.append("resume")
        self.is_read = True

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Ignore the marks."""

    def get_extra_info(self, name: str) -> object:
        """Return an address for every name."""
        return ("127.0.0.1", 1) if name != "socket" else None


# -- all of it -----------------------------------------------------------------------------------------


@dataclass
class House:
    """A front door with everything around it."""

    door: FrontDoor
    port: int
    views: ViewsDouble
    engine: EngineDouble
    management: EngineDouble
    events: list[Event]
    _clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        """Open a connection."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes, *, is_head: bool = False) -> Reply:
        """Send a request over a connection of its own and return the answer."""
        client = await self.connect()
        await client.send(data)
        reply = await client.receive(is_head=is_head)
        await client.close()
        return reply

    async def chat(self, **fields: Any) -> Reply:
        """Ask the model something."""
        return await self.ask(a_post(a_chat(**fields)))

    async def is_well(self) -> bool:
        """Tell whether the next good request is served."""
        return (await self.chat()).status == 200

    async def close_clients(self) -> None:
        """Close what tests left open."""
        for client in self._clients:
            client.writer.transport.abort()


OpenHouse = Callable[..., Any]


@asynccontextmanager
async def a_house(
    answer: Answer = answer_ok, *, models: Callable[[Path], tuple[LocalModel, ...]] | None = None,
    tunnels: TunnelOpener | None = None, routing: RoutingConfig = DEFAULT, **config: Any,
) -> AsyncIterator[House]:  # fmt: skip
    """Open a front door before an engine double whose model is ready, unless `models` says otherwise."""
    folder = Path(tempfile.mkdtemp(prefix="door-"))
    engine = EngineDouble(folder / "engine.sock", answer)
    management = EngineDouble(folder / "api.sock")
    await engine.start()
    await management.start()
    present = models(engine.socket) if models else (a_model(socket=engine.socket),)
    views = ViewsDouble(a_view(*present, routing=RoutingRegister(node=routing)))
    events: list[Event] = []
    settings = replace(FrontDoorConfig(host="127.0.0.1", port=0, node=NODE), **config)
    door = FrontDoor(settings, views, events.append, management.socket, random.Random(1), tunnels)
    _, port = await door.start()
    house = House(door, port, views, engine, management, events)
    try:
        yield house
    finally:
        await house.close_clients()
        await door.close()
        await engine.stop()
        await management.stop()
        shutil.rmtree(folder)


async def until(condition: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    """Wait until a condition holds."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - conditions of the code under test have no events
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {within_s} s") from None
