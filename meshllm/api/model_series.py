"""How this node's models are, and what they answered, as series: by the names that older dashboards know, too.

Owns their names. Decides which number stands for which health. Counts nothing.
"""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from meshllm.core.health import HealthState
from meshllm.core.serving.health import local_health
from meshllm.core.view import MeshView

_WORTH = {HealthState.HEALTHY: 1.0, HealthState.DEGRADED: 0.5}
PREFIXES = ("meshllm", "nopenai")


def health_worth(state: HealthState) -> float:
    """Return 1 for a healthy model, 0.5 for a degraded one, 0 for one that answers nothing."""
    return _WORTH.get(state, 0.0)


def model_series(view: MeshView) -> Iterable[Metric]:
    """Yield requests and health of each model of this node."""
    node = view.me.node
    for prefix in PREFIXES:
        requests = CounterMetricFamily(f"{prefix}_model_requests", "Requests finished.", labels=["model", "node"])
        health = GaugeMetricFamily(
            f"{prefix}_model_health_status", "1 healthy, 0.5 degraded, 0 otherwise.", labels=["model", "node"]
        )
        for name, model in sorted(view.local.items()):
            requests.add_metric([name, node], model.requests)
            health.add_metric([name, node], health_worth(local_health(model)))
        yield from (requests, health)
