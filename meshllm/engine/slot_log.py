"""What an engine's own log says of each slot: how much of the prompts there was found cached, and how much computed.

Owns the forms of three lines of llama.cpp's server. Decides nothing. Doesn't know processes: it is fed lines. The sums
of a whole engine come from its counters; a slot's are only in its log, and lines that are lost are not counted.
"""

import re
from collections.abc import Iterable

from meshllm.core.cache_use import SlotUse

_TOOK = re.compile(r"\bid +(\d+) \| task (\d+) \| +(prompt eval|eval) time = .*?/ +(\d+) tokens")
_RELEASED = re.compile(r"\brelease: id +(\d+) \| task (\d+) \| stop processing: n_tokens = (\d+)")


class SlotLog:
    """The slots of one engine, by its log."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._uses: dict[int, SlotUse] = {}
        self._open: dict[int, tuple[str, dict[str, int]]] = {}
        """Of each slot the task that ends, and the tokens that it computed, by kind."""

    def feed(self, lines: Iterable[str]) -> None:
        """Take further lines, oldest first."""
        for line in lines:
            if " | task " not in line:
                continue
            if took := _TOOK.search(line):
                slot, task, kind, tokens = int(took[1]), took[2], took[3], int(took[4])
                known = self._open.get(slot)
                counts = known[1] if known is not None and known[0] == task else {}
                self._open[slot] = (task, {**counts, kind: tokens})
            elif released := _RELEASED.search(line):
                self._close(int(released[1]), released[2], int(released[3]))

    def _close(self, slot: int, task: str, kept: int) -> None:
        """Count a task that has ended: what its slot holds was cached, computed or made, the last token aside."""
        known_task, counts = self._open.pop(slot, ("", {}))
        use = self._uses.get(slot, SlotUse(slot=slot))
        computed, made = counts.get("prompt eval", 0), counts.get("eval", 0)
        is_whole = known_task == task and "prompt eval" in counts
        cached = max(kept - max(made - 1, 0) - computed, 0) if is_whole else 0
        self._uses[slot] = SlotUse(
            slot=slot, kept_tokens=kept, hit_tokens=use.hit_tokens + cached,
            miss_tokens=use.miss_tokens + (computed if is_whole else 0),
        )  # fmt: skip

    @property
    def uses(self) -> tuple[SlotUse, ...]:
        """Return the slots that were used, in their order."""
        return tuple(self._uses[slot] for slot in sorted(self._uses))
