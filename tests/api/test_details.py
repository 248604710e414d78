"""One model over HTTP."""

from tests.api.node import a_node
from tests.core.builders import a_spec


async def test_details_have_the_status_the_files_and_the_arithmetic() -> None:
    """What `mesh-llm show` needs of a node whose folders it doesn't know; reading by `default` is harmless."""
    async with a_node(a_spec("tiny"), requested=("tiny",)) as (_, client):
        for name in ("tiny", "TINY", "default"):
            answer = await client.get(f"/api/models/{name}")
            document = await answer.json()

            assert answer.status == 200
            assert (document["model"]["id"], document["model"]["phase"]) == ("tiny", "ready")
            assert document["files"] == ["/models/tiny.gguf"]
            assert document["memory"] == {"fits": "yes"}


async def test_details_of_an_unknown_model_are_404_with_near_names() -> None:
    """Nothing is loaded or fetched by looking."""
    async with a_node() as (node, client):
        answer = await client.get("/api/models/tin")

        assert answer.status == 404
        assert "did you mean tiny?" in (await answer.json())["error"]["message"]
        assert not node.intents
