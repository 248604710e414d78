"""The newest view and the front door's counters as series of Prometheus.

Owns the names of the series, `meshllm_…` and a few that other dashboards know, in registries of their own. Decides
nothing. Doesn't count, nor know requests; imported with the first scrape, since it takes megabytes.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from meshllm.api.cache_series import caches
from meshllm.api.deps import ManagementDeps
from meshllm.api.engine_series import engine_series
from meshllm.api.http_series import http_series
from meshllm.api.mesh_series import mesh_series
from meshllm.api.model_series import model_series
from meshllm.api.quotas import limited
from meshllm.api.status import PHASES, phase_of
from meshllm.core.durations import STEPS_S
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quotas.kinds import Mode
from meshllm.core.quotas.report import remaining_tokens, usage
from meshllm.core.routing.stats import RoutingStats
from meshllm.core.standing import LIVE
from meshllm.core.view import MeshView

_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]+")


def registry_of(deps: ManagementDeps, version: str, *, is_detailed: bool) -> CollectorRegistry:
    """Return a registry that reads `deps` at every scrape; `is_detailed` adds what takes how long."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ViewCollector(deps, version))
    if is_detailed:
        registry.register(DurationCollector(deps))
    return registry


def as_text(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return (text, content type) in the format that a scraper asks for."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def mesh_registry_of(deps: ManagementDeps) -> CollectorRegistry:
    """Return a registry of what all members say of themselves."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MeshCollector(deps))
    return registry


def engine_registry_of(node: NodeId, told: Mapping[ModelId, str | None]) -> CollectorRegistry:
    """Return a registry of what engines told, once."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(node, told))
    return registry


def as_one_text(registries: Sequence[CollectorRegistry], accept: str) -> tuple[bytes, str]:
    """Return (text, content type) of several registries as if they were one."""
    whole = CollectorRegistry(auto_describe=False)
    for registry in registries:
        whole.register(registry)  # all that is asked of a collector is `collect`
    return as_text(whole, accept)


class MeshCollector(Collector):
    """Turns what members say into series."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Read `deps`."""
        self._deps = deps

    def collect(self) -> Iterable[Metric]:
        """Yield the series of the whole mesh."""
        return mesh_series(self._deps.views.newest)


class EngineCollector(Collector):
    """Passes on what engines told."""

    def __init__(self, node: NodeId, told: Mapping[ModelId, str | None]) -> None:
        """Keep it for one scrape."""
        self._node = node
        self._told = told

    def collect(self) -> Iterable[Metric]:
        """Yield the series of engines."""
        return engine_series(self._node, self._told)


class DurationCollector(Collector):
    """Turns what was measured into series."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Read `deps`."""
        self._deps = deps

    def collect(self) -> Iterable[Metric]:
        """Yield one histogram with a series for each phase and name."""
        family = HistogramMetricFamily("meshllm_phase_seconds", "What takes how long.", labels=["phase", "name"])
        for one in self._deps.durations() or ():
            totals = accumulate(one.counts)
            buckets = [(f"{end:g}", total) for end, total in zip((*STEPS_S, float("inf")), totals, strict=True)]
            family.add_metric([one.phase, one.name], [("+Inf" if e == "inf" else e, n) for e, n in buckets], one.sum_s)
        yield family


class ViewCollector(Collector):
    """Turns a view into series when it is scraped."""

    def __init__(self, deps: ManagementDeps, version: str) -> None:
        """Read `deps`."""
        self._deps = deps
        self._version = version

    def collect(self) -> Iterable[Metric]:
        """Yield every series of this moment."""
        view = self._deps.views.newest
        yield InfoMetricFamily(
            "meshllm_node", "This node.", {"id": view.me.node, "name": view.me.name, "version": self._version}
        )
        uptime_s = asyncio.get_running_loop().time() - self._deps.started_s
        yield GaugeMetricFamily("meshllm_uptime_seconds", "Time since the daemon started.", uptime_s)
        yield CounterMetricFamily("meshllm_view_epoch", "Changes of what the node knows.", view.epoch)
        yield from _machine(view)
        yield _lines(view, self._deps.lines_by_peer())
        yield from self._models(view)
        yield from model_series(view)
        yield from http_series(self._deps.http())
        up = GaugeMetricFamily("meshllm_server_up", "1 while an adopted server answers.", labels=["server"])
        for server in view.remotes:
            up.add_metric([server.name], float(server.is_up))
        yield up
        yield from _routing(self._deps.routes.stats)
        yield from _quotas(self._deps)
        yield from caches(view)
        for name, value in sorted(self._deps.counters().items()):
            series = _NOT_A_NAME.sub("_", name).strip("_")
            yield CounterMetricFamily(f"meshllm_{series}", f"Front door: {series.replace('_', ' ')}.", value)

    def _models(self, view: MeshView) -> Iterable[Metric]:
        phase = GaugeMetricFamily("meshllm_model_phase", "1 for the phase a model is in.", labels=["model", "phase"])
        in_flight = GaugeMetricFamily("meshllm_model_in_flight", "Requests being answered.", labels=["model"])
        slots = GaugeMetricFamily("meshllm_model_slots", "Requests computed at the same time.", labels=["model"])
        memory = GaugeMetricFamily("meshllm_model_memory_bytes", "Memory planned for the engine.", labels=["model"])
        load = GaugeMetricFamily("meshllm_model_load_seconds", "Duration of the last load.", labels=["model"])
        restarts = CounterMetricFamily("meshllm_model_restarts", "Restarts after a failure.", labels=["model"])
        kind = GaugeMetricFamily("meshllm_model_kind", "1 for who runs a model.", labels=["model", "kind", "server"])
        for name, model in sorted(view.local.items()):
            kind.add_metric([name, "adopted" if model.adopted_from else "engine", model.adopted_from], 1.0)
            for each in PHASES:
                phase.add_metric([name, each], float(phase_of(model) == each))
            in_flight.add_metric([name], self._deps.in_flight(name))
            slots.add_metric([name], model.slots)
            memory.add_metric([name], model.plan.memory.total_bytes if model.plan is not None else 0)
            load.add_metric([name], model.load_s)
            restarts.add_metric([name], model.restarts)
        return (kind, phase, in_flight, slots, memory, load, restarts)


def _lines(view: MeshView, counts: Mapping[NodeId, int]) -> Metric:
    """Return the lines with each peer that is reached: none is a number, too."""
    lines = GaugeMetricFamily("meshllm_lines", "Warm connections on which tunnels go.", labels=["node", "name"])
    for node, member in sorted(view.members.items()):
        if node != view.me.node and member.state in LIVE:
            lines.add_metric([node, member.announcement.name], counts.get(node, 0))
    return lines


def _routing(stats: RoutingStats) -> Iterable[Metric]:
    """Yield what was decided about requests, also by the names that older dashboards ask for."""
    buckets, total_s = stats.durations()
    for prefix in ("meshllm", "nopenai"):
        total = CounterMetricFamily(f"{prefix}_routing", "Choices of a host, by strategy.", labels=["strategy"])
        for strategy, count in stats.strategies().items():
            total.add_metric([strategy], count)
        yield total
    took = HistogramMetricFamily("meshllm_routing_duration_seconds", "Time that the choice of a host takes.")
    took.add_metric([], [(_bound(edge_s), count) for edge_s, count in buckets], total_s)
    yield took
    summary = SummaryMetricFamily("nopenai_routing_duration_seconds", "Time that the choice of a host takes.")
    summary.add_metric([], buckets[-1][1], total_s)
    summary.add_sample("nopenai_routing_duration_seconds", {"quantile": "0.99"}, _quantile_s(buckets, 0.99))
    yield summary


def _quotas(deps: ManagementDeps) -> Iterable[Metric]:
    """Yield how much is used of each quota, by the names that older dashboards ask for, too."""
    reports = [deps.quota_report(model) for model in limited(deps.views.newest)]
    for prefix in ("meshllm", "nopenai"):
        used = GaugeMetricFamily(
            f"{prefix}_quota_usage_percent", "Share of a quota that is used.", labels=["model", "type"]
        )
        left = GaugeMetricFamily(f"{prefix}_quota_remaining_tokens", "Tokens that are left.", labels=["model"])
        mode = GaugeMetricFamily(f"{prefix}_quota_mode", "1 for how near to its limits.", labels=["model", "mode"])
        for report in reports:
            model = str(report["model_id"])
            for kind, percent in usage(report).items():
                used.add_metric([model, kind], percent)
            if (tokens := remaining_tokens(report)) is not None:
                left.add_metric([model], tokens)
            for each in Mode:
                mode.add_metric([model, str(each)], float(report["mode"] == each))
        yield from (used, left, mode)


def _bound(edge_s: float) -> str:
    return "+Inf" if edge_s == inf else f"{edge_s:g}"


def _quantile_s(buckets: Sequence[tuple[float, int]], share: float) -> float:
    """Return below which bound so large a share lies: of the buckets, so it is never too small, save at their end."""
    wanted = buckets[-1][1] * share
    return next((edge_s for edge_s, count in buckets[:-1] if count >= wanted), buckets[-2][0]) if wanted else 0.0


def _machine(view: MeshView) -> Iterable[Metric]:
    resources = view.resources
    if resources is None:
        return
    memory = GaugeMetricFamily("meshllm_memory_bytes", "Memory of the machine.", labels=["kind"])
    memory.add_metric(["total"], resources.memory_total_bytes)
    memory.add_metric(["free"], resources.memory_free_bytes)
    gpus = GaugeMetricFamily("meshllm_gpu_memory_bytes", "Memory of the GPUs.", labels=["gpu", "name", "kind"])
    for gpu in resources.gpus:
        gpus.add_metric([str(gpu.index), gpu.name, "total"], gpu.total_bytes)
        gpus.add_metric([str(gpu.index), gpu.name, "free"], gpu.free_bytes)
    yield memory
    yield gpus
