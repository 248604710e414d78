"""The status document: the view as JSON for people, the console and `mesh-llm status`. Pure.

Owns the words `phase` (fine, ours) and `status` (the closed set that clients of `/v1/models/status` know).
Doesn't know HTTP.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from meshllm.api.deps import MeshFacts
from meshllm.api.members import member_documents, mesh_document
from meshllm.api.mesh_models import mesh_model_documents
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import Resources
from meshllm.core.serving.health import local_health
from meshllm.core.view import LocalModel, MeshView

PHASES = (
    "unloaded", "queued", "downloading", "loading", "ready", "draining", "stopping", "retrying", "failed", "held",
    "dropped",
)  # fmt: skip
_PHASE_OF_STATE = {
    EngineState.STARTING: "loading",
    EngineState.READY: "ready",
    EngineState.DRAINING: "draining",
    EngineState.STOPPING: "stopping",
    EngineState.BACKING_OFF: "retrying",
    EngineState.FAILED: "failed",
}
STATUSES = ("loaded", "unloaded", "reloading", "not_found", "no_loader_config", "internal_error")
_STATUS_OF_PHASE = {
    "ready": "loaded", "draining": "loaded", "stopping": "loaded",  # its memory is not free yet
    "queued": "reloading", "downloading": "reloading", "loading": "reloading", "retrying": "reloading",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the document says of the node and the view does not know."""

    version: str
    address: str
    started_s: float
    mesh: MeshFacts | None = None
    """None before the node belongs to one."""
    lines: Mapping[NodeId, int] = field(default_factory=dict)
    """How many there are with each peer that has any."""


def phase_of(model: LocalModel) -> str:
    """Return where a model is, one of `PHASES`."""
    if model.state is not EngineState.STOPPED:
        return _PHASE_OF_STATE[model.state]
    if model.progress is not None and model.progress.stage == "downloading":
        return "downloading"
    if model.dropped:
        return "dropped"
    if model.held:
        return "held"
    if model.wanted:
        return "queued"
    return "failed" if model.failure is not None and model.spec is None else "unloaded"


def lifecycle_status(model: LocalModel) -> str:
    """Return a model's state in the closed vocabulary, one of `STATUSES`."""
    phase = phase_of(model)
    lost = phase == "failed" and model.failure is not None and model.failure.fault is EngineFault.MISSING_FILE
    return "no_loader_config" if lost else _STATUS_OF_PHASE.get(phase, "unloaded")


def status_document(
    view: MeshView, now_s: float, facts: NodeFacts, in_flight: Callable[[ModelId], int]
) -> dict[str, object]:
    """Return everything that is known of this node, ready for JSON. Times are seconds, sizes bytes."""
    return {
        **facts_document(view, now_s, facts),
        "members": member_documents(view, now_s, facts.lines),
        "models": [model_document(view, view.local[model], now_s, in_flight(model)) for model in sorted(view.local)],
        "mesh_models": mesh_model_documents(view, phase_of),
    }


def facts_document(view: MeshView, now_s: float, facts: NodeFacts) -> dict[str, object]:
    """Return what the status document says beside its lists of members and models."""
    build, failure = view.engine_build, view.engine_failure
    return {
        "node": {
            "id": view.me.node,
            "name": view.me.name,
            "version": facts.version,
            "uptime_s": round(max(now_s - facts.started_s, 0.0), 1),
            "address": facts.address,
        },
        "mesh": mesh_document(facts.mesh),
        "machine": _machine(view.resources),
        "engine": None if build is None else {"kind": build.kind, "version": build.version, "uses_gpu": build.uses_gpu},
        "engine_failure": None if failure is None else {"fault": str(failure.fault), "message": failure.message},
        "default_model": view.default_model,
        "problems": [
            {"path": problem.path, "code": problem.code, "message": problem.message} for problem in view.problems
        ],
        "unresolved": [{"name": name, "message": message} for name, message in sorted(view.unresolved.items())],
        "requested": list(view.requested),
        "servers": [
            {"name": server.name, "url": server.url, "is_up": server.is_up, "models": server.models,
             "left_out": server.left_out, "message": server.message}
            for server in view.remotes
        ],
        "leaving": view.leaving,
        "epoch": view.epoch,
    }  # fmt: skip


def _machine(resources: Resources | None) -> dict[str, object]:
    """Return what was measured of the machine; zeros before the first measurement."""
    resources = resources or Resources(cores=0, memory_total_bytes=0, memory_free_bytes=0)
    return {
        "cores": resources.cores,
        "memory_total_bytes": resources.memory_total_bytes,
        "memory_free_bytes": resources.memory_free_bytes,
        "gpus": [
            {"name": gpu.name, "total_bytes": gpu.total_bytes, "free_bytes": gpu.free_bytes} for gpu in resources.gpus
        ],
        "gpu_problem": resources.gpu_problem,
    }


def model_document(view: MeshView, model: LocalModel, now_s: float, in_flight: int) -> dict[str, object]:
    """Return one model as the status document has it. Times are seconds, sizes bytes."""
    progress, failure = model.progress, model.failure
    return {
        "id": model.id,
        "state": str(model.state),
        "phase": phase_of(model),
        "kind": "adopted" if model.adopted_from else "engine",
        "server": model.adopted_from,
        "wanted": model.wanted,
        "held": model.held,
        "dropped": model.dropped,
        "pinned": is_pinned(view, model.id),
        "progress": None if progress is None else {
            "stage": progress.stage, "share": round(progress.share, 4),
            "done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes,
        },
        "failure": None if failure is None else {"fault": str(failure.fault), "message": failure.message},
        "waiting": model.waiting,
        "reason": None if model.reason is None else str(model.reason),
        "why": model.why,
        **_file_facts(model),
        "context_tokens": model.context_tokens,
        "slots": model.slots,
        "memory_bytes": 0 if model.plan is None else model.plan.memory.total_bytes,
        "requests": model.requests,
        "in_flight": in_flight,
        "pid": model.pid,
        "aliases": list(view.names.aliases_of(model.id)),
        "versions": [f"{one.name}@{one.version}" for one in view.registered if one.model == model.id],
        "health_status": str(local_health(model)),
        "ready_for_s": None if model.ready_since_s is None else round(max(now_s - model.ready_since_s, 0.0), 1),
        "load_s": round(model.load_s, 3),
        "restarts": model.restarts,
        "retry_in_s": None if model.retry_at_s is None else round(max(model.retry_at_s - now_s, 0.0), 1),
    }  # fmt: skip


def is_pinned(view: MeshView, model: ModelId) -> bool:
    """Tell whether a model stays in memory: as was ordered, else as the configuration says."""
    local = view.local.get(model)
    if local is not None and local.pin is not None:
        return local.pin
    return model in view.policies and view.policies[model].is_pinned


def _file_facts(model: LocalModel) -> dict[str, object]:
    """Return what the model's file says; empty values while there is no complete file."""
    spec = model.spec
    if spec is None:
        total = model.progress.total_bytes if model.progress is not None else 0
        return {
            "size_bytes": total, "quantization": "", "parameters": 0, "architecture": "", "train_context_tokens": 0,
            "digest": "", "capabilities": [],
        }  # fmt: skip
    return {
        "size_bytes": spec.size_bytes, "quantization": spec.quantization, "parameters": spec.parameters,
        "architecture": spec.architecture.name, "train_context_tokens": spec.architecture.context_tokens,
        "digest": spec.digest, "capabilities": sorted(spec.capabilities),
    }  # fmt: skip
