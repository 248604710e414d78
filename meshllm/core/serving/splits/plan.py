"""Which machines would share a model that none of them holds alone: one pure function.

Owns the plan of a split: its host, its workers in order, each one's layers and memory. Decides whether there is one,
and says of every node why not. Doesn't know engines or connections, and carries nothing out.

A plan has the fewest workers that suffice; of the sets that do, the one whose farthest member is nearest, then the one
with the most memory. The host is elected among those that have the file, by the rule of all hosts. Its own device comes
last, so that the output layer and its logits stay at home. A plan that works is kept whoever joins, and made anew, with
a higher epoch, when one of its members is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshllm.core.announcement import SharedModel, SharedPart
from meshllm.core.engines import SplitPart, SplitRun
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import format_bytes
from meshllm.core.serving.splits.lenders import (
    PASSING,
    Conditions,
    Excluded,
    Lender,
    SplitLack,
    could_hold,
    out,
    standing,
)
from meshllm.core.serving.splits.model import SplitModel
from meshllm.core.split_limits import SPLIT_ROUND_TRIP_STEP_S, SPLIT_WORKERS

_NAMED = 2
"""Nodes that a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitShare:
    """What one machine takes."""

    node: NodeId
    name: str
    first_layer: int
    """The first of its layers, counted from 0."""
    layers: int
    memory_bytes: int
    """Weights, KV cache and buffers together."""
    rtt_s: float = 0.0
    """Between it and the host, as far as the node that planned knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """Who shares a model. The devices are in the order of `shares`; the last is the host's, with the output layer."""

    model: ModelId
    digest: str
    epoch: int
    shares: tuple[SplitShare, ...]
    context_tokens: int
    token_bytes: int
    """What one token sends over the network, all workers together."""
    why: str
    """For people."""

    @property
    def host(self) -> NodeId:
        """Return who runs the server."""
        return self.shares[-1].node

    @property
    def workers(self) -> tuple[NodeId, ...]:
        """Return who lends to the host, in the order of the layers."""
        return tuple(share.node for share in self.shares[:-1])

    @property
    def members(self) -> frozenset[NodeId]:
        """Return everybody whose loss ends it."""
        return frozenset(share.node for share in self.shares)

    @property
    def told(self) -> SharedModel:
        """Return what the host announces of it."""
        parts = (SharedPart(node=one.node, layers=one.layers, memory_bytes=one.memory_bytes) for one in self.shares)
        return SharedModel(epoch=self.epoch, parts=tuple(parts))

    @property
    def run(self) -> SplitRun:
        """Return what the host's engine is told."""
        workers = tuple(SplitPart(node=one.node, layers=one.layers, name=one.name) for one in self.shares[:-1])
        return SplitRun(epoch=self.epoch, workers=workers, home_layers=self.shares[-1].layers)

    @property
    def token_wait_s(self) -> float:
        """Return what one token waits for the network at least, whatever is computed."""
        return sum(share.rtt_s for share in self.shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solo:
    """No split: one machine can hold the model."""

    node: NodeId
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSplit:
    """No split although no machine holds the model alone: why, for all and for each."""

    message: str
    nodes: tuple[Excluded, ...]
    """One for every live node, sorted by id."""

    @property
    def may_pass(self) -> bool:
        """Tell whether somebody who takes no part might in a moment: it is not known well enough yet."""
        return any(one.lack in PASSING for one in self.nodes)

    @property
    def words(self) -> str:
        """Return the message with what keeps the first few nodes out of it."""
        kept_out = [one for one in self.nodes if one.lack not in {SplitLack.NOT_ENOUGH, SplitLack.NO_FILE}]
        return "; ".join((self.message, *(f"{one.name}: {one.why}" for one in kept_out[:_NAMED])))


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitQuestion:
    """What a plan is made of."""

    model: SplitModel
    lenders: tuple[Lender, ...]
    """Every live node, this one among them."""
    conditions: Conditions
    is_asked: bool = False
    """Somebody wants it split although it fits."""
    running: SplitPlan | None = None
    """What there is."""
    only_host: NodeId | None = None
    """The only node that may be its host; None for the one that is elected."""
    epoch: int = 0
    """The highest that was ever heard of for this model."""


def plan_split(question: SplitQuestion) -> SplitPlan | Solo | NoSplit:
    """Return how machines would share a model, or why they would not. The order of the lenders is no matter."""
    running = question.running
    if running is not None and is_whole(running, question.lenders):
        return running
    model = question.model
    if not question.is_asked and (found := _solo(question)) is not None:
        return found
    if model.layers < 1:
        return _unknown(question)
    hosts = standing(
        lender for lender in question.lenders
        if question.only_host in {None, lender.node} and question.conditions.unfit_as_host(lender, model) is None
    )  # fmt: skip
    for host in hosts:
        if (plan := _under(host, question)) is not None:
            return plan
    return _without_host(question) if not hosts else _too_little(hosts[0], question)


def is_whole(plan: SplitPlan, lenders: Sequence[Lender]) -> bool:
    """Tell whether everybody in a plan is still there and may still lend. Distance and silence do not end one."""
    known = {lender.node: lender for lender in lenders}
    found = [known[node] for node in plan.members if node in known]
    if len(found) < len(plan.members):
        return False
    host, conditions = known[plan.host], Conditions(me=plan.host)
    return all(
        (lack := conditions.unfit(one) or conditions.mismatch(one, host)) is None or lack.lack is SplitLack.SILENT
        for one in found
    )


# -- a plan under one host ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seat:
    """A node that may be a worker of a host."""

    lender: Lender
    rtt_s: float
    layers: int
    """Room for so many."""

    @property
    def distance(self) -> int:
        return int(self.rtt_s / SPLIT_ROUND_TRIP_STEP_S)


def _under(host: Lender, question: SplitQuestion) -> SplitPlan | None:
    """Return the plan of one host, or None where its workers do not suffice."""
    model = question.model
    at_home = host.layers(model, model.host_beside_bytes)
    chosen = _fewest(_seats(host, question), model.layers - at_home)
    if chosen is None:
        return None
    counts = _shares([seat.layers for seat in chosen] + [at_home], model.layers)
    return _plan(host, chosen, counts, question)


def _seats(host: Lender, question: SplitQuestion) -> list[_Seat]:
    """Return who may work for a host: the largest first, then the nearest, then by id."""
    model, conditions = question.model, question.conditions
    found = []
    for lender in question.lenders:
        rtt_s = conditions.rtt_s(lender, host)
        if lender.node == host.node or rtt_s is None or conditions.unfit_as_worker(lender, host, model) is not None:
            continue
        found.append(_Seat(lender, rtt_s, lender.layers(model, model.worker_beside_bytes)))
    return sorted(found, key=lambda seat: (-seat.layers, seat.distance, seat.lender.node))


def _fewest(seats: Sequence[_Seat], layers: int) -> list[_Seat] | None:
    """Return the fewest workers, one at least, with room for so many layers: the nearest of such sets, in order."""
    distances = {seat.distance for seat in seats}
    for count in range(1, min(len(seats), SPLIT_WORKERS) + 1):
        if sum(seat.layers for seat in seats[:count]) < layers:
            continue
        sets = ([seat for seat in seats if seat.distance <= most][:count] for most in sorted(distances))
        nearest = next(near for near in sets if len(near) == count and sum(seat.layers for seat in near) >= layers)
        return sorted(nearest, key=lambda seat: (seat.distance, -seat.layers, seat.lender.node))
    return None


def _shares(room: Sequence[int], layers: int) -> list[int]:
    """Return whole layers in proportion to the room for them, never above it.

    The host's is the last, and may be left with the output layer alone. Every worker has a layer: without it, being one
    of the fewest, there would be no room for all; and beside a host that needs none, the rest of the division is its.
    """
    total = sum(room)
    counts = [layers * one // total for one in room]
    rests = sorted(range(len(room)), key=lambda index: (-(layers * room[index] % total), index))
    for index in rests[: layers - sum(counts)]:
        counts[index] += 1
    return counts


def _plan(host: Lender, chosen: Sequence[_Seat], counts: Sequence[int], question: SplitQuestion) -> SplitPlan:
    model, running = question.model, question.running
    seats = [(seat.lender, seat.rtt_s, model.worker_beside_bytes) for seat in chosen]
    seats.append((host, 0.0, model.host_beside_bytes))
    shares, first = [], 0
    for (lender, rtt_s, beside), count in zip(seats, counts, strict=True):
        memory = count * model.layer_bytes + beside
        share = SplitShare(
            node=lender.node, name=lender.name, first_layer=first, layers=count, memory_bytes=memory, rtt_s=rtt_s
        )
        shares.append(share)
        first += count
    epoch = max(question.epoch, running.epoch if running is not None else 0) + 1
    return SplitPlan(
        model=model.model, digest=model.digest, epoch=epoch, shares=tuple(shares), context_tokens=model.context_tokens,
        token_bytes=model.hop_bytes * len(chosen), why=_reason(host, len(chosen), question),
    )  # fmt: skip


def _reason(host: Lender, workers: int, question: SplitQuestion) -> str:
    said = "somebody asked for it" if question.is_asked else "it fits on no node alone"
    lend = "1 other node lends" if workers == 1 else f"{workers} other nodes lend"
    return f"{said}; {host.name} has the file, and {lend} what it lacks"


# -- why there is none -------------------------------------------------------------------------------------------


def _solo(question: SplitQuestion) -> Solo | None:
    """Return who can hold the model alone, if anybody can: the node that would be its host."""
    able = standing(one for one in question.lenders if _is_enough(one, question))
    return Solo(node=able[0].node, name=able[0].name) if able else None


def _is_enough(lender: Lender, question: SplitQuestion) -> bool:
    """Tell whether one machine could do it: by the rough rule of all nodes, or by the exact one of splits."""
    model = question.model
    if could_hold(lender.said, model.size_bytes):
        return True
    is_host = model.layers > 0 and question.conditions.unfit_as_host(lender, model) is None
    return is_host and lender.layers(model, model.host_beside_bytes) == model.layers


def _unknown(question: SplitQuestion) -> NoSplit:
    """Return what can be said where the file is elsewhere: everything but the layers."""
    name = question.model.model
    holders = [lender.name for lender in question.lenders if lender.has_file(question.model)]
    where = f"; mesh-llm plan {name} on {holders[0]} says more" if holders else ""
    message = f"this node does not have the file, and so does not know the layers of {name}{where}"
    found = (question.conditions.unfit(lender) or _willing(lender, "") for lender in question.lenders)
    return NoSplit(message=message, nodes=tuple(found))


def _without_host(question: SplitQuestion) -> NoSplit:
    found = [question.conditions.unfit_as_host(lender, question.model) for lender in question.lenders]
    nodes = tuple(one for one in found if one is not None)
    return NoSplit(message="no node that may share a model has its file and room for the host's part", nodes=nodes)


def _too_little(host: Lender, question: SplitQuestion) -> NoSplit:
    """Return what is missing with the best of the hosts."""
    model, conditions = question.model, question.conditions
    seats, room = _seats(host, question), host.layers(model, model.host_beside_bytes)
    nodes, willing = [], {seat.lender.node: seat.layers for seat in seats}
    for lender in question.lenders:
        count = room if lender.node == host.node else willing.get(lender.node)
        excluded = conditions.unfit_as_worker(lender, host, model) if count is None else None
        nodes.append(excluded or _willing(lender, f" {count} of {model.layers} layers"))
    room += sum(seat.layers for seat in seats[:SPLIT_WORKERS])
    if not seats:
        message = f"no other node can lend memory to {host.name}, which has the file"
    else:
        lacking = format_bytes((model.layers - room) * model.layer_bytes)
        message = f"all that may share it have room for {room} of its {model.layers} layers; {lacking} more are needed"
    return NoSplit(message=message, nodes=tuple(nodes))


def _willing(lender: Lender, how_much: str) -> Excluded:
    free = format_bytes(lender.free_bytes)
    why = f"would take{how_much}: {free} are free" if how_much else f"may lend, and has {free} free"
    return out(lender, SplitLack.NOT_ENOUGH, why)
