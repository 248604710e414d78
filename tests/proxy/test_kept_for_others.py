"""Answers that a node keeps for others: what it takes from whom, and what it makes of what is none."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import cast

import pytest

from meshllm.core.cache_limits import COMPLETION_SHARED_BYTES, COMPLETION_TAKEN_AT_ONCE
from meshllm.core.caches.completions import Completions
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.core.rights import GUEST
from meshllm.proxy.kept_for_others import KeptForOthers
from meshllm.wire.kept_asks import KeptAsk
from meshllm.wire.tunnel_frames import TunnelFailure, TunnelHead, TunnelRefusal
from tests.core.caches.test_owners import RECIPE, SERVED

ANSWER = json.dumps({"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]}).encode()
TOLD = b'{"choices":[{"index":0,"message":{"content":"42"},"finish_reason":"stop"}],"cached":true}'
EVENTS = b"data: %b\n\ndata: [DONE]\n\n" % TOLD
WHOLE_DIGEST, STREAM_DIGEST = b"w" * 17, b"s" * 17


class OneMemory:
    """A front door's memory of answers."""

    def __init__(self) -> None:
        self.memory = Completions(most_bytes=4 * MIB)

    def sized(self) -> Completions:
        """Return it."""
        return self.memory


@dataclass
class FarDouble(asyncio.Transport):
    """The far end of a tunnel: notes what is written and how it ends."""

    written: list[bytes] = field(default_factory=list)
    end: str = ""

    def write(self, data: object) -> None:
        """Note bytes."""
        self.written.append(bytes(cast("bytes", data)))

    def close(self) -> None:
        """End in order."""
        self.end = self.end or "closed"

    def abort(self) -> None:
        """Break off."""
        self.end = self.end or "aborted"

    def fail(self, failure: TunnelFailure) -> None:
        """Break off with a reason."""
        self.end = self.end or failure.message


class Owner:
    """A node that keeps answers for others."""

    def __init__(self) -> None:
        self.own = OneMemory()
        self.kept = KeptForOthers(self.own)

    def ask(self, digest: bytes = WHOLE_DIGEST, size_bytes: int = 0) -> asyncio.Protocol | TunnelRefusal:
        """Open a tunnel about an answer."""
        ask = KeptAsk(recipe=RECIPE, digest=digest, keeps=bool(size_bytes), size_bytes=size_bytes)
        head = TunnelHead(request_id="r", model=ModelId("tiny"), deadline_s=1.0, kept=ask)
        return self.kept.take(SERVED, GUEST, head)

    def look(self, digest: bytes = WHOLE_DIGEST) -> bytes | str:
        """Return what is told, or the code of the refusal."""
        protocol, far = self.ask(digest), FarDouble()
        if isinstance(protocol, TunnelRefusal):
            return protocol.code
        protocol.connection_made(far)
        assert far.end == "closed"
        return b"".join(far.written)

    def put(self, answer: bytes, digest: bytes = WHOLE_DIGEST, *, announced: int | None = None) -> str:
        """Leave an answer; return how that ended."""
        protocol, far = self.ask(digest, len(answer) if announced is None else announced), FarDouble()
        if isinstance(protocol, TunnelRefusal):
            return protocol.code
        protocol.connection_made(far)
        for start in range(0, len(answer), 1000):
            protocol.data_received(answer[start : start + 1000])
        if not protocol.eof_received():
            far.close()
        protocol.connection_lost(None)
        return far.end


@pytest.mark.rows("CAC-9")
async def test_an_answer_is_told_as_it_was_left() -> None:
    """To whoever asks for the same; one that nobody left is refused in a word."""
    owner = Owner()

    before = owner.look()
    ends = [owner.put(ANSWER), owner.put(EVENTS, STREAM_DIGEST)]

    assert before == "not_kept"
    assert ends == ["closed", "closed"]
    assert (owner.look(), owner.look(STREAM_DIGEST)) == (TOLD, EVENTS)
    assert owner.kept.counters() == {"completion_cache_given": 2, "completion_cache_taken": 2}
    assert (owner.own.memory.hits, owner.own.memory.misses) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "digest"),
    [
        (b"rubbish", WHOLE_DIGEST), (b"{}", WHOLE_DIGEST), (b'{"error":{"message":"no"}}', WHOLE_DIGEST),
        (ANSWER.replace(b'"stop"', b"null"), WHOLE_DIGEST), (EVENTS, WHOLE_DIGEST), (ANSWER, STREAM_DIGEST),
        (EVENTS.removesuffix(b"data: [DONE]\n\n"), STREAM_DIGEST), (b"[" * 200_000, WHOLE_DIGEST),
        (ANSWER[:-1] + b', "x": "\\ud800"}', WHOLE_DIGEST), (b"\xff\xfe" * 50, STREAM_DIGEST),
    ],
    ids=["rubbish", "nothing", "an error", "half", "a stream as whole", "whole as a stream", "no end", "deep",
         "half a character", "no text"],
)  # fmt: skip
async def test_what_is_no_answer_is_not_kept(answer: bytes, digest: bytes) -> None:
    """Who left it is told; the next good one is taken."""
    owner = Owner()

    assert "no whole answer" in owner.put(answer, digest)
    assert owner.look(digest) == "not_kept"
    assert owner.put(ANSWER) == "closed"


@pytest.mark.parametrize("off_by", [-1, 1, 1500])
async def test_an_answer_is_as_long_as_it_was_said_to_be(off_by: int) -> None:
    """Else nothing of it is kept."""
    owner, answer = Owner(), ANSWER + b" " * 2000

    end = owner.put(answer, announced=len(answer) - off_by)

    assert end in {"more came than was announced", "it is not as long as it was said to be"}
    assert len(owner.own.memory) == 0


async def test_what_comes_is_bounded_in_size_and_number() -> None:
    """Those that are over make room for others."""
    owner = Owner()
    assert owner.put(ANSWER, announced=COMPLETION_SHARED_BYTES + 1) == "too_large"

    coming = [owner.ask(size_bytes=10) for _ in range(COMPLETION_TAKEN_AT_ONCE)]
    busy = owner.put(ANSWER)
    protocols = [one for one in coming if isinstance(one, asyncio.Protocol)]
    protocols[0].connection_lost(None)

    assert len(protocols) == COMPLETION_TAKEN_AT_ONCE
    assert busy == "busy"
    assert owner.put(ANSWER) == "closed"


async def test_what_is_too_large_for_others_is_not_told() -> None:
    """It is there for this node's own clients."""
    owner = Owner()
    owner.own.memory.keep(("tiny", RECIPE, WHOLE_DIGEST), b"x" * (COMPLETION_SHARED_BYTES + 1))

    assert owner.look() == "not_kept"


async def test_what_still_comes_is_broken_off_in_the_end() -> None:
    """When the node leaves."""
    owner, far = Owner(), FarDouble()
    protocol = owner.ask(size_bytes=10)
    assert isinstance(protocol, asyncio.Protocol)
    protocol.connection_made(far)

    owner.kept.abort()
    protocol.connection_lost(None)

    assert far.end == "aborted"
    assert not owner.kept.coming
