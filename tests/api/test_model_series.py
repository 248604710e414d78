"""Requests and health of models, as series."""

import pytest

from meshllm.api.model_series import health_worth
from meshllm.core.events import TrafficMeasured
from meshllm.core.health import HealthState
from meshllm.core.ids import ModelId
from tests.api.node import a_node
from tests.api.scraped import scraped, value
from tests.core.builders import a_spec


@pytest.mark.rows("MET-3")
async def test_requests_and_health_are_told_with_model_and_node() -> None:
    """Under our name and under the one that older dashboards ask for."""
    async with a_node(a_spec("tiny"), a_spec("other")) as (node, client):
        node.tell(TrafficMeasured(finished=((ModelId("tiny"), 3),)))
        found = await scraped(client)
        me = node.views.newest.me.node

    for prefix in ("meshllm", "nopenai"):
        assert value(found, f"{prefix}_model_requests_total", model="tiny", node=me) == 3
        assert value(found, f"{prefix}_model_health_status", model="tiny", node=me) == 1
        assert value(found, f"{prefix}_model_health_status", model="other", node=me) == 0


@pytest.mark.rows("MET-3")
@pytest.mark.parametrize(
    ("state", "worth"), [("healthy", 1.0), ("degraded", 0.5), ("unhealthy", 0.0), ("loading", 0.0)]
)
def test_health_is_a_number_between_nothing_and_all(state: str, worth: float) -> None:
    """So that an alert can be a bound."""
    assert health_worth(HealthState(state)) == worth


@pytest.mark.rows("MET-6", "GEN-2")
async def test_everything_about_a_model_carries_it() -> None:
    """Whoever has one model in mind finds all of it by one label."""
    async with a_node() as (node, client):
        node.numbers.streamed("tiny", 1.0, events=3)
        node.told_by_engines[ModelId("tiny")] = "# TYPE llamacpp:x gauge\nllamacpp:x 1\n"
        found = [*await scraped(client), *await scraped(client, "/metrics?scope=mesh")]

    about = ("model", "quota", "http_request", "time_to_first", "inter_token", "engine")
    without = {one.name for one in found if one.name.split("_", 1)[1].startswith(about) and "model" not in one.labels}
    assert without == set()
    assert len({one.name for one in found if "model" in one.labels}) > 10
