"""The monitoring stack, which nobody needs, looks at what a node really has."""

import json
from typing import Any

import pytest
import yaml

from meshllm.api.routes import ROUTES
from meshllm.config import DEFAULT_PORT
from tests.house.tree import ROOT

COMPOSE = "compose.monitoring.yml"
DASHBOARDS = ROOT / "monitoring" / "dashboards"


@pytest.mark.rows("CLI-23")
def test_the_stack_asks_a_node_for_what_it_has() -> None:
    """A path that is a route, at the port that a node has unless told otherwise; every file that is mounted exists."""
    stack = yaml.safe_load((ROOT / COMPOSE).read_text(encoding="utf-8"))["services"]
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    source = yaml.safe_load((ROOT / "monitoring" / "grafana.yml").read_text(encoding="utf-8"))["datasources"][0]

    mounts = [volume.split(":")[0] for service in stack.values() for volume in service.get("volumes", ())]
    jobs = scraped["scrape_configs"]

    assert [mount for mount in mounts if not (ROOT / mount).exists()] == []
    assert [job.get("params") for job in jobs] == [None, {"scope": ["mesh"]}]
    for job in jobs:
        assert job["metrics_path"] in {route.path for route in ROUTES}
        assert job["static_configs"] == [{"targets": [f"127.0.0.1:{DEFAULT_PORT}"]}]
    assert (source["type"], source["isDefault"], source["uid"]) == ("prometheus", True, "mesh-llm")


@pytest.mark.rows("DSH-2")
def test_the_stack_shows_dashboards_and_traces_on_this_machine_alone() -> None:
    """Grafana on 3000 with what is provisioned, Jaeger on 16686; nobody else on the network sees either."""
    stack = yaml.safe_load((ROOT / COMPOSE).read_text(encoding="utf-8"))["services"]
    provider = yaml.safe_load((ROOT / "monitoring" / "dashboards.yml").read_text(encoding="utf-8"))["providers"][0]
    text = (ROOT / COMPOSE).read_text(encoding="utf-8")

    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in stack["grafana"]["volumes"]}

    assert mounted["./monitoring/dashboards"] == provider["options"]["path"]
    assert stack["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert stack["jaeger"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in (16686, 4318)]
    assert "http://127.0.0.1:3000" in text
    assert "--trace-endpoint http://127.0.0.1:4318" in text


@pytest.mark.rows("DSH-1", "DSH-3")
def test_there_are_five_dashboards_each_of_which_can_be_narrowed_to_a_model() -> None:
    """By the variable `model`, which the panels about models use; all from the one source."""
    boards = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS.glob("*.json")}

    assert sorted(board["title"] for board in boards.values()) == [
        "Cache Performance", "Health Status", "Multi-Model Overview", "Resource Utilisation", "Routing Performance",
    ]  # fmt: skip
    for board in boards.values():
        (variable,) = board["templating"]["list"]
        expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        assert (variable["name"], variable["query"]) == ("model", "label_values(meshllm_model_phase, model)")
        assert any('model=~"$model"' in expression for expression in expressions)
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"mesh-llm"}


@pytest.mark.rows("CLI-23")
def test_nothing_that_starts_or_tests_a_node_needs_the_stack() -> None:
    """It is optional: only pages for people name it."""
    starters = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run", ROOT / "pyproject.toml", ROOT / "hatch_build.py"]

    naming = [path.name for path in starters if path.is_file() and "docker" in path.read_text(errors="ignore").lower()]

    assert naming == []
    assert COMPOSE in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.rows("OPS-8")
def test_the_page_of_first_steps_leads_to_each_part_of_the_stack() -> None:
    """By its address, in the words that the files have."""
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    steps = page.partition("## First steps")[2].partition("\n## ")[0]
    jobs = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]

    addresses = [f"http://127.0.0.1:{port}" for port in (9090, 3000, 16686, 4318, DEFAULT_PORT)]
    named = [*addresses, COMPOSE, *(job["job_name"] for job in jobs), "/metrics/routing?detailed=true"]

    assert [name for name in named if name not in steps] == []
    assert [board["title"] for board in _boards() if board["title"] not in page] == []


def _boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS.glob("*.json")]
