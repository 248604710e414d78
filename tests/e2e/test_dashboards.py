"""Every expression of the dashboards finds a series on the pages of a real daemon."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.e2e.daemons import Daemon, until
from tests.e2e.promql import labels_wanted, selectors
from tests.house.tree import ROOT

pytestmark = pytest.mark.e2e

DASHBOARDS = sorted((ROOT / "monitoring" / "dashboards").glob("*.json"))

Maker = Callable[..., Daemon]


def targets(path: Path) -> list[dict[str, Any]]:
    """Return the questions of a dashboard."""
    return [target for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]


def scraped(node: Daemon) -> list[Sample]:
    """Return what both jobs of the stack read."""
    text = "".join(node.request("GET", path).body.decode() for path in ("/metrics", "/metrics?scope=mesh"))
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def lacking(samples: list[Sample]) -> list[str]:
    """Return what dashboards ask for and nothing tells."""
    asked = [(path.stem, target["expr"], target["legendFormat"]) for path in DASHBOARDS for target in targets(path)]
    return [
        f"{board}: {selector.name} in {expression}"
        for board, expression, legend in asked
        for selector in selectors(expression)
        if not any(labels_wanted(expression, legend) <= one.labels.keys() for one in selector.finds(samples))
    ]


@pytest.mark.rows("DSH-1", "T18", "MET-9")
def test_every_expression_of_every_dashboard_finds_a_series(daemon: Maker) -> None:
    """With each label that it groups by and that its legend shows; a node that has answered little has them all."""
    with daemon("--model", "tiny") as node:
        node.until_model("tiny", phase="ready")
        assert node.chat(stream=True).status == node.chat().status == 200
        assert node.chat(model="nobody").status == 404
        assert len(DASHBOARDS) == 5
        with contextlib.suppress(AssertionError):  # what is lacking then is told below
            until(lambda: not lacking(scraped(node)), "what members hear of a model in the next moments")
        lacks = lacking(scraped(node))

    assert lacks == []


def test_a_selector_that_finds_nothing_is_noticed() -> None:
    """The check can fail: by name, by label, by matcher."""
    samples = [Sample("meshllm_x_total", {"model": "tiny"}, 1.0)]

    finds = [
        bool(one.finds(samples))
        for text in (
            "sum by (model) (rate(meshllm_x_total[5m]))", 'meshllm_x_total{model=~"$model"}', "meshllm_y_total",
            'meshllm_x_total{model!="tiny"}', 'meshllm_x_total{model=~"t.*",node="a"}', 'meshllm_x_total{model!~"a.*"}',
        )
        for one in selectors(text)
    ]  # fmt: skip

    assert finds == [True, True, False, False, False, True]
    assert labels_wanted("sum by (le, model) (x)", "{{model}} at {{node}}") == {"le", "model", "node"}
