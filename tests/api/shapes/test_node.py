"""What is said of this node and of the others is what the reference says, key by key."""

from dataclasses import replace

from meshllm.api.deps import TokenFacts
from meshllm.core.announcement import SharedModel, SharedPart
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.rights import GUEST
from tests.api.described import asked
from tests.api.node import FakeNode, a_node
from tests.core.builders import a_member, a_spec


def sharing(node: FakeNode) -> None:
    """Let the node meet one that shares a model, and one that is dead."""
    studio = a_member("studio", models=("big",), rtt_s=0.01, last_heard_s=1.0)
    parts = (SharedPart(node=studio.announcement.node, layers=4, memory_bytes=5),)
    served = replace(studio.announcement.serving[0], shared=SharedModel(epoch=2, parts=parts))
    said = replace(studio.announcement, serving=(served,))
    node.meet(replace(studio, announcement=said), a_member("old", state="dead"))


async def test_the_status_document_is_described() -> None:
    """With models in memory and on disk, members, and a model that is shared."""
    async with a_node(a_spec("tiny"), a_spec("other"), requested=("tiny", "nonsense")) as (node, client):
        sharing(node)

        document = await asked(client, "GET", "/api/status")
        nodes = await asked(client, "GET", "/api/nodes")

        assert {one["id"] for one in document["models"]} == {"tiny", "other"}
        assert len(document["members"]) == len(nodes["nodes"]) == 3
        assert any(model["split"] for one in nodes["nodes"] for model in one["models"])


async def test_a_node_that_knows_nothing_yet_is_described() -> None:
    """Without models, mesh, measurements."""
    async with a_node(is_ready=False) as (node, client):
        node.mesh = None

        document = await asked(client, "GET", "/api/status")

        assert document["mesh"] is None


async def test_tokens_and_expelling_are_described() -> None:
    """Made, listed, taken back."""
    async with a_node() as (node, client):
        node.meet(a_member("studio"))
        node.given = [
            TokenFacts(id=TokenId(name), rights=GUEST, expires_unix_s=4e9, uses_left=None, made_by=NodeId("a" * 52))
            for name in ("aaaa", "bbbb")
        ]

        made = await asked(client, "POST", "/api/tokens", {"rights": "guest", "ttl_s": 60.0, "uses": 1}, status=201)
        listed = await asked(client, "GET", "/api/tokens")
        gone = await asked(client, "DELETE", "/api/tokens/aaaa")
        all_gone = await asked(client, "POST", "/api/tokens/rotate")
        expelled = await asked(client, "POST", "/api/nodes/studio/revoke", {"reason": "sold"})

        assert made["uses"] == 1
        assert (len(listed["tokens"]), gone["revoked"], all_gone["revoked"]) == (2, "aaaa", 1)
        assert expelled["revoked"].startswith("studio")


async def test_health_and_diagnostics_are_described() -> None:
    """Probes, the journal, limits."""
    async with a_node() as (_, client):
        for path in ("/health", "/healthz", "/readyz", "/api/journal", "/api/limits"):
            assert await asked(client, "GET", path)


async def test_a_node_that_cannot_answer_yet_says_so_as_described() -> None:
    """503 has the shape of 200."""
    async with a_node(is_ready=False) as (_, client):
        document = await asked(client, "GET", "/readyz", status=503)

        assert document["reason"]


async def test_errors_have_the_envelope() -> None:
    """Whatever is wrong."""
    async with a_node() as (_, client):
        refused = await asked(client, "POST", "/api/tokens", {"rights": "king"}, status=400)
        missing = await asked(client, "GET", "/api/models/nonsense", status=404)

        assert (refused["error"]["param"], missing["error"]["code"]) == ("rights", "model_not_found")


async def test_settings_are_described() -> None:
    """All of them, whatever their kinds are."""
    async with a_node() as (_, client):
        said = await asked(client, "GET", "/api/settings")

        assert said["metrics_read"] == 0
