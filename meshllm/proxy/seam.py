"""Where two engines' words meet: a stop sequence that began in the first one's words and ends in the other's.

Owns the look at the first words behind a seam. Decides when the text ends there, which neither engine can know.
Doesn't know engines, nor stop sequences that lie on one side alone: those are the engine's to find; pure.
"""

from collections.abc import Sequence


class Seam:
    """The place behind a text that was said already."""

    __slots__ = ("_held", "_rests", "has_stopped")

    def __init__(self, stops: Sequence[str], said: str) -> None:
        """Look for what is missing of every stop sequence with which `said` may end."""
        self._rests = [
            stop[size:] for stop in stops for size in range(1, len(stop)) if said.endswith(stop[:size])
        ]  # fmt: skip
        self._held = ""
        self.has_stopped = False
        """A stop sequence is complete: nothing behind the seam belongs to the text."""

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """Return what of the next words can be told now. The last ones are not held back."""
        if self.has_stopped:
            return ""
        if not self._rests:
            return text
        held = self._held + text
        if any(held.startswith(rest) for rest in self._rests):
            self.has_stopped = True
            return ""
        if not is_last and any(rest.startswith(held) for rest in self._rests):
            self._held = held
            return ""
        self._rests, self._held = [], ""
        return held
