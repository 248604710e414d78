"""What the prompt cache of one engine did, read now and then while it is used.

Owns the last reading, and where each number comes from: tokens from the engine's counters, bytes from the growth of its
process, slots from its log. Decides when there is nothing to read. Doesn't know what follows from it.
"""

import re
import time
from collections.abc import Callable

from meshllm.core.cache_use import NOTHING_READ, CacheReading
from meshllm.core.engines import EngineEndpoint
from meshllm.engine import health
from meshllm.engine.output import LogRing
from meshllm.engine.slot_log import SlotLog
from meshllm.engine.usage import Usage

_HITS, _MISSES = "llamacpp:prompt_tokens_cached_total", "llamacpp:prompt_tokens_total"
_SERIES = re.compile(rf"^({_HITS}|{_MISSES})(?:\{{[^}}]*\}})? +([0-9.eE+]+)\s*$", re.MULTILINE)


class CacheReader:
    """Reads one engine, from when it is ready on."""

    def __init__(self, endpoint: EngineEndpoint, log: LogRing, usage: Callable[[], Usage | None]) -> None:
        """Take what its process has now as what it has without a cache."""
        self._endpoint = endpoint
        self._log = log
        self._usage = usage
        self._empty_bytes = self._taken_bytes()
        self._slots = SlotLog()
        self._heard_s = time.monotonic()
        self._progress_s: float | None = None
        self._is_settled = False
        """Nothing has passed since the last reading: what the engine did after its answer is read as well."""
        self._last = NOTHING_READ

    async def news(self, progress_s: float, within_s: float) -> CacheReading | None:
        """Return a reading that differs from the last one; None too while nothing passes through the engine.

        Once nothing does, it reads once more: an engine says what became of a slot after its answer.
        `progress_s` is when something last did. An engine that gives no answer in `within_s` is asked again later.
        """
        is_quiet = progress_s == self._progress_s
        if is_quiet and self._is_settled:
            return None
        try:
            hits, misses = await counters(self._endpoint, within_s)
        except health.ProbeError:
            return None
        self._progress_s, self._is_settled = progress_s, is_quiet
        heard_s, self._heard_s = self._heard_s, time.monotonic()
        self._slots.feed(self._log.lines_since(heard_s))
        size_bytes = max(self._taken_bytes() - self._empty_bytes, 0)
        reading = CacheReading(hit_tokens=hits, miss_tokens=misses, size_bytes=size_bytes, slots=self._slots.uses)
        if reading == self._last:
            return None
        self._last = reading
        return reading

    def _taken_bytes(self) -> int:
        usage = self._usage()
        return usage.anonymous_bytes if usage is not None else 0


async def counters(endpoint: EngineEndpoint, within_s: float) -> tuple[int | None, int | None]:
    """Return (prompt tokens found cached, prompt tokens computed) since an engine's start. Raises ProbeError.

    None for what it does not count: not every version does.
    """
    text = await health.text(endpoint, "/metrics", within_s)
    found = {match[1]: int(float(match[2])) for match in _SERIES.finditer(text)}
    return found.get(_HITS), found.get(_MISSES)
