"""What the front door answered, as series: counts by method, path, model and status; times by path and model.

Owns their names. Decides nothing, and counts nothing.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from meshllm.core.health import FIRST_TOKEN_STEPS_S
from meshllm.core.http_numbers import HttpReport, Timing


def http_series(numbers: HttpReport) -> Iterable[Metric]:
    """Yield the series of a front door."""
    answered = CounterMetricFamily(
        "meshllm_http_requests", "Requests answered.", labels=["method", "path", "model", "status"]
    )
    for (method, path, model, status), count in sorted(numbers.requests.items()):
        answered.add_metric([method, path, model, str(status)], count)
    yield answered
    took = HistogramMetricFamily(
        "meshllm_http_request_duration_seconds",
        "Time to the end of an answer; of what takes the straight lane, one request every few seconds.",
        labels=["path", "model"],
    )
    for (path, model), timing in sorted(numbers.durations.items()):
        _add(took, [path, model], timing)
    yield took
    first = HistogramMetricFamily("meshllm_time_to_first_token_seconds", "Until a stream began.", labels=["model"])
    for model, steps in sorted(numbers.first_tokens.items()):
        _add_steps(first, [model], steps)
    yield first
    between = HistogramMetricFamily(
        "meshllm_inter_token_seconds",
        "Between two events of a stream, as the mean of each that was timed.",
        labels=["model"],
    )
    for model, timing in sorted(numbers.between_tokens.items()):
        _add(between, [model], timing)
    yield between


def _add(family: HistogramMetricFamily, labels: list[str], timing: Timing) -> None:
    steps = [("+Inf" if edge_s == inf else f"{edge_s:g}", count) for edge_s, count in timing.steps]
    family.add_metric(labels, steps, timing.sum_s)


def _add_steps(family: HistogramMetricFamily, labels: list[str], counts: Mapping[int, int]) -> None:
    """Add times that were counted in steps; each is taken for the end of its step."""
    totals = accumulate(counts.get(step, 0) for step in range(len(FIRST_TOKEN_STEPS_S)))
    steps = [(f"{edge_s:g}", total) for edge_s, total in zip(FIRST_TOKEN_STEPS_S, totals, strict=True)]
    sum_s = sum(FIRST_TOKEN_STEPS_S[step] * count for step, count in counts.items())
    family.add_metric(labels, [*steps, ("+Inf", steps[-1][1])], sum_s)
