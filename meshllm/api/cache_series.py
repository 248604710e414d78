"""What engines found in their prompt caches, as series of Prometheus.

Owns the names of these series. Decides nothing: the core adds up what engines count. Imported with the first scrape.
"""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from meshllm.core.view import MeshView


def caches(view: MeshView) -> Iterable[Metric]:
    """Yield what engines found in their prompt caches, by the names that older dashboards ask for, too."""
    uses = sorted(view.caches.uses.items())
    for prefix in ("meshllm", "nopenai"):
        rate = GaugeMetricFamily(f"{prefix}_cache_hit_rate", "Share of prompt tokens found cached.", labels=["model"])
        size = GaugeMetricFamily(f"{prefix}_cache_size_bytes", "Memory that the cache takes.", labels=["model"])
        for model, use in uses:
            if use.hit_rate is not None:
                rate.add_metric([model], use.hit_rate)
            size.add_metric([model], use.size_bytes)
        yield from (rate, size)
    tokens = CounterMetricFamily("meshllm_cache_prompt_tokens", "Tokens of prompts.", labels=["model", "found"])
    evictions = CounterMetricFamily("meshllm_cache_evictions", "Caches emptied for others.", labels=["model"])
    for model, use in uses:
        tokens.add_metric([model, "hit"], use.hit_tokens)
        tokens.add_metric([model, "miss"], use.miss_tokens)
        evictions.add_metric([model], use.evictions)
    shares = GaugeMetricFamily("meshllm_cache_allocated_bytes", "Share of the node's prompt cache.", labels=["model"])
    for model, share in sorted(view.caches.shares.items()):
        shares.add_metric([model], share)
    yield from (tokens, evictions, shares)
