"""The whole mesh in one scrape."""

from dataclasses import replace

import pytest

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId
from meshllm.core.standing import MemberState
from tests.api.node import a_node
from tests.api.scraped import has, scraped, value
from tests.core.builders import a_gpu, a_member

MESH = "/metrics?scope=mesh"


@pytest.mark.rows("MET-10")
async def test_one_scrape_tells_of_all_members() -> None:
    """Machines, models, requests: as each says itself."""
    other = a_member("other", models=("tiny", "big"), gpus=(a_gpu(),))
    said = replace(other.announcement, uses=((ModelId("tiny"), 5),), load=0.25)
    async with a_node() as (node, client):
        node.meet(replace(other, announcement=said))
        found = await scraped(client, MESH)

    labels = {"node": said.node}
    assert value(found, "meshllm_mesh_node_up", name="other", role="host", **labels) == 1
    assert value(found, "meshllm_mesh_members", state="alive") == 2
    assert value(found, "meshllm_mesh_memory_bytes", kind="total", **labels) > 0
    assert value(found, "meshllm_mesh_gpu_memory_bytes", kind="total", **labels) > 0
    assert value(found, "meshllm_mesh_load", **labels) == 0.25
    for model in ("tiny", "big"):
        assert value(found, "meshllm_mesh_model_ready", model=model, **labels) == 1
        assert value(found, "meshllm_mesh_model_health_status", model=model, **labels) == 1
        assert value(found, "meshllm_mesh_model_slots", model=model, **labels) == 4
    assert value(found, "meshllm_mesh_model_requests_total", model="tiny", **labels) == 5


@pytest.mark.rows("MET-10")
async def test_a_member_that_is_gone_is_told_as_gone_with_nothing_of_what_it_had() -> None:
    """A dashboard that adds up memory counts no dead machine."""
    async with a_node() as (node, client):
        node.meet(a_member("other", state=MemberState.DEAD, models=("big",)))
        found = await scraped(client, MESH)

    assert value(found, "meshllm_mesh_node_up", name="other") == 0
    assert value(found, "meshllm_mesh_members", state="dead") == 1
    assert [one.name for one in found if has(one.labels, {"model": "big"})] == []


async def test_a_model_that_is_not_ready_yet_is_told_as_such() -> None:
    """And one that is unwell, by its node's own word."""
    other = a_member("other", models=("tiny", "big"))
    tiny, big = other.announcement.serving
    serving = (replace(tiny, state=ServingState.LOADING), replace(big, health="degraded"))
    async with a_node() as (node, client):
        node.meet(replace(other, announcement=replace(other.announcement, serving=serving)))
        found = await scraped(client, MESH)

    node_id = other.announcement.node
    assert value(found, "meshllm_mesh_model_ready", model="tiny", node=node_id) == 0
    assert value(found, "meshllm_mesh_model_health_status", model="big", node=node_id) == 0.5


async def test_an_unknown_scope_is_refused_with_the_parameter() -> None:
    """There are two."""
    async with a_node() as (_, client):
        answer = await client.get("/metrics?scope=world")

        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "scope"
