"""How busy engines are and how quick they were, as one front door knows it.

Owns what this node sent to each engine and what came of it: requests on their way, prompts being read, speeds, waits.
Decides how many requests an engine has now, where its announcement is older than what was sent since. Doesn't know
prompts' contents nor strategies. Pure, with the time as an argument.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf

from meshllm.core import limits
from meshllm.core.routing.decay import Decayed
from meshllm.core.routing.prefix_index import EngineKey

BYTES_PER_TOKEN = 4.0
"""Of a prompt's text, before an engine's answers say better; real text has 2 to 6."""
PREFILL_TOKENS_PER_S = 500.0
"""Before any was measured. It matters against waits alone: among engines that nobody measured all are alike."""
SERVICE_S = 2.0
_KNOWN_WEIGHT = 0.05
"""Of an observation's weight: after four half-lives and a bit nothing is known any more."""
_SPEED_TOKENS = 32
"""Fewer new prompt tokens say nothing about an engine's speed."""


@dataclass(slots=True)
class EngineLoad:
    """What is known of one engine. Means stand beside what they are made of: they are read more often than made."""

    sent: int = 0
    """Requests of this front door that have not ended."""
    reading_tokens: float = 0.0
    """New prompt tokens of those of them that have no first byte yet."""
    mark: int = 0
    """Of the announcement that was last looked at."""
    sent_then: int = 0
    """What `sent` was when that came: it says so itself."""
    first_byte_s: float = 0.0
    """As seen lately, queue and round trip included; known until `seen_until_s`."""
    seen_until_s: float = -inf
    service_s: float = 0.0
    """For which a request occupies its slot; 0 until measured."""
    prefill_tokens_per_s: float = 0.0
    """At which prompts are read; 0 until measured."""
    bytes_per_token: float = 0.0
    """Of prompts; 0 until reported."""
    trust: float = 1.0
    """The share of expected cache hits that come true."""
    recent: Decayed = field(default_factory=Decayed)
    """Requests sent lately."""
    first_bytes: Decayed = field(default_factory=Decayed)
    services: Decayed = field(default_factory=Decayed)
    prefill: Decayed = field(default_factory=Decayed)
    """Tokens over seconds."""
    text: Decayed = field(default_factory=Decayed)
    """Bytes over tokens."""
    hits: Decayed = field(default_factory=Decayed)
    """Bytes that were cached over those that should have been."""

    def in_flight(self, announced: int, mark: int) -> int:
        """Return how many requests the engine has, told how many its newest announcement says.

        The announcement knows what was sent before it; what was sent since comes on top, what ended is off.
        """
        self.heard(mark)
        return max(self.sent, announced + self.sent - self.sent_then)

    def heard(self, mark: int) -> None:
        """Take note of when an announcement came; one that is known changes nothing."""
        if mark != self.mark:
            self.mark, self.sent_then = mark, self.sent

    def begin(self, new_tokens: float, mark: int, now_s: float) -> None:
        """Count a request that goes there, chosen by the announcement of that mark."""
        self.heard(mark)
        self.sent += 1
        self.reading_tokens += new_tokens
        self.recent.add(1.0, 1.0, now_s)

    def begun(self, new_tokens: float, waited_s: float, now_s: float) -> None:
        """Take the first byte of an answer, so long after its request."""
        self.reading_tokens = max(0.0, self.reading_tokens - new_tokens)
        self.first_bytes.add(waited_s, 1.0, now_s)
        self.first_byte_s = self.first_bytes.mean()
        self.seen_until_s = self.first_bytes.reaches_s(_KNOWN_WEIGHT)

    def gave_up(self, new_tokens: float) -> None:
        """Take note that a request ended without a first byte."""
        self.reading_tokens = max(0.0, self.reading_tokens - new_tokens)

    def end(self) -> None:
        """Count a request as over."""
        self.sent -= 1

    def served(self, seconds: float, now_s: float) -> None:
        """Take how long a request occupied its slot, its queue included."""
        self.services.add(seconds, 1.0, now_s)
        self.service_s = self.services.mean()

    def read(self, tokens: int, seconds: float, now_s: float) -> None:
        """Take a measured speed: new prompt tokens, and how long the engine read them."""
        if tokens >= _SPEED_TOKENS and seconds > 0:
            self.prefill.add(tokens, seconds, now_s)
            self.prefill_tokens_per_s = self.prefill.mean()

    def spelt(self, size_bytes: int, tokens: int, now_s: float) -> None:
        """Take how much text so many prompt tokens were."""
        self.text.add(size_bytes, tokens, now_s)
        self.bytes_per_token = self.text.mean()

    def hit(self, cached_bytes: float, expected_bytes: float, now_s: float) -> None:
        """Take how much of what should have been cached was."""
        self.hits.add(min(cached_bytes, expected_bytes), expected_bytes, now_s)
        self.trust = self.hits.mean()


BLANK = EngineLoad()
"""Of an engine that nothing was sent to. Only ever read."""


class Loads:
    """What is known of all engines that this front door sent something to."""

    def __init__(self, most: int = limits.ROUTED_ENGINES) -> None:
        """Start with nothing known."""
        self._most = most
        self.known: dict[EngineKey, EngineLoad] = {}
        """To look things up in; `opened` and `keep` alone change it."""

    def __len__(self) -> int:
        """Return how many engines are known."""
        return len(self.known)

    def of(self, key: EngineKey) -> EngineLoad | None:
        """Return what is known of an engine, or None."""
        return self.known.get(key)

    def opened(self, key: EngineKey) -> EngineLoad:
        """Return what is known of an engine that something is sent to, from now on kept."""
        known = self.known.get(key)
        if known is None:
            if len(self.known) >= self._most:
                self._drop()
            known = self.known[key] = EngineLoad()
        return known

    def keep(self, keys: Collection[EngineKey]) -> None:
        """Forget every engine but these, and those that still work for this front door."""
        for key in [key for key, load in self.known.items() if not load.sent and key not in keys]:
            del self.known[key]

    def _drop(self) -> None:
        """Forget the eighth of all idle engines that was used least lately."""
        idle = sorted((load.recent.at_s, key) for key, load in self.known.items() if not load.sent)
        for _, key in idle[: len(idle) // 8 + 1]:
            del self.known[key]
