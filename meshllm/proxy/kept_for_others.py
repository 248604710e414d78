"""Answers that this node keeps for others: told to who asks for one, taken from who was given one.

Owns the far ends of tunnels about answers. Decides when one that is coming is late or is none. Doesn't know who may
ask: `core.caches.owners` does; nor where answers lie: in the same memory as those of this node's own clients.

Invariant: nothing is kept that would not be told again had an engine just said it.
"""

import asyncio
from typing import Protocol, cast

from meshllm.core.cache_limits import COMPLETION_SEND_S, COMPLETION_SHARED_BYTES
from meshllm.core.caches.completions import Completions, Key, told_by_digest
from meshllm.core.caches.owners import Denial, may_look, may_put
from meshllm.core.rights import Rights
from meshllm.core.view import MeshView
from meshllm.wire.tunnel_frames import TunnelFailure, TunnelHead, TunnelRefusal

_WORDS = {
    Denial.NOT_ADMITTED: "this needs other rights", Denial.NOT_KEPT: "no such answer is kept here",
    Denial.TOO_LARGE: "the answer is larger than what is kept for others", Denial.BUSY: "many answers are coming",
}  # fmt: skip


class FarTransport(Protocol):
    """The far end of a tunnel."""

    def fail(self, failure: TunnelFailure) -> None:
        """Break off, with a reason."""


class _Told(asyncio.Protocol):
    """Tells one answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tunnel = cast("asyncio.Transport", transport)
        tunnel.write(self._answer)
        tunnel.close()


class _Coming(asyncio.Protocol):
    """Takes one answer."""

    def __init__(self, keeper: "KeptForOthers", key: Key, size_bytes: int) -> None:
        self._keeper = keeper
        self._key = key
        self._left_bytes = size_bytes
        self._pieces: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(COMPLETION_SEND_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._refuse("more came than was announced")
        else:
            self._pieces.append(data)

    def eof_received(self) -> bool:
        if self._left_bytes:
            self._refuse("it is not as long as it was said to be")
        elif not self._keeper.keep(self._key, b"".join(self._pieces)):
            self._refuse("it is no whole answer, or too large for this node")
        return False

    def _refuse(self, why: str) -> None:
        self._pieces.clear()
        if self._transport is not None:
            cast("FarTransport", self._transport).fail(TunnelFailure(code="not_kept", message=why))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._keeper.coming.discard(self)

    def abort(self) -> None:
        """Break off."""
        if self._transport is not None:
            self._transport.abort()


class Memory(Protocol):
    """Whose memory answers lie in."""

    def sized(self) -> Completions:
        """Return it, as large as it may be now."""


class KeptForOthers:
    """What one node keeps for others."""

    def __init__(self, memory: Memory) -> None:
        """Keep in the memory of the front door's own answers."""
        self._memory = memory
        self.coming: set[_Coming] = set()
        self._given = self._taken = 0

    def take(self, view: MeshView, rights: Rights, head: TunnelHead) -> asyncio.Protocol | TunnelRefusal:
        """Return who takes a tunnel about an answer, or why nobody does."""
        ask = head.kept
        if ask is None:
            return _refusal(Denial.NOT_KEPT)
        key: Key = (head.model, ask.recipe, ask.digest)
        if ask.keeps:
            denial = may_put(view, rights, key, ask.size_bytes, len(self.coming))
            if denial is not None:
                return _refusal(denial)
            coming = _Coming(self, key, ask.size_bytes)
            self.coming.add(coming)
            return coming
        denial = may_look(view, rights, key)
        answer = self._memory.sized().look(key) if denial is None else None
        if answer is None or len(answer) > COMPLETION_SHARED_BYTES:
            return _refusal(denial or Denial.NOT_KEPT)
        self._given += 1
        return _Told(answer)

    def keep(self, key: Key, answer: bytes) -> bool:
        """Keep an answer, if it is one in the form that its key asks for; tell whether that is done."""
        told = told_by_digest(key[2], answer)
        is_kept = told is not None and self._memory.sized().keep(key, told)
        self._taken += is_kept
        return is_kept

    def abort(self) -> None:
        """Break off what is still coming."""
        for one in tuple(self.coming):
            one.abort()

    def counters(self) -> dict[str, float]:
        """Return what was counted since the start, by name."""
        return {"completion_cache_given": self._given, "completion_cache_taken": self._taken}


def _refusal(denial: Denial) -> TunnelRefusal:
    return TunnelRefusal(code=denial, message=_WORDS[denial])
