"""What speaks for and against each candidate of a request: its load, what it has cached, how soon it would answer.

Owns the arithmetic that all strategies share. Decides the predicted time to the first token and the balance guard;
which number counts is the strategies' choice. Doesn't know sessions nor turns. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.loads import (
    BLANK,
    BYTES_PER_TOKEN,
    PREFILL_TOKENS_PER_S,
    SERVICE_S,
    EngineLoad,
    Loads,
)
from meshllm.core.routing.prefix_index import EngineKey, PrefixIndex, Prompt
from meshllm.core.routing_config import RoutingConfig

ANY_NODE = NodeId("")
"""The node of a candidate that stands for all engines of a model."""
HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine that a request could go to; or, where the model is still open, all engines of a model."""

    node: NodeId
    model: ModelId
    slots: int = 1
    busy: int = 0
    """Requests at the engine as announced: computed and queued."""
    mark: int = 0
    """Changes with each announcement of its node: the version of that, never 0 for another node."""
    life: str = ""
    """Changes when the engine starts anew, and has forgotten all prompts."""
    is_here: bool = False
    """This node's own: what it says is never old."""
    is_suspect: bool = False
    health: str = HEALTHY
    rtt_s: float = 0.0
    pressure: float = 0.0
    """Share of its memory that is taken, where that hinders it; 0 to 1."""
    quota_left: float = 1.0
    """Share of the tightest quota, 0 to 1."""

    key: EngineKey = field(init=False)
    name: str = field(init=False)
    """What tells candidates of one request apart: the node, or the model."""
    is_doubtful: bool = field(init=False)
    """It is not well, or suspected of being gone: asked after the others."""

    def __post_init__(self) -> None:
        """Make once what each request looks up."""
        object.__setattr__(self, "key", (self.node, self.model))
        object.__setattr__(self, "name", self.node or self.model)
        object.__setattr__(self, "is_doubtful", self.is_suspect or self.health != HEALTHY)

    def as_busy_as(self, busy: int) -> "Candidate":
        """Return the same engine with so many requests."""
        return self if busy == self.busy else replace(self, busy=busy)

    def with_quota(self, left: float, most_at_once: int) -> "Candidate":
        """Return the same engine with what is left of its model's quotas, of which so many may run at a time."""
        running = max(1.0 - self.busy / most_at_once, 0.0) if most_at_once else 1.0
        left = min(left, running)
        return self if left == self.quota_left else replace(self, quota_left=left)


class Rating(NamedTuple):
    """A candidate with what was found of it. A tuple, because one is made for each candidate of each request."""

    candidate: Candidate
    name: str
    load: float
    """Busy share of its slots or memory, plus requests that would wait for each slot."""
    hit_share: float
    """Of the prompt's bytes that it probably has cached, 0 to 1."""
    predicted_s: float
    """Until the first token."""
    first_byte_s: float | None
    """As seen lately."""
    wait_s: float
    """Predicted, in its queue."""
    recent: float
    """Requests sent there lately, for each slot."""
    is_over: bool
    """It got more than its share lately."""
    new_tokens: float
    """Of the prompt, that it would have to read."""
    score: float
    """The composite of cache, load and quota; higher is better."""


_new = tuple.__new__
"""Makes a rating of all its fields, in half the time that its own constructor takes."""


class _Typical(NamedTuple):
    """What engines of these candidates are like that were measured: what the others are taken for."""

    prefill_tokens_per_s: float
    service_s: float
    bytes_per_token: float


def rate(
    candidates: Sequence[Candidate], prompt: Prompt, config: RoutingConfig, *, loads: Loads, index: PrefixIndex,
    now_s: float,
) -> list[Rating]:  # fmt: skip
    """Return the rating of each candidate, in their order.

    One would answer after the round trip, the queue, and the reading of its own new tokens and of those before it;
    requests that the engine works on at the same time make reading slower, up to twice. One loop without calls that are
    in vain: twenty candidates take some forty microseconds.
    """
    of = loads.known.get
    known = [of(candidate.key, BLANK) for candidate in candidates]
    sent = [load.recent.weight_at(now_s) if load.recent.weight else 0.0 for load in known]
    bound = limits.BALANCE_FACTOR * sum(sent) / max(sum([candidate.slots for candidate in candidates]), 1)
    typical_speed, typical_service_s, typical_text = _typical(known)
    weights, checks_quotas, size_bytes = config.score_weights, config.checks_quotas, prompt.size_bytes
    looks_up = config.optimizes_cache and bool(prompt.blocks)
    found = []
    for candidate, load, recent in zip(candidates, known, sent, strict=True):
        slots = candidate.slots or 1
        if candidate.is_here or load is BLANK:
            in_flight = max(candidate.busy, load.sent)
        else:
            in_flight = load.in_flight(candidate.busy, candidate.mark)
        crowding = in_flight / slots
        busy, wait_s = crowding, 0.0
        if in_flight >= slots:
            busy, wait_s = 1.0, (in_flight - slots + 1) / slots * (load.service_s or typical_service_s)
        if candidate.pressure > busy:
            crowding = candidate.pressure + crowding - busy
        hit_share = 0.0
        if looks_up and (count := index.longest(candidate.key, candidate.life, prompt)):
            hit_share = prompt.bytes_to(count) / size_bytes * load.trust  # as far as such hopes came true there
        new_tokens = size_bytes * (1.0 - hit_share) / (load.bytes_per_token or typical_text)
        reading_s = (new_tokens * (1.0 + busy) + load.reading_tokens) / (load.prefill_tokens_per_s or typical_speed)
        score = weights.cache * hit_share + weights.quota * (candidate.quota_left if checks_quotas else 1.0)
        if crowding < 1.0:
            score += weights.load * (1.0 - crowding)
        rating = (
            candidate, candidate.name, crowding, hit_share, candidate.rtt_s + reading_s + wait_s,
            load.first_byte_s if now_s < load.seen_until_s else None, wait_s, recent / slots,
            recent > bound * slots + limits.BALANCE_SLACK, new_tokens,
            score * 0.5 if candidate.health == DEGRADED else score,
        )  # fmt: skip
        found.append(_new(Rating, rating))
    return found


def _typical(known: Sequence[EngineLoad]) -> _Typical:
    """Return the means of what was measured; guesses where nothing was."""
    speeds = [load.prefill_tokens_per_s for load in known if load.prefill_tokens_per_s]
    services = [load.service_s for load in known if load.service_s]
    texts = [load.bytes_per_token for load in known if load.bytes_per_token]
    return _Typical(
        sum(speeds) / len(speeds) if speeds else PREFILL_TOKENS_PER_S,
        sum(services) / len(services) if services else SERVICE_S,
        sum(texts) / len(texts) if texts else BYTES_PER_TOKEN,
    )
