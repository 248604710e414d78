"""Is the node well, and would a request be answered."""

import pytest

from meshllm.api.health import health_of
from meshllm.core.engines import EngineFault
from meshllm.core.events import EngineProbed, LeaveRequested
from tests.api.node import a_node
from tests.core.builders import a_failure, a_spec, a_story, exited, ready


@pytest.mark.rows("HLT-4")
async def test_health_counts_models_by_phase() -> None:
    """HLT-4."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("tiny",)) as (node, client):
        answer = await client.get("/health")
        document = await answer.json()

        assert answer.status == 200
        assert document.pop("uptime_s") >= 0
        assert document == {
            "status": "healthy", "node_id": node.views.newest.me.node, "peers": 0,
            "models": {"total": 2, "ready": 1, "unloaded": 1},
        }  # fmt: skip


@pytest.mark.rows("HLT-4")
def test_one_failure_beside_a_working_model_is_degraded() -> None:
    """The node still answers; somebody should look."""
    story = a_story(a_spec("a"), a_spec("b"))
    story.tell(ready("a"), exited("b", EngineFault.BAD_FILE))

    assert health_of(story.core.view) == "degraded"


@pytest.mark.rows("HLT-4")
def test_nothing_but_failures_is_unhealthy() -> None:
    """There is nobody left to answer."""
    story = a_story(a_spec("a"))
    story.tell(exited("a", EngineFault.BAD_FILE))

    assert health_of(story.core.view) == "unhealthy"


@pytest.mark.rows("HLT-4", "HLT-9")
@pytest.mark.parametrize("event", [EngineProbed(build=None, failure=a_failure()), LeaveRequested(reason="SIGTERM")])
async def test_node_that_cannot_serve_is_unhealthy_alive_and_not_ready(event: EngineProbed | LeaveRequested) -> None:
    """Three questions, three answers."""
    async with a_node() as (node, client):
        node.tell(event)

        assert (await client.get("/health")).status == 503
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503


@pytest.mark.rows("HLT-9")
async def test_node_is_ready_when_a_model_is() -> None:
    """HLT-9: and asking loads nothing."""
    async with a_node(is_ready=False) as (node, client):
        before = await client.get("/readyz")
        reason = (await before.json())["reason"]
        node.tell(ready("tiny"))
        after = await client.get("/readyz")

        assert (before.status, reason, after.status) == (503, "tiny is loading", 200)
        assert not node.intents
