"""The whole mesh as series, from what its members say of themselves: one scrape at any node.

Owns their names, all `meshllm_mesh_…`. Decides nothing. Doesn't ask anybody: what is shown is what gossip has brought,
so a member that is gone is shown as such, with nothing of what it had.
"""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from meshllm.api.model_series import health_worth
from meshllm.core.announcement import Announcement, ServedModel, ServingState
from meshllm.core.serving.health import remote_health
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import MeshView

_BY_NODE = ["node", "name"]
_BY_MODEL = ["model", "node"]


def mesh_series(view: MeshView) -> Iterable[Metric]:
    """Yield the series of all members."""
    yield from _members(view)
    said = [member.announcement for member in view.members.values() if member.state in LIVE]
    yield from _machines(said)
    yield from _models(said)
    yield from _use(view, said)


def _members(view: MeshView) -> Iterable[Metric]:
    states = GaugeMetricFamily("meshllm_mesh_members", "Members by state.", labels=["state"])
    counts = Counter(member.state for member in view.members.values())
    for state in MemberState:
        states.add_metric([str(state)], counts[state])
    up = GaugeMetricFamily("meshllm_mesh_node_up", "1 for a member that answers.", labels=[*_BY_NODE, "role"])
    for node, member in sorted(view.members.items()):
        said = member.announcement
        up.add_metric([node, said.name, str(said.role)], float(member.state in LIVE))
    return (states, up)


def _machines(said: Iterable[Announcement]) -> Iterable[Metric]:
    memory = GaugeMetricFamily("meshllm_mesh_memory_bytes", "Memory.", labels=[*_BY_NODE, "kind"])
    gpus = GaugeMetricFamily("meshllm_mesh_gpu_memory_bytes", "Memory of GPUs.", labels=[*_BY_NODE, "kind"])
    disk = GaugeMetricFamily("meshllm_mesh_disk_free_bytes", "Where downloads go.", labels=_BY_NODE)
    load = GaugeMetricFamily("meshllm_mesh_load", "Busy share of all slots, 0 to 1.", labels=_BY_NODE)
    for one in said:
        names = [one.node, one.name]
        load.add_metric(names, one.load)
        if (has := one.resources) is None:
            continue
        memory.add_metric([*names, "total"], has.memory_total_bytes)
        memory.add_metric([*names, "free"], has.memory_free_bytes)
        gpus.add_metric([*names, "total"], has.gpu_total_bytes)
        gpus.add_metric([*names, "free"], has.gpu_free_bytes)
        disk.add_metric(names, has.disk_free_bytes)
    return (memory, gpus, disk, load)


def _models(said: Iterable[Announcement]) -> Iterable[Metric]:
    ready = GaugeMetricFamily("meshllm_mesh_model_ready", "1 where a model answers.", labels=_BY_MODEL)
    health = GaugeMetricFamily(
        "meshllm_mesh_model_health_status", "1 healthy, 0.5 degraded, 0 otherwise.", labels=_BY_MODEL
    )
    slots = GaugeMetricFamily("meshllm_mesh_model_slots", "Requests computed at the same time.", labels=_BY_MODEL)
    busy = GaugeMetricFamily("meshllm_mesh_model_busy", "Requests being answered.", labels=_BY_MODEL)
    queued = GaugeMetricFamily("meshllm_mesh_model_queued", "Requests waiting at the engine.", labels=_BY_MODEL)
    hits = GaugeMetricFamily(
        "meshllm_mesh_model_cache_hit_rate", "Share of prompt tokens from the cache, 0 to 1.", labels=_BY_MODEL
    )
    for one in said:
        for served in _each(one):
            names = [served.model, one.node]
            ready.add_metric(names, float(served.state is ServingState.READY))
            health.add_metric(names, health_worth(remote_health(served)))
            for family, value in (
                (slots, served.slots), (busy, served.busy), (queued, served.queued), (hits, served.hit_rate),
            ):  # fmt: skip
                family.add_metric(names, value)
    return (ready, health, slots, busy, queued, hits)


def _each(said: Announcement) -> Iterable[ServedModel]:
    """Return what a node serves, each name once."""
    return {served.model: served for served in reversed(said.serving)}.values()


def _use(view: MeshView, said: Iterable[Announcement]) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        "meshllm_mesh_model_requests", "Requests that a node's engines answered.", labels=_BY_MODEL
    )
    for one in said:
        for model, count in one.uses:
            requests.add_metric([model, one.node], count)
    demand = GaugeMetricFamily("meshllm_mesh_model_demand", "Requests a minute, decayed.", labels=["model"])
    for model, rate in sorted(view.demand.items()):
        demand.add_metric([model], rate)
    cold = GaugeMetricFamily("meshllm_mesh_model_cold", "1 for a model that nobody serves.", labels=["model"])
    for model in sorted(view.cold):
        cold.add_metric([model], 1.0)
    return (requests, demand, cold)
