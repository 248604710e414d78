"""Which way one request takes next, after what happened on the ways that it took before.

Owns the trail of a request: where it was, and why it came back. Decides the order of ways that are left and what a
request without one is told. Doesn't know tunnels nor HTTP; pure.

Invariants: no host twice, and at most `HOST_ATTEMPTS` of them; a prompt that was too long for one engine only goes to
engines with a larger context; retries are a small share of all requests, whatever dies.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from meshllm.core import limits
from meshllm.core.ids import NodeId


class Setback(StrEnum):
    """Why a way did not lead to an answer."""

    UNREACHABLE = "unreachable"  # no tunnel
    LOST = "lost"  # broke before the first byte
    ENGINE_LOST = "engine_lost"  # the host lives, its engine broke off
    STILL = "still"  # the host lives, nothing moves at its engine
    BUSY = "busy"
    NOT_READY = "not_ready"  # not hosting any more, draining, loading
    NOT_ADMITTED = "not_admitted"
    CONTEXT_TOO_LONG = "context_too_long"
    FAILED = "failed"  # it says so itself, in words of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way as far as a choice depends on it."""

    node: NodeId
    is_here: bool
    in_flight: int = 0
    """Requests at this node's own engine."""
    admitted: int = 0
    """This node's engine only: requests that may be in flight. A far end says itself when it is full."""
    context_tokens: int = 0
    """0 when unknown."""


@dataclass(slots=True)
class Trail:
    """What happened to one request so far."""

    setbacks: dict[NodeId, Setback] = field(default_factory=dict)
    contexts: dict[NodeId, int] = field(default_factory=dict)
    """The context, in tokens, of the engines that it was at."""
    context_over: int = 0
    """The prompt needs more than this many tokens."""
    words: dict[NodeId, object] = field(default_factory=dict)
    """What was the newest word of each of those nodes then."""
    at_s: dict[NodeId, float] = field(default_factory=dict)
    """When that was."""
    again: set[NodeId] = field(default_factory=set)
    """Nodes that could not be reached, and were given another chance: nothing had been sent to them."""
    most: int = limits.HOST_ATTEMPTS
    """Attempts that there may be."""

    @property
    def attempts(self) -> int:
        """Return how many hosts were asked or tried, one of them twice if need be."""
        return len(self.setbacks) + len(self.again)

    def note(
        self, node: NodeId, setback: Setback, context_tokens: int, word: object = None, now_s: float = 0.0
    ) -> None:  # fmt: skip
        """Remember that a way did not lead to an answer. `word` stands for what its node had said of itself."""
        self.setbacks[node] = setback
        self.contexts[node] = context_tokens
        self.words[node] = word
        self.at_s[node] = now_s
        if setback is Setback.CONTEXT_TOO_LONG:
            self.context_over = max(self.context_over, context_tokens)

    def forgive(self, node: NodeId, word: object, now_s: float = 0.0) -> None:
        """Forget that a node's engine was not there, if the node has said anything since: it may be back.

        Forget once, after a moment, that the node could not be reached: a connection may have been on its way.
        """
        setback = self.setbacks.get(node)
        if setback in _PASSING and self.words[node] != word:
            del self.setbacks[node]
        elif self._may_be_reached(node) and now_s - self.at_s[node] >= limits.UNREACHED_AGAIN_S:
            self.again.add(node)
            del self.setbacks[node]

    def _may_be_reached(self, node: NodeId) -> bool:
        is_alone = len(self.setbacks) < 2  # the only one that has the model: who asks hears of it at once
        is_over = self.attempts >= self.most or node in self.again
        return self.setbacks.get(node) is Setback.UNREACHABLE and not is_alone and not is_over

    @property
    def may_be_reached(self) -> bool:
        """Tell whether there is a host that will be tried once more in a moment."""
        return any(self._may_be_reached(node) for node in self.setbacks)

    def fits(self, context_tokens: int) -> bool:
        """Tell whether the prompt may fit into a context."""
        return context_tokens == 0 or context_tokens > self.context_over


_PASSING = frozenset({Setback.NOT_READY, Setback.ENGINE_LOST})
"""Setbacks of a host that lives: its engine is loaded or restarted, or somebody else's is."""
_FINAL = frozenset({Setback.BUSY, Setback.FAILED, Setback.CONTEXT_TOO_LONG})
_WORTH_KNOWING = (
    Setback.BUSY, Setback.NOT_READY, Setback.FAILED, Setback.LOST, Setback.UNREACHABLE, Setback.ENGINE_LOST,
    Setback.STILL, Setback.NOT_ADMITTED,
)  # fmt: skip
"""What a client can do something about, by coming back, comes first."""


def choose(
    ways: Iterable[Way], trail: Trail, out: Collection[NodeId] = (), most: int = limits.HOST_ATTEMPTS
) -> Way | None:
    """Return the way to take now, or None where none is left that was not taken.

    `ways` come best first. `out` are nodes to leave out; no more than `most` hosts are asked, nor than `HOST_ATTEMPTS`.
    """
    trail.most = min(most, limits.HOST_ATTEMPTS)
    if trail.attempts >= trail.most:
        return None
    for way in ways:
        is_open = way.node not in trail.setbacks and way.node not in out and trail.fits(way.context_tokens)
        if is_open and not (way.is_here and way.in_flight >= way.admitted):
            return way
    return None


def pause_s(retries: int, delay_s: float, luck: float) -> float:
    """Return how long to wait before a retry: the first comes at once, the next ones after 1, 2, ... delays.

    `luck`, from 0 to 1, spreads each by half of it to both sides.
    """
    return max(retries - 1, 0) * delay_s * (0.5 + luck)


@dataclass(slots=True)
class RetryBudget:
    """The retries that are under way at one front door."""

    under_way: int = 0

    def take(self, in_flight: int) -> bool:
        """Take one retry, told how many requests are in flight; tell whether there was one left."""
        if self.under_way >= max(limits.RETRIES_LEAST, limits.RETRIES_SHARE * in_flight):
            return False
        self.under_way += 1
        return True

    def give_back(self) -> None:
        """Count a retry as over, however it ended."""
        self.under_way -= 1


def verdict(trail: Trail) -> Setback:
    """Return what a request is told that has no way left: what is most worth knowing of its setbacks.

    That a prompt is too long is only the answer when nothing that it might fit into was merely busy or lost.
    """
    told = [
        setback
        for node, setback in trail.setbacks.items()
        if setback is not Setback.CONTEXT_TOO_LONG and trail.fits(trail.contexts[node])
    ]
    if not told:
        return Setback.CONTEXT_TOO_LONG if trail.context_over else Setback.UNREACHABLE
    return min(told, key=_WORTH_KNOWING.index)


def may_come_back(trail: Trail) -> bool:
    """Tell whether a request without a way is better kept waiting: a host may be back in a moment, or its engine."""
    is_passing = not _PASSING.isdisjoint(trail.setbacks.values()) or trail.may_be_reached
    return is_passing and verdict(trail) not in _FINAL
