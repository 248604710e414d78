"""What this node says of its models: the part of its announcement that serving makes true.

Owns the way from records to statements. Decides nothing. Doesn't know when a statement is worth telling:
`core.statement` does.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from meshllm.core.announcement import Announcement, DiskModel, RequestedModel, Role, ServedModel, ServingState
from meshllm.core.caches.completions import recipe_of
from meshllm.core.catalog import ModelReference, ModelSpec
from meshllm.core.engines import EngineBuild, EngineState
from meshllm.core.health import HealthChecks, HealthState
from meshllm.core.ids import NO_MODEL, ModelId
from meshllm.core.known_models import find, reference_of
from meshllm.core.limits import ANNOUNCED_REQUESTS
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.resources import Usable
from meshllm.core.routing.abilities import tags_of
from meshllm.core.serving.demand import coarse_count
from meshllm.core.serving.fetching import Fetching
from meshllm.core.serving.health import local_health
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from meshllm.core.serving.registry import names_said
from meshllm.core.statement import coarse
from meshllm.core.view import LocalModel

_SAID = {
    EngineState.READY: ServingState.READY,
    EngineState.STARTING: ServingState.LOADING,
    EngineState.BACKING_OFF: ServingState.LOADING,
    EngineState.DRAINING: ServingState.DRAINING,
}
"""What is announced of an engine. One that loads, or restarts after a crash, is worth waiting for at other nodes too;
one that was told to stop is not."""


def told(
    old: Announcement, held: Holdings, fetching: Fetching, adopted: Iterable[LocalModel], *, is_client: bool
) -> Announcement:
    """Return what this node's models, and those of servers that it adopted, make true of it; `old` gives the rest."""
    records = [record for _, record in sorted(held.records.items())]
    served = tuple(
        _served(record, state, _tags(held, record.id), held.build)
        for record in records
        if (state := told_state(record)) is not None
    )
    adopted = list(adopted)
    requested = _requested(held, fetching, {model.id for model in adopted})
    served += tuple(_adopted(model) for model in adopted if model.state in _SAID or model.state is EngineState.FAILED)
    is_host = any(one.state is ServingState.READY for one in served)
    build = held.build
    on_disk = {record.id: record.spec for record in records if record.spec is not None}
    return replace(
        old, role=Role.CLIENT if is_client else Role.HOST if is_host else Role.WORKER,
        resources=coarse(held.resources), usable=_usable(held), serving=served, requested=requested,
        models_on_disk=tuple(
            _on_disk(one.spec) for one in records if one.spec is not None and not one.dropped
        ),
        uses=tuple((one.id, coarse_count(one.requests)) for one in records if one.spec is not None and one.requests),
        load=_load(served), orders=held.book.announced, names=names_said(held.policies, held.registered, on_disk),
        default=held.book.announced_default,
        engine_build=f"{build.kind} {build.version}" if build is not None else "",
        rpc_version=build.sharing.version if build is not None and build.sharing is not None else "",
        lends=tuple(loan.told(model) for model, loan in sorted(held.lent.items())),
        is_starting=not (is_client or held.is_judged),
    )  # fmt: skip


def _usable(held: Holdings) -> Usable | None:
    """Return what models may take here; None while the machine or the engine is unknown."""
    if held.resources is None or held.build is None:
        return None
    whole = held.whole()
    return Usable(memory_bytes=whole.host_bytes, gpu_bytes=whole.gpu_bytes)


def told_state(record: Record) -> ServingState | None:
    """Return how far a model is for others; None where they should not count on it.

    One that waits for room is not on its way: somebody else may serve it meanwhile.
    """
    if record.state in _SAID:
        return _SAID[record.state]
    if (record.split is not None or record.is_replanned) and record.wanted:
        return ServingState.CLAIMED
    if not record.wanted or record.waiting:
        return None
    if record.is_downloading:
        return ServingState.DOWNLOADING
    is_coming = record.is_assigned or record.spec is None  # one that has just been fetched is about to be seen
    return ServingState.CLAIMED if is_coming else None


def _tags(held: Holdings, model: ModelId) -> frozenset[str]:
    return tags_of(model, held.policies.get(model), held.registered)


def _served(
    record: Record, state: ServingState, tags: frozenset[str], build: EngineBuild | None
) -> ServedModel:  # fmt: skip
    """Return what is announced of a model in memory or on its way, with what people say that it can do."""
    said = ServedModel(
        model=record.id, digest="", state=state, is_assigned=record.is_assigned, order=record.order,
        size_bytes=record.reference.size_bytes if record.reference is not None else 0,
        shared=None if record.split is None else record.split.told,
    )  # fmt: skip
    if state is ServingState.READY:
        busy = min(record.in_flight, record.slots)
        said = replace(
            said,
            health=str(local_health(record.snapshot())),
            **_measured(record.checks),
            slots=record.slots,
            context_tokens=record.context_tokens,
            busy=busy,
            queued=record.in_flight - busy,
            recipe=recipe_of(record.snapshot(), build),
        )
    spec = record.served_spec
    if spec is None:
        return replace(said, capabilities=tuple(sorted(tags))) if tags else said
    return replace(
        said, digest=spec.digest, capabilities=(*sorted(spec.capabilities), *sorted(tags - spec.capabilities)),
        display_name=spec.display_name, architecture=spec.architecture.name, quantization=spec.quantization,
        parameters=spec.parameters, size_bytes=spec.size_bytes,
    )  # fmt: skip


def _measured(checks: HealthChecks | None) -> dict[str, Any]:
    """Return what is announced of the measurements of a model in memory."""
    if checks is None:
        return {}
    return {
        "file_integrity": str(checks.file_integrity), "memory": str(checks.memory), "error_rate": checks.error_rate,
        "response_time_s": checks.response_time_s, "trouble": checks.reason,
    }  # fmt: skip


def _adopted(model: LocalModel) -> ServedModel:
    """Return what is announced of a model of an adopted server: the same model of the same server is the same."""
    said = ServedModel(model=model.id, digest=model.digest, state=_SAID.get(model.state, ServingState.FAILED))
    if said.state is ServingState.FAILED:
        trouble = model.failure.message if model.failure is not None else ""
        return replace(said, health=str(HealthState.UNHEALTHY), trouble=trouble)
    is_ready = said.state is ServingState.READY
    return replace(said, slots=model.slots, context_tokens=model.context_tokens) if is_ready else said


def _on_disk(spec: ModelSpec) -> DiskModel:
    return DiskModel(model=spec.id, digest=spec.digest, size_bytes=spec.size_bytes, files=len(spec.files))


def _load(served: tuple[ServedModel, ...]) -> float:
    slots = sum(one.slots for one in served)
    return round(sum(one.busy for one in served) / slots, 2) if slots else 0.0


# -- what this node wants to be served, by whomever ------------------------------------------------------------


def _requested(held: Holdings, fetching: Fetching, adopted: Collection[ModelId]) -> tuple[RequestedModel, ...]:
    """Return what was asked for at the start, and what the configuration says of other models.

    What an adopted server has is nothing that others could bring.
    """
    found = [(name, model) for name in fetching.names if (model := fetching.found.get(name)) not in adopted]
    asked = {model for _, model in found if model is not None}
    said = [(policy.name, model) for model, policy in sorted(held.policies.items()) if model not in asked]
    wishes = [_wish(name, model, held, is_asked=model is None or model in asked) for name, model in found + said]
    return tuple(wish for wish in wishes if wish is not None)[:ANNOUNCED_REQUESTS]


def _wish(name: str, model: ModelId | None, held: Holdings, *, is_asked: bool) -> RequestedModel | None:
    record = held.records.get(model) if model is not None else None
    if record is not None and record.dropped:
        return None
    if model is None or record is None:
        return RequestedModel(name=name) if is_asked else None
    policy = held.policy_of(model)
    if not policy.is_enabled or policy.load is LoadMode.OFF:
        return None
    is_withdrawn = record.withdrawn or record.held or record.dropped
    wanted = RequestedModel(
        name=name, model=model, digest=record.spec.digest if record.spec is not None else "",
        size_bytes=record.spec.size_bytes if record.spec is not None else 0,
        min_replicas=_least_hosts(policy, is_asked=is_asked and not is_withdrawn), min_warm=policy.min_warm,
    )  # fmt: skip
    source = record.source or _catalogued(model)
    if source is None:
        return wanted
    return replace(
        wanted, repository=source.repository, filename=source.filename, sha256=source.sha256, package=source.package,
        size_bytes=wanted.size_bytes or source.size_bytes,
    )  # fmt: skip


def _least_hosts(policy: ModelPolicy, *, is_asked: bool) -> int:
    """Return how many hosts a model should have: what was asked for has one, unless it may rest."""
    return max(policy.min_replicas, int(is_asked and policy.idle_unload_s is None))


@lru_cache(maxsize=512)
def _catalogued(model: ModelId) -> ModelReference | None:
    found = find(model) if model != NO_MODEL else None
    return reference_of(found[0], found[1], model) if found is not None and found[1] is not None else None
