"""Which of several ways a request takes, and what it is told when none is left.

Owns the memory of which nodes failed lately, and the translation of what far ends say into setbacks. Decides nothing
by itself: `plan` asks in which order, `core.routing.attempts` chooses, `core.routing.ejection` says who is left out.
Doesn't wait nor connect; `pursuit` does.
"""

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import inf
from time import monotonic

from meshllm.core import limits
from meshllm.core.events import Event, PathFailed, RemoteDoubted
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.attempts import Setback, Trail, Way, choose, may_come_back, verdict
from meshllm.core.routing.ejection import Ejections
from meshllm.core.routing.first_byte import patience_s
from meshllm.core.routing.priorities import Priority
from meshllm.core.routing.routes import Wait
from meshllm.proxy import openai
from meshllm.proxy.engine_errors import context_message
from meshllm.proxy.forward import Exchange
from meshllm.proxy.openai import Problem
from meshllm.proxy.paths import InferenceDoor
from meshllm.proxy.peek import Peek, prompt_bytes, tokens_at_least
from meshllm.proxy.plan import Planner
from meshllm.proxy.target import Target
from meshllm.proxy.targets import Targets
from meshllm.proxy.tunnel_pool import STILL
from meshllm.wire.tunnel_frames import TunnelRefusal

_WORTH_ANOTHER = frozenset({429, 502, 503, 504})
_SETBACKS = {
    "busy": Setback.BUSY, "not_hosting": Setback.NOT_READY, "draining": Setback.NOT_READY,
    "loading": Setback.NOT_READY, "not_admitted": Setback.NOT_ADMITTED, "engine_lost": Setback.ENGINE_LOST,
    "context_too_long": Setback.CONTEXT_TOO_LONG, STILL: Setback.STILL,
}  # fmt: skip


class Reach:
    """How it goes between here and other nodes: the `PathReports` of tunnels."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        """Tell membership through `post`: it asks at once whether such a node lives."""
        self._post = post
        self.ejections = Ejections()

    def answered(self, peer: NodeId) -> None:
        """Something came back through a tunnel."""
        self.ejections.answered(peer)

    def failed(self, peer: NodeId, reason: str) -> None:
        """A tunnel could not be opened, or broke."""
        self.ejections.failed(peer, monotonic())
        self._post(PathFailed(peer=peer, reason=reason))

    def doubted(self, model: ModelId) -> None:
        """An adopted server could not be reached, or broke off."""
        self._post(RemoteDoubted(model=model))

    def keep(self, peers: AbstractSet[NodeId]) -> None:
        """Forget how it went with every node but these."""
        self.ejections.keep(peers)


class Ways:
    """Chooses for requests that have more than one way, or none left."""

    def __init__(self, targets: Targets, reach: Reach, planner: Planner, retry_after_s: Callable[[], int]) -> None:
        """Know where requests may go, and how it went lately."""
        self._targets = targets
        self._planner = planner
        self._reach = reach
        self._retry_after_s = retry_after_s

    def next(self, exchange: Exchange, found: Target, *, is_patient: bool = True) -> Target | Wait | Problem:
        """Return which way of a question to take now, or what to say because none is left.

        Where nothing else is left but this node's engine, that is the way even if it has to be waited for. Where the
        host of the only way lives and has lost its engine, that is waited for too: it is back in a moment. A request
        that is not patient any more takes no way again.
        """
        trail = exchange.trip.trail if exchange.trip is not None else Trail()
        if not (found.others or found.peer or trail.setbacks):
            return found
        targets = {target.node: target for target in (found, *found.others)}
        if trail.setbacks and is_patient:
            for target in targets.values():
                trail.forgive(target.node, target.word, monotonic())
        priority = exchange.intake.priority
        ways = (_way(target, priority) for target in self._ordered(exchange, targets))  # mostly the first one is taken
        out = self._out(targets, trail)
        way = choose(ways, trail, out, 1 + self._planner.config.max_retries)
        if way is not None:
            return targets[way.node]
        here = targets.get(found.node) if found.peer is None else None
        if here is not None and trail.fits(here.context_tokens):
            is_full = here.traffic.in_flight >= here.room(exchange.intake.priority)
            is_over_quota = here.node in trail.setbacks and _is_over_quota(exchange)
            if not (is_over_quota or (is_full and Setback.BUSY in trail.setbacks.values())):
                return here
        if is_patient and may_come_back(trail):
            what = "can be reached" if trail.may_be_reached else "has it in memory"
            message = f"no host of the model {found.model!r} {what} right now"
            return Wait(model=found.model, message=message, is_asleep=False)
        return self.told(exchange, trail, found)

    def _ordered(self, exchange: Exchange, targets: dict[NodeId, Target]) -> Collection[Target]:
        """Return the hosts of a request, best first: as they were when it was decided, unless there are others now."""
        if len(targets) == 1:
            return targets.values()
        plan = exchange.plan
        if plan is None or not plan.covers(targets.keys()):
            if exchange.watch is not None:
                exchange.watch.looks_up()
            plan = exchange.plan = self._planner.plan(
                exchange.intake, exchange.body, exchange.request_id, targets.values(), exchange.seen.session_id, plan
            )
            if exchange.watch is not None:
                exchange.watch.decided(plan)
        return plan.ordered(targets)

    def _out(self, targets: dict[NodeId, Target], trail: Trail) -> Collection[NodeId]:
        """Return the hosts to leave out, never all that are left."""
        if not self._reach.ejections:
            return ()
        untried = [
            node for node, target in targets.items() if node not in trail.setbacks and trail.fits(target.context_tokens)
        ]
        return self._reach.ejections.out(untried, monotonic())

    def taken(self, target: Target) -> None:
        """Count a request that goes to another node: where that was left out, it is the trial that others wait for."""
        if target.peer is not None:
            self._reach.ejections.taken(target.peer, monotonic())

    def turns_elsewhere(self, exchange: Exchange, problem: Problem) -> bool:
        """Tell whether an error answer is better not passed on, since another way may lead to a good one."""
        target = exchange.target
        if problem.code == openai.CONTEXT_TOO_LONG:
            if not self._has_larger(exchange):
                return False
            setback = Setback.CONTEXT_TOO_LONG
        elif target.peer is None or problem.status not in _WORTH_ANOTHER:
            return False
        elif problem.code == openai.ENGINE_LOST:
            setback = Setback.ENGINE_LOST
            exchange.losses += 1
        elif problem.code in {openai.MODEL_LOADING, openai.LEAVING}:
            setback = Setback.NOT_READY
        else:
            setback = Setback.BUSY if problem.status == 429 else Setback.FAILED
        exchange.note(setback, problem)
        return True

    def refused(self, exchange: Exchange, refusal: TunnelRefusal) -> None:
        """Remember that a far end does not take a request, and why."""
        setback = _SETBACKS.get(refusal.code, Setback.FAILED)
        if setback is Setback.ENGINE_LOST:
            exchange.losses += 1
        problem = None
        if setback is Setback.CONTEXT_TOO_LONG:
            have = refusal.have or exchange.target.context_tokens
            problem = _too_long(exchange, f"{refusal.need or 'more'}", have)
        elif setback is Setback.FAILED:
            problem = Problem(
                status=502, code="host_refused", message=refusal.message or f"the host refused: {refusal.code}"
            )
        exchange.note(setback, problem)

    def has_others(self, exchange: Exchange) -> bool:
        """Tell whether a request has a host left besides the one where it is."""
        door = exchange.intake.inference
        found = self._targets.find(exchange.asked_model, door, exchange.seen.wishes) if door is not None else None
        if not isinstance(found, Target):
            return False
        been = exchange.trip.trail.setbacks if exchange.trip is not None else {}
        nodes = {target.node for target in (found, *found.others)} - {exchange.target.node}
        return not nodes <= been.keys()

    def patience_s(self, exchange: Exchange, target: Target) -> float:
        """Return for how long the engine of a host may stand still before a request leaves it.

        That is done once, and only for another one: infinity where it is not.
        """
        door = exchange.intake.inference
        if door is None or exchange.setbacks:
            return inf
        found = self._targets.find(exchange.asked_model, door, exchange.seen.wishes)
        if not isinstance(found, Target) or not found.others:
            return inf
        rating = exchange.plan.ratings.get(target.node) if exchange.plan is not None else None
        if rating is None:
            return patience_s(0.0, None)
        reading_s = rating.predicted_s - rating.wait_s - rating.candidate.rtt_s  # an engine stands still in that alone
        return patience_s(reading_s, rating.first_byte_s)

    def objection(self, found: Target, seen: Peek, door: InferenceDoor) -> Problem | int:
        """Say that a prompt fits nowhere, or return how many tokens it has at least."""
        contexts = [target.context_tokens for target in (found, *found.others)]
        tokens = tokens_at_least(prompt_bytes(seen.document, max(contexts) * limits.PROMPT_BYTES_PER_TOKEN))
        if 0 in contexts or tokens <= max(contexts):
            return tokens
        about = f"about {len(seen.body) // 4} ({len(seen.body)} bytes)"
        message = context_message(about, max(contexts))
        return Problem(status=400, code=openai.CONTEXT_TOO_LONG, message=message, param=door.prompt_field)

    def told(self, exchange: Exchange, trail: Trail, found: Target) -> Problem:
        """Return what a request is told for which no way is left."""
        setback = verdict(trail)
        problems = exchange.trip.problems if exchange.trip is not None else {}
        model = found.model
        if setback is Setback.BUSY and _is_over_quota(exchange):
            return problems[setback]
        if setback is Setback.BUSY:
            message = f"every host of the model {model!r} has as many requests as it takes; try again soon"
            return Problem(status=429, code="overloaded", message=message, retry_after_s=self._retry_after_s())
        if setback is Setback.NOT_READY:
            message = f"no host of the model {model!r} has it in memory right now; try again soon"
            return Problem(status=503, code=openai.MODEL_LOADING, message=message, retry_after_s=self._retry_after_s())
        if setback is Setback.NOT_ADMITTED:
            message = f"the hosts of the model {model!r} take no requests of this node: its rights do not allow that"
            return Problem(status=502, code="not_admitted", message=message)
        if setback in problems and setback is not Setback.ENGINE_LOST:
            said = problems[setback]
            return replace(said, retry_after_s=self._retry_after_s()) if said.status == 503 else said
        if setback is Setback.CONTEXT_TOO_LONG:
            return _too_long(exchange, f"more than {trail.context_over}", trail.context_over)
        message = f"no host of the model {model!r} could be reached, or was lost before its answer began"
        return Problem(status=502, code="host_lost", message=message, type="server_error")

    def _has_larger(self, exchange: Exchange) -> bool:
        """Tell whether another engine with a larger context than the one that refused is there."""
        door, refused = exchange.intake.inference, exchange.target
        found = self._targets.find(exchange.asked_model, door, exchange.seen.wishes) if door is not None else None
        if not isinstance(found, Target) or not refused.context_tokens:
            return False
        return any(
            target.context_tokens == 0 or target.context_tokens > refused.context_tokens
            for target in (found, *found.others)
            if target.node != refused.node
        )


def _too_long(exchange: Exchange, need: str, have: int) -> Problem:
    door = exchange.intake.inference
    param = door.prompt_field if door is not None else None
    return Problem(status=400, code=openai.CONTEXT_TOO_LONG, message=context_message(need, have), param=param)


def _is_over_quota(exchange: Exchange) -> bool:
    """Tell whether a host said last that the quotas of a model are used up there."""
    said = exchange.trip.problems.get(Setback.BUSY) if exchange.trip is not None else None
    return said is not None and said.code == openai.QUOTA_EXCEEDED


def _way(target: Target, priority: Priority) -> Way:
    return Way(
        node=target.node, is_here=target.peer is None, in_flight=target.traffic.in_flight + target.pool.opening,
        admitted=target.room(priority), context_tokens=target.context_tokens,
    )  # fmt: skip
