"""What engines count, passed on."""

import pytest

from meshllm.api.engine_series import engine_series
from meshllm.core.ids import ModelId, NodeId
from tests.api.node import a_node
from tests.api.scraped import samples_of, scraped, value

TINY, OTHER = ModelId("tiny"), ModelId("other")
ME = NodeId("n1")
TOLD = """# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 31
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing {}
"""


@pytest.mark.rows("MET-9", "MET-6")
async def test_engines_metrics_are_passed_on_with_model_and_node() -> None:
    """Two engines, one family: a scraper refuses a name that is there twice."""
    async with a_node() as (node, client):
        node.told_by_engines = {TINY: TOLD.format(1), OTHER: TOLD.format(2)}
        text = await (await client.get("/metrics")).text()
        found = await scraped(client)
        me = node.views.newest.me.node

    assert value(found, "meshllm_engine_prompt_tokens_total", model="tiny", node=me) == 31
    assert value(found, "meshllm_engine_requests_processing", model="other", node=me) == 2
    assert text.count("# TYPE meshllm_engine_requests_processing gauge") == 1


@pytest.mark.rows("MET-9")
@pytest.mark.parametrize("told", [None, "", "<html>", 'x{y="} 1', "llamacpp:x one"])
def test_an_engine_that_tells_nothing_hides_nothing_of_others(told: str | None) -> None:
    """It is down, and the others are there."""
    found = samples_of(engine_series(ME, {TINY: told, OTHER: TOLD.format(2)}))

    assert value(found, "meshllm_engine_up", model="tiny", node="n1") == 0
    assert value(found, "meshllm_engine_up", model="other", node="n1") == 1
    assert value(found, "meshllm_engine_prompt_tokens_total", model="other") == 31


def test_engines_that_disagree_about_a_name_are_not_mixed() -> None:
    """A counter of one is no gauge of another."""
    other = TOLD.format(2).replace("requests_processing gauge", "requests_processing untyped")

    found = samples_of(engine_series(ME, {OTHER: TOLD.format(1), TINY: other}))

    assert [one.labels["model"] for one in found if one.name == "meshllm_engine_requests_processing"] == ["other"]
