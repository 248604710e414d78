"""What the split of a model is or would be, for people: who shares it, the plan, or what is in its way.

Owns the way from a view to a question of `plan`, and the document of the answer. Decides nothing. Doesn't know
HTTP.
"""

from dataclasses import dataclass

from meshllm.core.announcement import ServedModel, ServingState, SharedModel
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EnginePlan, EngineState
from meshllm.core.ids import ModelId, short
from meshllm.core.resources import MemoryLimit
from meshllm.core.serving.capacity import EngineWishes, plan_engine, room_for_one_more
from meshllm.core.serving.splits.lenders import Conditions, SplitLack, lenders_of
from meshllm.core.serving.splits.model import SplitModel, split_model
from meshllm.core.serving.splits.plan import NoSplit, Solo, SplitPlan, SplitQuestion, SplitShare, plan_split
from meshllm.core.standing import LIVE
from meshllm.core.view import Member, MeshView

_IN_MEMORY = frozenset({ServingState.READY, ServingState.DRAINING})
_SUPPOSING = "every node had the same engine, one that can share models"
_ON_ITS_WAY = frozenset({ServingState.READY, ServingState.DRAINING, ServingState.LOADING})
_BUILDS = frozenset({
    SplitLack.NO_ENGINE, SplitLack.NO_RPC, SplitLack.OTHER_BUILD, SplitLack.OTHER_PROTOCOL,
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitForecast:
    """What would become of a model that no node holds alone."""

    outcome: SplitPlan | NoSplit
    supposed: SplitPlan | None = None
    """What it would be if only the engines were equal and could share; None where that is not all that is missing."""


def foresee_split(view: MeshView, model: ModelId) -> SplitForecast | None:
    """Return what a split of a model would be; None for one that runs, fits somewhere, or is not known well enough."""
    shape = None if _is_served(view, model) else _shape(view, model)
    if shape is None:
        return None
    question = SplitQuestion(
        model=shape, lenders=lenders_of(view.members.values()), conditions=Conditions(me=view.me.node)
    )
    outcome = plan_split(question)
    if isinstance(outcome, Solo):
        return None
    if isinstance(outcome, SplitPlan) or not any(one.lack in _BUILDS for one in outcome.nodes):
        return SplitForecast(outcome=outcome)
    conditions = Conditions(me=view.me.node, needs_build=False)
    supposed = plan_split(SplitQuestion(model=shape, lenders=question.lenders, conditions=conditions))
    return SplitForecast(outcome=outcome, supposed=supposed if isinstance(supposed, SplitPlan) else None)


def _is_served(view: MeshView, model: ModelId) -> bool:
    """Tell whether somebody has the model in memory, or is loading it."""
    local = view.local.get(model)
    if local is not None and (local.adopted_from or local.state in (EngineState.READY, EngineState.STARTING)):
        return True
    return any(
        one.model == model and one.state in _ON_ITS_WAY
        for member in view.members.values() if member.state in LIVE for one in member.announcement.serving
    )  # fmt: skip


def _shape(view: MeshView, model: ModelId) -> SplitModel | None:
    """Return what the model takes: by its file where that is here, else by its size alone; None where it fits here."""
    local = view.local.get(model)
    spec = None if local is None else local.on_disk or local.spec
    if spec is not None:
        return None if _fits_here(view, spec) else split_model(spec)
    cold = view.cold.get(model)
    if cold is None or not cold.size_bytes:
        return None
    return SplitModel(model=model, digest=cold.digest, size_bytes=cold.size_bytes)


def _fits_here(view: MeshView, spec: ModelSpec) -> bool:
    """Tell whether this node's exact arithmetic says so: it knows more than others could."""
    build, usable = view.engine_build, view.me.usable
    if view.resources is None or build is None or usable is None:
        return False
    taken = {one.id: one.plan for one in view.local.values() if one.plan is not None and one.endpoint is not None}
    limit = MemoryLimit(size_bytes=usable.gpu_bytes if build.uses_gpu and view.resources.gpus else usable.memory_bytes)
    room = room_for_one_more(view.resources, build, limit, taken)
    return isinstance(plan_engine(spec, room, EngineWishes(), view.resources), EnginePlan)


# -- documents -----------------------------------------------------------------------------------------------------


def told(view: MeshView, model: ModelId) -> dict[str, object] | None:
    """Return the `split` of `GET /api/explain`: what runs, else what would; null where the model needs none."""
    for member in view.members.values():
        for one in member.announcement.serving if member.state in LIVE else ():
            if one.model == model and one.shared is not None:
                return _running(view, member, one, one.shared)
    forecast = foresee_split(view, model)
    return None if forecast is None else shown(forecast)


def _running(view: MeshView, host: Member, served: ServedModel, shared: SharedModel) -> dict[str, object]:
    shares: list[dict[str, object]] = []
    first = 0
    for part in shared.parts:
        member, is_host = view.members.get(part.node), part.node == host.announcement.node
        rtt_s = None if is_host or member is None else member.rtt_s
        shares.append({
            "candidate": part.node, "is_host": is_host, "first_layer": first, "layers": part.layers,
            "node": short(part.node) if member is None else member.announcement.name,
            "memory_bytes": part.memory_bytes, "rtt_s": None if rtt_s is None else round(rtt_s, 4),
        })  # fmt: skip
        first += part.layers
    names = [str(share["node"]) for share in shares]
    message = f"shared by {', '.join(names[:-1])} and {names[-1]}, its host; {served.state} in epoch {shared.epoch}"
    return {
        "runs": served.state in _IN_MEMORY, "possible": True, "message": message, "supposing": None, "nodes": [],
        "host": host.announcement.node, "shares": shares, "token_bytes": None, "token_wait_s": None,
        "context_tokens": served.context_tokens or None, "epoch": shared.epoch, "state": str(served.state),
    }  # fmt: skip


def shown(forecast: SplitForecast) -> dict[str, object]:
    """Return a forecast as a document."""
    outcome, plan = forecast.outcome, forecast.supposed
    if isinstance(outcome, SplitPlan):
        base: dict[str, object] = {"runs": False, "possible": True, "supposing": None, "nodes": []}
        return base | {"message": _sentence(outcome), "epoch": None, "state": None} | _plan(outcome)
    message = f"no split: {outcome.message}"
    nodes = [
        {"candidate": one.node, "node": one.name, "lack": str(one.lack), "why": one.why, "help": one.help or None}
        for one in outcome.nodes
    ]
    base = {"runs": False, "possible": False, "message": message, "nodes": nodes, "epoch": None, "state": None}
    return base | {"supposing": _SUPPOSING if plan is not None else None} | _plan(plan)


def _plan(plan: SplitPlan | None) -> dict[str, object]:
    if plan is None:
        return {"host": None, "shares": [], "token_bytes": None, "token_wait_s": None, "context_tokens": None}
    return {
        "host": plan.host, "shares": [_share(plan, share) for share in plan.shares], "token_bytes": plan.token_bytes,
        "token_wait_s": round(plan.token_wait_s, 4), "context_tokens": plan.context_tokens,
    }  # fmt: skip


def _share(plan: SplitPlan, share: SplitShare) -> dict[str, object]:
    is_host = share.node == plan.host
    return {
        "candidate": share.node, "node": share.name, "is_host": is_host, "first_layer": share.first_layer,
        "layers": share.layers, "memory_bytes": share.memory_bytes, "rtt_s": None if is_host else round(share.rtt_s, 4),
    }  # fmt: skip


def _sentence(plan: SplitPlan) -> str:
    names = [share.name for share in plan.shares]
    return f"would be split over {', '.join(names[:-1])} and {names[-1]}, its host, for whoever asks: {plan.why}"
