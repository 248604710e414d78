"""Which beginning of a prompt an engine has cached already, as far as a front door can know.

Owns the blocks of prompts that went to each engine, newest last. Decides how much of a prompt an engine probably has,
and how much it keeps at all, learnt from what its answers report. Doesn't know loads nor strategies. Pure.

A block's hash covers everything before it, so equal hashes mean equal beginnings, and an engine that has a block has
all blocks before it: the longest match is found by bisection. Engines forget what was used least lately, so one block
that turns out to be forgotten says that everything older is gone too.
"""

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId

EngineKey = tuple[NodeId, ModelId]
"""One model at one node."""

_HASH_BYTES = 8
_STEPS = ((256, 4 * limits.KIB), (1024, 64 * limits.KIB), (4096, limits.PREFIX_BYTES))
"""Blocks of so many bytes up to so many bytes of the prompt: short prompts need finer ones than long ones."""
_MISSED_SHARE = 0.5
"""An engine that reports less than this share of what was expected has forgotten it."""
_GROWTH = 1.02
_ATTRIBUTION = re.compile(r"\A\s*x-[a-z0-9-]*(?:billing|attribution)[a-z0-9-]*:[^\n]*\n?", flags=re.IGNORECASE)


def _ends() -> tuple[int, ...]:
    ends, at = [], 0
    for step, until in _STEPS:
        while at < until:
            at += step
            ends.append(at)
    return tuple(ends)


_ENDS = _ends()
"""Where blocks end, in bytes from the beginning: the same for every prompt."""
_SIZES = tuple(end - start for start, end in zip((0, *_ENDS), _ENDS, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as far as caches are concerned."""

    blocks: tuple[int, ...]
    """Hashes of the beginnings that end at each whole block."""
    size_bytes: int
    """Of all its text."""

    def bytes_to(self, count: int) -> int:
        """Return how many bytes the first so many blocks are."""
        return _ENDS[count - 1] if count else 0


NO_PROMPT = Prompt(blocks=(), size_bytes=0)


def without_attribution(text: str) -> str:
    """Return a system text without the line that a client changes at every call, for billing or attribution."""
    found = _ATTRIBUTION.match(text)
    return text[found.end() :] if found else text


def prompt_of(parts: Iterable[tuple[str, str]]) -> Prompt:
    """Return the prompt that (role, text) parts make, in the order in which an engine's template puts them.

    The attribution lines of system texts are left out. Costs less than a millisecond for 300 KB.
    """
    pieces, kept, size = [], 0, 0
    for role, raw in parts:
        text = without_attribution(raw) if role in {"system", "developer"} else raw
        size += len(text)
        if kept < limits.PREFIX_BYTES:
            pieces.append(f"{role}\x1f{text[: limits.PREFIX_BYTES]}\x1e")
            kept += len(pieces[-1])
    data = "".join(pieces).encode("utf-8", "surrogatepass")
    return Prompt(blocks=_hashes(data), size_bytes=max(size, len(data)))


def _hashes(data: bytes) -> tuple[int, ...]:
    """Return the hashes of all beginnings of the data that end at a block's end."""
    running, whole, at, found = blake2b(digest_size=_HASH_BYTES), memoryview(data), 0, []
    for end in _ENDS[: bisect_right(_ENDS, len(data))]:
        running.update(whole[at:end])
        found.append(int.from_bytes(running.copy().digest(), "big"))
        at = end
    return tuple(found)


class Expectation(NamedTuple):
    """What an engine should have cached of a request's prompt, to be compared with what it reports."""

    stamp: int
    """Names the request at its engine."""
    size_bytes: int
    """0 when nothing is expected, or when it is not sure enough for a lesson."""
    last_use: int
    """When that was used last, as the stamp of a request."""


@dataclass(slots=True)
class _Engine:
    life: str
    blocks: OrderedDict[int, int] = field(default_factory=OrderedDict)
    """Hash to stamp x 2 ** 13 + size in bytes; the least lately used first. One number: there are many."""
    size_bytes: int = 0
    capacity_bytes: float = limits.PREFIX_ENGINE_BYTES
    stamps: int = 0
    unanswered: set[int] = field(default_factory=set)
    """Stamps of requests on their way: what they touch may not be cached yet."""


_SIZE_BITS = 13
_SIZE_MASK = (1 << _SIZE_BITS) - 1


class PrefixIndex:
    """The prompts that engines have seen."""

    def __init__(self, most_blocks: int = limits.PREFIX_BLOCKS) -> None:
        """Start with nothing seen."""
        self._engines: dict[EngineKey, _Engine] = {}
        self._most_blocks = most_blocks
        self._count = 0

    def __len__(self) -> int:
        """Return how many blocks are remembered."""
        return self._count

    def longest(self, key: EngineKey, life: str, prompt: Prompt) -> int:
        """Return how many blocks of a prompt an engine has, if it is still the one of that life."""
        engine = self._engines.get(key)
        if engine is None or engine.life != life or not prompt.blocks or prompt.blocks[0] not in engine.blocks:
            return 0
        known, blocks = engine.blocks, prompt.blocks
        low, high = 1, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            if blocks[middle - 1] in known:
                low = middle
            else:
                high = middle - 1
        return low

    def sent(self, key: EngineKey, life: str, prompt: Prompt) -> Expectation:
        """Remember that an engine got a prompt; return what it should have of it. A new life has forgotten all."""
        engine = self._engines.get(key)
        if engine is None or engine.life != life:
            self._forget(key)
            engine = self._engines[key] = _Engine(life)
        found = self.longest(key, life, prompt)
        last_use = engine.blocks[prompt.blocks[found - 1]] >> _SIZE_BITS if found else 0
        is_sure = found and last_use not in engine.unanswered
        engine.stamps += 1
        engine.unanswered.add(engine.stamps)
        self._touch(engine, prompt)
        self._bound()
        return Expectation(engine.stamps, prompt.bytes_to(found) if is_sure else 0, last_use)

    def answered(self, key: EngineKey, life: str, expected: Expectation, cached_bytes: float | None) -> None:
        """Take what an answer reports of its prompt; None where it reports nothing, or never came."""
        engine = self._engines.get(key)
        if engine is None or engine.life != life:
            return
        engine.unanswered.discard(expected.stamp)
        if cached_bytes is None or not expected.size_bytes:
            return
        if cached_bytes >= _MISSED_SHARE * expected.size_bytes:
            engine.capacity_bytes = min(engine.capacity_bytes * _GROWTH, limits.PREFIX_ENGINE_BYTES)
            return
        while engine.blocks and next(iter(engine.blocks.values())) >> _SIZE_BITS <= expected.last_use:
            self._drop_oldest(engine)
        engine.capacity_bytes = max(engine.size_bytes, limits.PREFIX_ENGINE_LEAST_BYTES)

    def keep(self, keys: Collection[EngineKey]) -> None:
        """Forget every engine but these."""
        for key in [key for key in self._engines if key not in keys]:
            self._forget(key)

    def _forget(self, key: EngineKey) -> None:
        engine = self._engines.pop(key, None)
        if engine is not None:
            self._count -= len(engine.blocks)

    def _touch(self, engine: _Engine, prompt: Prompt) -> None:
        """Make a prompt the newest, its first block the newest of all: the last blocks are forgotten first."""
        blocks, stamp = engine.blocks, engine.stamps << _SIZE_BITS
        for block, size_bytes in zip(reversed(prompt.blocks), _SIZES[len(prompt.blocks) - 1 :: -1], strict=False):
            if block in blocks:
                blocks.move_to_end(block)
            else:
                engine.size_bytes += size_bytes
                self._count += 1
            blocks[block] = stamp | size_bytes
        while engine.size_bytes > engine.capacity_bytes and len(blocks) > 1:
            self._drop_oldest(engine)

    def _drop_oldest(self, engine: _Engine) -> None:
        _, entry = engine.blocks.popitem(last=False)
        engine.size_bytes -= entry & _SIZE_MASK
        self._count -= 1

    def _bound(self) -> None:
        """Keep the memory of all engines together bounded: the one with most blocks gives some up."""
        while self._count > self._most_blocks:
            engine = max(self._engines.values(), key=lambda engine: len(engine.blocks))
            for _ in range(max(1, len(engine.blocks) // 8)):
                self._drop_oldest(engine)
