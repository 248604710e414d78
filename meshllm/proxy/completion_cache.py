"""Kept completions at the front door: which requests are looked up, how they are answered, what is kept of answers.

Owns the memory of answers and the way from a request to its keys. Decides what a client may keep to itself, and that
this node is asked before the owner of an answer. Doesn't know which requests leave nothing to chance nor what is
forgotten first: `core.caches.completions` does; nor how owners are reached: `owner_tier` does.

Invariant: what goes wrong here costs a hit, never an answer.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from meshllm.core.cache_limits import COMPLETION_BODY_BYTES
from meshllm.core.caches.completions import Completions, Key, events_told_again, request_digest, told_again
from meshllm.core.ids import NodeId
from meshllm.core.limits import MIB
from meshllm.proxy.forward import Exchange
from meshllm.proxy.framing import AnswerHead, payload_of
from meshllm.proxy.intake import Intake
from meshllm.proxy.kept_for_others import KeptForOthers
from meshllm.proxy.owner_tier import OwnerTier
from meshllm.proxy.peek import Peek
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Views, visible

_PATHS = frozenset({b"/v1/chat/completions", b"/v1/completions"})
_PIECES_TIMES = 8
"""A stream takes so many times the bytes on its way that it takes when it is kept, at most."""


class Answerable(Protocol):
    """A client's connection, as far as a whole answer needs it."""

    def answer(self, data: bytes, status: int, *, keeps_alive: bool) -> None:
        """Write a whole answer that the house itself gives."""


class Keeper:
    """One request whose answer may be kept; takes the answer as it passes."""

    __slots__ = (
        "_cache", "_digest", "_found", "_is_chunked", "_is_stream", "_most_bytes", "_owner", "_pieces", "_size_bytes",
    )  # fmt: skip

    def __init__(self, cache: "CompletionCache", digest: bytes, found: Target, *, is_stream: bool) -> None:
        """Keep in `cache`, by what the request is the same as others; `found` and its others may answer it."""
        self._cache = cache
        self._digest = digest
        self._found = found
        self._is_stream = is_stream
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._most_bytes = cache.memory.answer_most_bytes * _PIECES_TIMES
        self._is_chunked = False
        self._owner: NodeId | None = None

    def tells(self, client: Answerable, intake: Intake, request_id: bytes) -> bool:
        """Answer the request from memory, if one of its hosts gave the answer before; tell whether that is done."""
        answer = self._cache.memory.find(*self._keys(_all(self._found)))
        if answer is not None:
            self._tell(client, intake, request_id, answer)
        return answer is not None

    @property
    def has_owner(self) -> bool:
        """Tell whether another node is worth asking for the answer that its best host would give."""
        self._owner = self._cache.tier.asked_of(self._keys(_all(self._found))[0])
        return self._owner is not None

    async def ask_owner(
        self, client: Answerable, exchange: Exchange, go_on: Callable[[Exchange, Target], None]
    ) -> None:  # fmt: skip
        """Answer the request from what its owner keeps; where that is nothing, or not said in time, let it go on."""
        key, owner = self._keys(_all(self._found))[0], self._owner
        answer = None
        if owner is not None:
            answer = await self._cache.tier.look(owner, key, exchange.request_id.decode("latin-1"))
        exchange.task = None
        if answer is None or owner is None:
            go_on(exchange, self._found)
            return
        self._cache.memory.keep(key, answer)
        self._tell(client, exchange.intake, exchange.request_id, answer, b"X-Cache-Owner: %b\r\n" % visible(owner))

    def _tell(self, client: Answerable, intake: Intake, request_id: bytes, answer: bytes, more: bytes = b"") -> None:
        kind = b"text/event-stream\r\nCache-Control: no-cache" if self._is_stream else b"application/json"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nX-Cache: hit\r\n" % (kind, len(answer))
        lines = b"%bX-Request-ID: %b\r\n%bX-Mesh-Model: %b\r\n" % (
            more, request_id, self._cache.own_lines, visible(self._found.model),
        )  # fmt: skip
        client.answer(head + lines + intake.answer_end + answer, 200, keeps_alive=intake.keeps_alive)

    def _keys(self, targets: Iterator[Target]) -> list[Key]:
        """Return where its answer lies, if one of these would give it."""
        return [(target.model, target.recipe, self._digest) for target in targets if target.recipe]

    def answered(self, target: Target, body: bytes) -> None:
        """Take a whole answer of that target."""
        is_good = not self._is_stream and len(body) <= self._most_bytes
        self._keep(target, told_again(body) if is_good else None)

    def piece(self, data: bytes, head: AnswerHead | None) -> None:
        """Take a piece of an answer, in the chunks that it came in; the first one with its head."""
        if head is not None:
            self._is_chunked = head.is_chunked
            self._is_stream = self._is_stream and head.is_event_stream and head.status == 200
        self._size_bytes += len(data)
        if self._size_bytes <= self._most_bytes:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    def ended(self, target: Target) -> None:
        """Take the end of a stream that came whole from that target."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._keep(
            target, events_told_again(payload_of(data) if self._is_chunked else data) if self._is_stream else None
        )

    def _keep(self, target: Target, answer: bytes | None) -> None:
        if answer is not None:
            for key in self._keys(iter((target,))):
                self._cache.memory.keep(key, answer)
                self._cache.tier.send(key, answer)


class CompletionCache:
    """What one front door keeps of answers, as long as its node's configuration says so."""

    def __init__(self, views: Views, own_lines: bytes, tier: OwnerTier) -> None:
        """Keep nothing until a view says so. `own_lines` are fields of an answer that say whose it is."""
        self._views = views
        self.own_lines = own_lines
        self.memory = Completions()
        self.tier = tier
        self.for_others = KeptForOthers(self)

    def sized(self) -> Completions:
        """Return the memory, as large as the newest view says."""
        config = self._views.newest.caches.config
        most_bytes = config.completions_mb * MIB if config.completions else 0
        if most_bytes != self.memory.most_bytes:
            self.memory.resize(most_bytes)
        return self.memory

    def keeper(self, found: Target, seen: Peek, intake: Intake) -> Keeper | None:
        """Return what looks a request up and keeps its answer; None for requests that are not looked up."""
        door = intake.inference
        may_be = (
            self.sized().most_bytes and door is not None and door.path in _PATHS and seen.may_cache and intake.may_cache
        )
        if door is None or not may_be or seen.is_compared or found.is_fallback:
            return None
        if len(seen.body) > COMPLETION_BODY_BYTES or not any(one.recipe for one in _all(found)):
            return None
        digest = request_digest(door.path, seen.document)
        return Keeper(self, digest, found, is_stream=seen.is_stream) if digest is not None else None

    def counters(self) -> dict[str, float]:
        """Return what was counted since the start, by name."""
        memory = self.memory
        own: dict[str, float] = {
            "completion_cache_hits": memory.hits, "completion_cache_misses": memory.misses,
            "completion_cache_evictions": memory.evictions,
        }  # fmt: skip
        return own | self.tier.counters() | self.for_others.counters()

    async def close(self) -> None:
        """End what is under way to and from other nodes."""
        self.for_others.abort()
        await self.tier.close()


def _all(found: Target) -> Iterator[Target]:
    """Return the targets that may answer, best first."""
    yield found
    yield from found.others
