"""Kept answers at other nodes: asked for where this one has none, and sent there once it was given one.

Owns the tunnels about answers that are under way, and their count. Decides when one is over: a lookup after a fraction
of a second, a send after some. Doesn't know whose an answer is nor who is worth asking: `core.caches.owners` does.

Invariants: a lookup costs a request its deadline at most, whatever the owner does; a send costs it nothing.
"""

import asyncio
import logging
from time import monotonic
from typing import cast

from meshllm.core.cache_limits import (
    COMPLETION_LOOKUP_S,
    COMPLETION_LOOKUPS,
    COMPLETION_SEND_S,
    COMPLETION_SENDS,
    COMPLETION_SHARED_BYTES,
)
from meshllm.core.caches.completions import Key, told_by_digest
from meshllm.core.caches.owners import OwnerStanding, owner_of, owners
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.view import MeshView
from meshllm.proxy.targets import Views
from meshllm.proxy.tunnel_pool import TunnelOpener, refusal_of
from meshllm.wire.kept_asks import KeptAsk
from meshllm.wire.tunnel_frames import TunnelHead

log = logging.getLogger(__name__)


class _Said(asyncio.Protocol):
    """The near end of a tunnel about one answer: all that comes back, or why nothing does."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > COMPLETION_SHARED_BYTES:
            self._pieces.clear()
            self._end(ConnectionError("more than an answer came"))
            self.hang_up()

    def eof_received(self) -> bool:
        self._end(b"".join(self._pieces))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(exc or ConnectionError("the tunnel was closed"))

    def _end(self, said: bytes | Exception) -> None:
        if not self.whole.done():
            self.whole.set_result(said)

    def hang_up(self) -> None:
        """Break off what is not over."""
        if self._transport is not None:
            self._transport.abort()


class OwnerTier:
    """The answers that lie at other nodes, as one front door reaches them."""

    def __init__(self, views: Views, node: NodeId, opener: TunnelOpener) -> None:
        """Reach other nodes through `opener`; `node` is this one."""
        self._views = views
        self._node = node
        self._opener = opener
        self._standing = OwnerStanding()
        self._view: MeshView | None = None
        self._owners: tuple[NodeId, ...] = ()
        self._looking = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._hits = self._misses = self._failures = self._sent = self._unsent = 0

    def asked_of(self, key: Key) -> NodeId | None:
        """Return the node that is worth asking for an answer now; None where there is none, or this node owns it."""
        owner = self._owner(key)
        if owner is None:
            return None
        return owner if self._standing.is_worth_asking(self._views.newest, owner, monotonic()) else None

    async def look(self, owner: NodeId, key: Key, request_id: str) -> bytes | None:
        """Return the answer that an owner keeps; None where it has none, does not say so in time, or many are asked."""
        if self._looking >= COMPLETION_LOOKUPS:
            return None
        self._looking += 1
        try:
            said = await self._exchange(owner, _head(key, request_id, COMPLETION_LOOKUP_S), COMPLETION_LOOKUP_S)
        finally:
            self._looking -= 1
        answer = None if isinstance(said, Exception) else told_by_digest(key[2], said)
        self._hits += answer is not None
        self._misses += answer is None and not self._is_failure(said)
        return answer

    def send(self, key: Key, answer: bytes) -> None:
        """Have an answer kept by its owner too, if that is another node, which is there: soon, or not at all."""
        owner = self._owner(key)
        if owner is None:
            return
        is_heard = self._standing.is_heard(self._views.newest, owner, monotonic())
        if not is_heard or len(answer) > COMPLETION_SHARED_BYTES or len(self._sending) >= COMPLETION_SENDS:
            self._unsent += 1
            return
        task = asyncio.get_running_loop().create_task(self._send(owner, key, answer), name=f"keep:{short(owner)}")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """End what is under way."""
        sending = tuple(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    def counters(self) -> dict[str, float]:
        """Return what was counted since the start, by name."""
        return {
            "completion_cache_owner_hits": self._hits, "completion_cache_owner_misses": self._misses,
            "completion_cache_owner_failures": self._failures, "completion_cache_sent": self._sent,
            "completion_cache_unsent": self._unsent,
        }  # fmt: skip

    # -- inside ----------------------------------------------------------------------------------------

    def _owner(self, key: Key) -> NodeId | None:
        """Return the other node that an answer belongs to; None where it is this one, or nobody."""
        view = self._views.newest
        if not view.caches.config.shares_completions:
            return None
        if view is not self._view:
            self._view, self._owners = view, owners(view)
            self._standing.keep(self._owners)
        owner = owner_of(key, self._owners)
        return None if owner == self._node else owner

    async def _send(self, owner: NodeId, key: Key, answer: bytes) -> None:
        head = _head(key, "", COMPLETION_SEND_S, size_bytes=len(answer))
        said = await self._exchange(owner, head, COMPLETION_SEND_S, answer)
        if isinstance(said, Exception):
            self._unsent += 1
            log.debug("an answer was not taken node=%s reason=%s", short(owner), said)
        else:
            self._sent += 1

    async def _exchange(self, owner: NodeId, head: TunnelHead, within_s: float, data: bytes = b"") -> bytes | Exception:
        """Return what comes back through a tunnel in time, or why nothing does; note whether the owner is there."""
        user, said = _Said(), None
        try:
            async with asyncio.timeout(within_s):
                transport = await self._opener.open_tunnel(owner, head, user)
                if data:
                    transport.write(data)
                transport.write_eof()
                said = await user.whole
        except OSError as error:
            said = error
        finally:
            user.hang_up()
        if self._is_failure(said):
            self._failures += 1
            self._standing.failed(owner, monotonic())
        else:
            self._standing.answered(owner)
        return said

    @staticmethod
    def _is_failure(said: bytes | Exception) -> bool:
        """Tell whether an owner was not heard: a refusal is an answer."""
        return isinstance(said, Exception) and refusal_of(said) is None


def _head(key: Key, request_id: str, within_s: float, size_bytes: int = 0) -> TunnelHead:
    model, recipe, digest = key
    ask = KeptAsk(recipe=recipe, digest=digest, keeps=bool(size_bytes), size_bytes=size_bytes)
    return TunnelHead(request_id=request_id, model=ModelId(model), deadline_s=within_s, kept=ask)
