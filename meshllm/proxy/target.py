"""Where requests go, prepared once for a view; and what one request met on its way there.

Owns the two shapes between routing and forwarding. Decides nothing. Doesn't know how a target is made (`targets`) or
chosen (`ways`).
"""

from dataclasses import dataclass, field
from time import monotonic

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.attempts import Setback, Trail
from meshllm.core.routing.priorities import Priority, engine_room, room
from meshllm.core.routing.ratings import Candidate
from meshllm.proxy.openai import Problem
from meshllm.proxy.pool import Pool
from meshllm.proxy.traffic import ModelTraffic


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests for one model go, with everything that does not change from one to the next."""

    model: ModelId
    node: NodeId
    pool: Pool
    traffic: ModelTraffic
    admitted: int
    """Requests that may be in flight at once."""
    at_once: int
    """Requests that may be in flight for the straight lane to take it; 0 where the way of each has to be chosen."""
    context_tokens: int
    """Context of the engine; 0 when unknown."""
    unasked_bytes: int
    """A body up to this certainly fits into the context, at whichever host, or that is not known."""
    engine_lines: bytes
    """The last fields for the engine: its key, and the name of the request's id."""
    client_lines: bytes
    """Fields for the client: who answered and why."""
    answer_lines: bytes
    """The same as they follow the request's id in an answer of the first attempt."""
    slots: int = 1
    peer: NodeId | None = None
    """The node, where that is another one."""
    word: object = None
    """Stands for the newest that the node had said of itself."""
    is_fallback: bool = False
    """Stands in for a name that nothing has."""
    candidate: Candidate | None = None
    """What a choice among several is told; None where it is never made."""
    reason_line: bytes = b""
    """The part of `client_lines` that says why it goes there."""
    is_metered: bool = False
    """Its model has quotas: each request is looked at before it goes."""
    is_shadowed: bool = False
    """Some of its requests are copied to another model."""
    recipe: str = ""
    """What answers there depend on beside the request; empty where it is not known, or does not matter."""
    others: "tuple[Target, ...]" = ()
    """Where the same requests may go too, in order; only the first of them all has them."""

    def room(self, priority: Priority) -> int:
        """Return how many requests may be in flight for one more to come in; a far end decides that itself."""
        return room(priority, self.slots, self.admitted) if self.peer is None else self.admitted

    def engine_room(self, priority: Priority) -> int:
        """Return how many requests may be at the engine for one more to go there; few where priorities are minded."""
        whole = self.room(priority)
        return engine_room(whole, self.slots) if self.peer is None and self.traffic.is_minding else whole


@dataclass(slots=True)
class Trip:
    """What a request went through that did not get its answer on the first way."""

    trail: Trail = field(default_factory=Trail)
    problems: dict[Setback, Problem] = field(default_factory=dict)
    """What was said last, by kind."""

    def note(self, target: Target, setback: Setback, problem: Problem | None = None) -> None:
        """Remember that a target did not lead to an answer, and what it said."""
        self.trail.note(target.node, setback, target.context_tokens, target.word, monotonic())
        if problem is not None:
            self.problems[setback] = problem
