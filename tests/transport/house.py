"""Whole nodes, as far as the transport goes: a key, a socket, peers, and a core that lets everybody in or nobody."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from meshllm.core import events as ev
from meshllm.core.credentials import RejectCode
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.transport.codes import CloseCode
from meshllm.transport.endpoint import Endpoint, EndpointSettings
from meshllm.transport.handshake import Credentials, Welcomed
from meshllm.transport.lines import Lines
from meshllm.transport.peers import Peers, PeersSettings, PeersUser
from meshllm.wire.tunnel_frames import TunnelHead
from tests.transport.builders import NOW_UNIX_S, Mesh, Node
from tests.transport.net import LOOPBACK, until

Kind = TypeVar("Kind")


def a_head(**changes) -> TunnelHead:
    """Return the head of a tunnel."""
    return TunnelHead(**{"request_id": "r1", "model": ModelId("tiny"), "deadline_s": 60.0, **changes})


def _as_certified(asked: ev.AdmissionAsked) -> Rights:
    held = asked.claim.certificate
    return OWN_MACHINE if held is None else held.rights


class House:
    """One node on loopback."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.events: list[Any] = []
        self.joined: list[tuple[Credentials, Welcomed]] = []
        self.wanted: list[str] = []
        self.handler: Any = None
        self.verdict: Callable[[ev.AdmissionAsked], Rights | None] = _as_certified
        """With which rights somebody comes in; None: not at all."""
        self.is_silent = False
        self.on_event: Callable[[Any], None] = lambda event: None
        """Called after each event."""
        self.endpoint: Endpoint
        self.peers: Peers
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self, *, token: Any = None, is_issuer: bool = True, **settings) -> None:
        """Open the socket."""
        mine = {key: settings.pop(key) for key in ("dial_timeout_s",) if key in settings}
        self.lines: Lines | None = settings.pop("lines", None)
        self.endpoint = await Endpoint.open(self.node.identity, LOOPBACK, 0, EndpointSettings(**settings))
        user = PeersUser(
            post=self.post, start_task=self.start_task, wanted=self.wanted.append,
            joined=lambda credentials, welcomed: self.joined.append((credentials, welcomed)),
            handler=self.serve, lines=self.lines,
        )  # fmt: skip
        named = PeersSettings(name="studio", allow_loopback=True, now_unix_s=lambda: NOW_UNIX_S, **mine)
        issuer = self.node.mesh.issuer if is_issuer else None
        self.peers = Peers(self.endpoint, self.node.credentials(token), user, named, issuer)

    async def close(self) -> None:
        """Leave."""
        self.peers.close(CloseCode.LEAVING, "the test is over")
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def post(self, event: Any) -> None:
        """Keep an event, and answer as a core would."""
        self.events.append(event)
        if isinstance(event, ev.AdmissionAsked):
            rights = self.verdict(event)
            if rights is None:
                self.peers.refuse(event.ticket, RejectCode.UNAUTHORIZED, is_silent=self.is_silent)
            else:
                self.peers.admit(event.ticket, rights, issues=event.claim.certificate is None)
        if isinstance(event, ev.HandshakeFailed):
            self.peers.refuse(event.ticket, event.code, is_silent=self.is_silent)
        self.on_event(event)

    def start_task(self, name: str, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def serve(self, peer: NodeId, rights: Rights, head: TunnelHead) -> Any:
        """Answer a tunnel as the test says."""
        return self.handler(peer, rights, head)

    @property
    def said(self) -> list[Any]:
        """Return the messages that came."""
        return [event.message for event in self.of(ev.MessageReceived)]

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def dial(self, other: "House") -> None:
        """Dial another node."""
        self.peers.dial(other.node.id, [other.endpoint.address])

    async def reach(self, other: "House") -> None:
        """Dial another node and wait until both know."""
        mine, theirs = len(self.of(ev.PeerConnected)), len(other.of(ev.PeerConnected))
        self.dial(other)
        await until(
            lambda: len(self.of(ev.PeerConnected)) > mine and len(other.of(ev.PeerConnected)) > theirs, "a connection"
        )

    async def refusal(self, other: "House") -> ev.DialFailed:
        """Dial another node and return why that failed."""
        known = len(self.of(ev.DialFailed))
        self.dial(other)
        await until(lambda: len(self.of(ev.DialFailed)) > known, "a failure")
        return self.of(ev.DialFailed)[-1]


@asynccontextmanager
async def houses(*nodes: Node, **settings) -> AsyncIterator[list[House]]:
    """Open nodes."""
    opened: list[House] = []
    try:
        for node in nodes:
            opened.append(House(node))
            await opened[-1].open(**settings)
        yield opened
    finally:
        for house in opened:
            await house.close()


@asynccontextmanager
async def two(**settings) -> AsyncIterator[tuple[House, House]]:
    """Open two members of a mesh that are connected."""
    mesh = Mesh()
    async with houses(mesh.member(), mesh.member(), **settings) as (near, far):
        await near.reach(far)
        yield near, far
