"""The monitoring stack, which nobody needs, looks at what a node really has."""

import pytest
import yaml

from meshllm.api.app import ROUTES
from meshllm.config import DEFAULT_PORT
from tests.house.tree import ROOT

COMPOSE = "compose.monitoring.yml"


@pytest.mark.rows("CLI-23")
def test_the_stack_asks_a_node_for_what_it_has() -> None:
    """A path that is a route, at the port that a node has unless told otherwise; every file that is mounted exists."""
    stack = yaml.safe_load((ROOT / COMPOSE).read_text(encoding="utf-8"))["services"]
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    source = yaml.safe_load((ROOT / "monitoring" / "grafana.yml").read_text(encoding="utf-8"))["datasources"][0]

    mounts = [volume.split(":")[0] for service in stack.values() for volume in service["volumes"]]
    job = scraped["scrape_configs"][0]

    assert [mount for mount in mounts if not (ROOT / mount).is_file()] == []
    assert job["metrics_path"] in {route.path for route in ROUTES}
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{DEFAULT_PORT}"]}]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)


@pytest.mark.rows("CLI-23")
def test_nothing_that_starts_or_tests_a_node_needs_the_stack() -> None:
    """It is optional: only pages for people name it."""
    starters = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run", ROOT / "pyproject.toml", ROOT / "hatch_build.py"]

    naming = [path.name for path in starters if path.is_file() and "docker" in path.read_text(errors="ignore").lower()]

    assert naming == []
    assert COMPOSE in (ROOT / "README.md").read_text(encoding="utf-8")
