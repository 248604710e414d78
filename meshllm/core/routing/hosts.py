"""Who has a model, and how it is there: one line for each node.

Owns the reading of a view for everybody who shows a model in detail. Decides nothing about routes or names.
Doesn't know HTTP.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.announcement import ServingState
from meshllm.core.engines import EngineState
from meshllm.core.health import HealthChecks, HealthState
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.serving.health import local_health, remote_checks, remote_health
from meshllm.core.standing import LIVE
from meshllm.core.view import LocalModel, MeshView, Replica

_LOADED = frozenset({EngineState.READY, EngineState.DRAINING})
_COMING = frozenset({EngineState.STARTING, EngineState.BACKING_OFF})
_STATUS_SAID = {
    ServingState.READY: "loaded", ServingState.DRAINING: "loaded",
    ServingState.CLAIMED: "reloading", ServingState.DOWNLOADING: "reloading", ServingState.LOADING: "reloading",
    ServingState.FAILED: "unloaded",
}  # fmt: skip
_PHASES = {
    ServingState.CLAIMED: "queued", ServingState.DOWNLOADING: "downloading", ServingState.LOADING: "loading",
    ServingState.READY: "ready", ServingState.DRAINING: "draining", ServingState.FAILED: "failed",
}  # fmt: skip
_STATUSES = ("loaded", "reloading", "unloaded")
_RANK = (
    HealthState.HEALTHY, HealthState.DEGRADED, HealthState.LOADING, HealthState.UNKNOWN, HealthState.UNHEALTHY,
)  # fmt: skip


def best_health(states: Iterable[HealthState]) -> HealthState:
    """Return how a model is in the mesh: as well as the best of its hosts."""
    return min(states, key=_RANK.index, default=HealthState.UNKNOWN)


def best_status(hosts: Iterable["Host"]) -> str:
    """Return how far a model is in the mesh: as far as on the host where it is farthest."""
    return min((host.status for host in hosts), key=_STATUSES.index, default="unloaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One node that serves a model or has its file. The names of the fields are those that people see."""

    node_id: NodeId
    name: str
    status: str
    """`loaded`, `reloading` or `unloaded`."""
    phase: str = "unloaded"
    """The same in finer words, of other nodes: `queued`, `downloading`, `loading`, `ready`, `draining`, `failed`."""
    health_status: HealthState
    digest: str | None
    trouble: str = ""
    """What is wrong with it, for people."""
    slots: int = 0
    context_length: int = 0
    size_bytes: int = 0
    checks: HealthChecks | None = None
    """As its node measured them; None where it does not say so."""
    checked_s: float | None = None
    """When it was measured, as far as it is known here, on this node's clock."""

    @property
    def facts(self) -> dict[str, object]:
        """Return what is said of it by the names that people see, but for its health in detail."""
        return {
            "node_id": self.node_id, "name": self.name, "status": self.status, "digest": self.digest,
            "slots": self.slots, "context_length": self.context_length, "health_status": str(self.health_status),
        }  # fmt: skip


def hosts_of(view: MeshView, model: ModelId) -> tuple[Host, ...]:
    """Return the nodes that serve a model or have its file: this one first, then by id."""
    local = view.local.get(model)
    here = [] if local is None or local.dropped else [_own(view, local)]
    away = hosts_elsewhere(view, model)
    return (*here, *(away[node] for node in sorted(away)))


def hosts_elsewhere(view: MeshView, model: ModelId) -> dict[NodeId, Host]:
    """Return the other live nodes that serve a model or have its file."""
    found = _storing(view, model)
    for replica in view.replicas.get(model, ()):
        member = view.members.get(replica.node)
        found[replica.node] = serving_host(replica, heard_s=member.last_heard_s if member is not None else None)
    found.pop(view.me.node, None)
    return found


def _storing(view: MeshView, model: ModelId) -> dict[NodeId, Host]:
    """Return the nodes that have a model's file."""
    cold = view.cold.get(model)
    found = {} if cold is None else {node: _stored(view, node, cold.digest, cold.size_bytes) for node in cold.nodes}
    for node, member in view.members.items():
        if member.state in LIVE:
            for one in member.announcement.models_on_disk:
                if one.model == model:
                    found[node] = _stored(view, node, one.digest, one.size_bytes)
    return found


def _stored(view: MeshView, node: NodeId, digest: str, size_bytes: int) -> Host:
    member = view.members.get(node)
    return Host(
        node_id=node, name=member.announcement.name if member is not None else short(node), status="unloaded",
        health_status=HealthState.UNKNOWN, digest=digest or None, size_bytes=size_bytes,
    )  # fmt: skip


def serving_host(replica: Replica, *, heard_s: float | None = None) -> Host:
    """Return another node that serves a model, as it says; `heard_s` is when it said so."""
    served = replica.served
    return Host(
        node_id=replica.node, name=replica.name, status=_STATUS_SAID[served.state], digest=served.digest or None,
        phase=_PHASES[served.state], trouble=served.trouble,
        health_status=remote_health(served), slots=served.slots, context_length=served.context_tokens,
        size_bytes=served.size_bytes, checked_s=heard_s,
        checks=remote_checks(served),
    )  # fmt: skip


def _own(view: MeshView, model: LocalModel) -> Host:
    status = "loaded" if model.state in _LOADED else "reloading" if _is_coming(model) else "unloaded"
    return Host(
        node_id=view.me.node, name=view.me.name, status=status, health_status=local_health(model),
        digest=model.digest or None, slots=model.slots,
        context_length=model.context_tokens, checks=model.checks,
        size_bytes=model.spec.size_bytes if model.spec is not None else 0,
        checked_s=model.checks.checked_s if model.checks is not None else None,
    )  # fmt: skip


def _is_coming(model: LocalModel) -> bool:
    return model.state in _COMING or (model.state is EngineState.STOPPED and model.progress is not None)
