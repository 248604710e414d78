"""What engines count themselves, passed on as series of their model and node.

Owns the renaming: `llamacpp:prompt_tokens_total` is `meshllm_engine_prompt_tokens_total`. Decides that an engine that
does not answer, or says what is no metrics, is told as such, and hides nothing of the others. Doesn't know how engines
are asked.
"""

import re
from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from meshllm.core.ids import ModelId, NodeId

_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]+")
_LABELS = ["model", "node"]


def engine_series(node: NodeId, told: Mapping[ModelId, str | None]) -> Iterable[Metric]:
    """Yield what engines of this node say; `told` has the text of each, None of one that said nothing."""
    up = GaugeMetricFamily("meshllm_engine_up", "1 for an engine that tells its metrics.", labels=_LABELS)
    families: dict[str, Metric] = {}
    for model, text in sorted(told.items()):
        try:
            read = list(text_string_to_metric_families(text)) if text else []
        except ValueError:  # of another program, of any version
            read = []
        up.add_metric([model, node], float(bool(read)))
        for family in read:
            _add(families, family, {"model": model, "node": node})
    yield up
    yield from families.values()


def _add(families: dict[str, Metric], family: Metric, own: dict[str, str]) -> None:
    """Add the samples of one engine's family to ours of that name."""
    name = _renamed(family.name)
    ours = families.setdefault(name, Metric(name, family.documentation or "Of the engine.", family.type))
    if ours.type != family.type:
        return
    for sample in family.samples:
        ours.add_sample(_renamed(sample.name), {**sample.labels, **own}, sample.value)


def _renamed(name: str) -> str:
    """Return our name of an engine's series."""
    return f"meshllm_engine_{_NOT_A_NAME.sub('_', name.partition(':')[2] or name).strip('_')}"
